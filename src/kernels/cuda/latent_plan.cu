#include "kernels/cuda/latent_plan.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>

#include "kernels/cuda/stream.cuh"

namespace cachalot::cuda {

void LatentPlan::add(const LatentAttention& a, int rows_per_group, int chunk) {
  const int first_block = static_cast<int>(blocks.size());
  const int used = ceil_div(a.cache.rows, kLatentBlock);
  for (int b = 0; b < used; ++b) {
    blocks.push_back(a.cache.blocks[static_cast<std::size_t>(b)] + a.cache.offset);
  }
  const int rows = a.q.rows * a.heads;
  for (int row = 0; row < rows; row += rows_per_group) {
    RowGroup g{};
    g.q = a.q.data;
    g.out = a.out.data;
    g.q_stride = a.q.stride;
    g.out_stride = a.out.stride;
    g.first_block = first_block;
    g.first_row = row;
    g.rows = std::min(rows_per_group, rows - row);
    g.heads = a.heads;
    g.first_seen = a.cache.rows - a.q.rows + 1;
    g.cached = a.cache.rows;
    g.chunk = chunk;
    g.chunks = ceil_div(g.seen(g.rows - 1), chunk);
    g.scale_log2 = a.scale * std::numbers::log2e_v<float>;
    groups.push_back(g);
  }
}

void LatentPlan::share(int workers, bool partial_always) {
  // Ends of chunks in units of 64 tokens, over all groups; a chunk costs one such unit more.
  std::vector<std::int64_t> ends;
  std::vector<char> begins_eight;  // the chunk after that end
  std::int64_t total = 0;
  for (const RowGroup& g : groups) {
    for (int c = 0; c < g.chunks; ++c) {
      if (!ends.empty()) begins_eight.push_back(c % kChunksTogether == 0);
      total += ceil_div(g.end(c) - c * g.chunk, kLatentBlock) + 1;
      ends.push_back(total);
    }
  }
  const auto chunks = static_cast<std::int64_t>(ends.size());
  const bool each_its_own = workers >= chunks;
  workers = static_cast<int>(std::min<std::int64_t>(workers, chunks));
  // Cuts at the ends nearest to even shares; where eight chunks end near by, there: pieces of one
  // chunk leave partials.
  std::vector<std::int64_t> cuts{0};  // chunks before the cut
  const double share = static_cast<double>(total) / workers, near = share / 20;
  std::int64_t at = 0;
  for (int w = 1; w < workers; ++w) {
    if (each_its_own) {
      cuts.push_back(w);
      continue;
    }
    const double ideal = share * w;
    while (at + 1 < chunks && static_cast<double>(ends[static_cast<std::size_t>(at)]) < ideal) ++at;
    const auto distance = [&](std::int64_t i) {
      return std::abs(static_cast<double>(ends[static_cast<std::size_t>(i)]) - ideal);
    };
    std::int64_t best = at > 0 && distance(at - 1) < distance(at) ? at - 1 : at;
    double best_distance = near;
    for (std::int64_t i = at; i >= 0 && distance(i) <= near; --i) {
      if (i + 1 < chunks && begins_eight[static_cast<std::size_t>(i)] && distance(i) <= best_distance) {
        best = i;
        best_distance = distance(i);
      }
    }
    for (std::int64_t i = at + 1; i + 1 < chunks && distance(i) <= near; ++i) {
      if (begins_eight[static_cast<std::size_t>(i)] && distance(i) < best_distance) {
        best = i;
        best_distance = distance(i);
      }
    }
    if (best + 1 > cuts.back() && best + 1 < chunks) cuts.push_back(best + 1);
  }
  cuts.push_back(chunks);

  std::int64_t chunk = 0;
  std::size_t cut = 0;
  begins.clear();
  for (std::size_t i = 0; i < groups.size(); ++i) {
    RowGroup& g = groups[i];
    g.partial = partials;
    g.first_eight = static_cast<int>(eights.size());
    const std::size_t first_piece = pieces.size();
    for (int c = 0; c < g.chunks; ++c, ++chunk) {
      const bool cut_here = chunk == cuts[cut];
      if (cut_here) {
        begins.push_back(static_cast<int>(pieces.size()));
        ++cut;
      }
      const bool eight = c % kChunksTogether == 0;
      const int number = static_cast<int>(pieces.size() - first_piece);
      if (eight) eights.push_back(number);
      const bool continues = c > 0 && !eight && !cut_here &&
                             pieces.back().first_chunk % kChunksTogether == 0;
      if (continues) {
        ++pieces.back().chunks;
      } else {
        pieces.push_back({static_cast<int>(i), c, 1, g.partial + number});
      }
    }
    g.pieces = static_cast<int>(pieces.size() - first_piece);
    eights.push_back(g.pieces);
    if (g.chunks > 1 || partial_always) partials += g.pieces;
  }
  begins.push_back(static_cast<int>(pieces.size()));
}

DevicePlan upload(const Context& ctx, const LatentPlan& plan) {
  std::vector<std::byte> bytes;
  const auto append = [&bytes](const auto& list) {
    const std::size_t at = (bytes.size() + 15) / 16 * 16;
    const std::size_t size = list.size() * sizeof(list[0]);
    bytes.resize(at + size);
    std::memcpy(bytes.data() + at, list.data(), size);
    return at;
  };
  const std::size_t groups = append(plan.groups), pieces = append(plan.pieces),
                    begins = append(plan.begins), eights = append(plan.eights),
                    blocks = append(plan.blocks);
  const std::byte* base = stage(ctx, std::span<const std::byte>(bytes));
  return {reinterpret_cast<const RowGroup*>(base + groups),
          reinterpret_cast<const Piece*>(base + pieces),
          reinterpret_cast<const int*>(base + begins),
          reinterpret_cast<const int*>(base + eights),
          reinterpret_cast<const std::byte* const*>(base + blocks)};
}

}  // namespace cachalot::cuda
