#include "kernels/cuda/latent_plan.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>

#include "kernels/cuda/stream.cuh"

namespace cachalot::cuda {

void LatentPlan::add(const LatentAttention& a, int rows_per_group, ChunkLengths lengths) {
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
    g.lengths = lengths;
    g.chunks = lengths.chunks(g.seen(g.rows - 1));
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

namespace {

// Groups in twos that see the same rows of the same sequence.
bool all_twins(const std::vector<RowGroup>& groups) {
  if (groups.size() % 2 != 0) return false;
  for (std::size_t i = 0; i < groups.size(); i += 2) {
    const RowGroup &a = groups[i], &b = groups[i + 1];
    if (a.first_block != b.first_block || a.seen(0) != b.seen(0) || a.rows != b.rows ||
        a.seen(a.rows - 1) != b.seen(b.rows - 1)) {
      return false;
    }
  }
  return true;
}

// Where to cut the list of chunks: chunks before each block of threads, and all of them.
std::vector<int> cut(const std::vector<Chunk>& list, int workers) {
  const auto chunks = static_cast<int>(list.size());
  std::vector<int> cuts;
  if (chunks <= workers) {
    for (int c = 0; c <= chunks; ++c) cuts.push_back(c);
    return cuts;
  }
  std::int64_t total = 0;
  int largest = 0;
  for (const Chunk& c : list) {
    total += c.cost;
    largest = std::max(largest, c.cost);
  }
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
  cuts.push_back(chunks);
  return cuts;
}

}  // namespace

void LatentPlan::share(int workers, bool partial_always) {
  const std::size_t twins = workers > 1 && all_twins(groups) ? 2 : 1;
  std::vector<Chunk> list;
  for (std::size_t i = 0; i < groups.size(); i += twins) {
    const RowGroup& g = groups[i];
    for (int c = 0; c < g.chunks; ++c) {
      const int cost = ceil_div(g.end(c) - g.lengths.begin(c), kLatentBlock) + 1;
      list.push_back({cost, c % kChunksTogether == 0});
    }
  }
  const std::vector<int> cuts = cut(list, workers / static_cast<int>(twins));

  std::vector<Piece> shared;      // of the first twins; `partial` counts from the group's first
  std::vector<int> first_shared;  // of each two blocks of threads
  int chunk = 0;
  for (std::size_t i = 0; i < groups.size(); i += twins) {
    RowGroup& g = groups[i];
    const auto first_eight = static_cast<int>(eights.size());
    const std::size_t first_piece = shared.size();
    for (int c = 0; c < g.chunks; ++c, ++chunk) {
      const bool cut_here = chunk == cuts[first_shared.size()];
      if (cut_here) first_shared.push_back(static_cast<int>(shared.size()));
      const bool eight = c % kChunksTogether == 0;
      const int number = static_cast<int>(shared.size() - first_piece);
      if (eight) eights.push_back(number);
      const bool continues =
          c > 0 && !eight && !cut_here && shared.back().first_chunk % kChunksTogether == 0;
      if (continues) {
        ++shared.back().chunks;
      } else {
        shared.push_back({static_cast<int>(i), c, 1, number});
      }
    }
    eights.push_back(static_cast<int>(shared.size() - first_piece));
    for (std::size_t t = 0; t < twins; ++t) {
      RowGroup& twin = groups[i + t];
      twin.partial = partials;
      twin.pieces = eights.back();
      twin.first_eight = first_eight;
      if (g.chunks > 1 || partial_always) partials += twin.pieces;
    }
  }
  first_shared.push_back(static_cast<int>(shared.size()));

  begins.clear();
  for (std::size_t b = 0; b + 1 < first_shared.size(); ++b) {
    for (std::size_t t = 0; t < twins; ++t) {
      begins.push_back(static_cast<int>(pieces.size()));
      for (int i = first_shared[b]; i < first_shared[b + 1]; ++i) {
        Piece piece = shared[static_cast<std::size_t>(i)];
        piece.group += static_cast<int>(t);
        piece.partial += groups[static_cast<std::size_t>(piece.group)].partial;
        pieces.push_back(piece);
      }
    }
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
