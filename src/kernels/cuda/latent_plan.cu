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

namespace {

// A chunk and what it costs, in units of a block of 64 tokens; its end costs one more.
struct Chunk {
  int cost;
  bool begins_eight;
};

struct Cuts {
  std::vector<int> before;  // chunks before each cut, from 0 on
  double cost = 0;          // of the one with most to do, and of merging
};

// Gives to each up to `capacity`, ending with eight chunks where those end near by: pieces that
// begin in the middle are single chunks.
Cuts fill(const std::vector<Chunk>& chunks, int capacity) {
  constexpr double kPiece = 1, kMerge = 1.0 / 64;
  Cuts cuts;
  const int count = static_cast<int>(chunks.size());
  int pieces = 0;
  for (int begin = 0; begin < count;) {
    cuts.before.push_back(begin);
    int end = begin, load = 0, last_eight = -1, load_to_eight = 0;
    for (; end < count && (end == begin || load + chunks[end].cost <= capacity); ++end) {
      if (end > begin && chunks[end].begins_eight) {
        last_eight = end;
        load_to_eight = load;
      }
      load += chunks[end].cost;
    }
    const bool middle = end < count && !chunks[end].begins_eight;
    if (middle && last_eight > 0 && load_to_eight * 8 >= capacity * 7) {
      end = last_eight;
      load = load_to_eight;
    }
    int own = 0;
    for (int c = begin, eight = chunks[begin].begins_eight; c < end; ++c) {
      if (chunks[c].begins_eight) eight = 1;
      own += chunks[c].begins_eight || eight == 0;
    }
    pieces += own;
    cuts.cost = std::max(cuts.cost, load + kPiece * own);
    begin = end;
  }
  cuts.cost += kMerge * pieces;
  return cuts;
}

}  // namespace

void LatentPlan::share(int workers, bool partial_always) {
  std::vector<Chunk> list;
  std::int64_t total = 0;
  int largest = 0;
  for (const RowGroup& g : groups) {
    for (int c = 0; c < g.chunks; ++c) {
      const int cost = ceil_div(g.end(c) - c * g.chunk, kLatentBlock) + 1;
      list.push_back({cost, c % kChunksTogether == 0});
      total += cost;
      largest = std::max(largest, cost);
    }
  }
  const auto chunks = static_cast<int>(list.size());
  std::vector<int> cuts;
  if (chunks <= workers) {
    for (int c = 0; c < chunks; ++c) cuts.push_back(c);
  } else {
    // The least capacity that suffices, and some larger ones that may fit the eights better.
    const int least = std::max(largest, ceil_div(total, workers));
    Cuts best;
    int tried = 0, capacity = least;
    while (tried < (chunks > 8192 ? 1 : 4) || best.before.empty()) {
      Cuts some = fill(list, capacity);
      if (static_cast<int>(some.before.size()) <= workers) {
        ++tried;
        if (best.before.empty() || some.cost < best.cost) best = std::move(some);
      }
      capacity += std::max(1, least / 24);
    }
    cuts = std::move(best.before);
  }
  cuts.push_back(chunks);

  int chunk = 0;
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
      const bool continues =
          c > 0 && !eight && !cut_here && pieces.back().first_chunk % kChunksTogether == 0;
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
          reinterpret_cast<const int*>(base + begins), reinterpret_cast<const int*>(base + eights),
          reinterpret_cast<const std::byte* const*>(base + blocks)};
}

}  // namespace cachalot::cuda
