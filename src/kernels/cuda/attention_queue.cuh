// The work of a launch, cut into tiles, and the order it is done in: a list made on the host, from
// which the blocks of threads that stay on the processors take one tile after the other.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "kernels/attention.h"
#include "kernels/cuda/attention_hopper.cuh"
#include "kernels/cuda/stream.cuh"

namespace cachalot::cuda::attn {

// Rows of a span in what the backward prepares begin at multiples of this.
constexpr int kPaddedRows = 64;

struct alignas(16) Tile {
  AttentionSpan span;
  int padded_begin;  // of the span
  int head;          // negative: no more tiles
  int block;         // of queries or of keys inside the span
  int work;          // blocks of the other kind that it meets
  __host__ __device__ int before() const { return span.kv_rows - span.q_rows; }
};
static_assert(sizeof(Tile) == 32);

struct TileQueue {
  const Tile* tiles;
  int* next;  // how many were taken beyond the first of every block of threads; zero at the launch
  int count;
};

// Lists of tiles, one queue each, in one upload. They are kept from call to call: the layers of a
// model attend over the same spans.
class TileLists {
 public:
  // Whether the lists of the last call were for these; if not they are empty now.
  bool hold(std::span<const AttentionSpan> spans, int heads) {
    if (heads == heads_ && spans.size() == spans_.size() &&
        (spans.empty() || std::memcmp(spans.data(), spans_.data(), spans.size_bytes()) == 0)) {
      return true;
    }
    heads_ = heads;
    spans_.assign(spans.begin(), spans.end());
    tiles_.assign(1, Tile{});  // room for the counters
    begins_.assign(1, 1);
    return false;
  }
  // Another list: every (span, head) falls into `blocks(span)` tiles of `work(span, block)`. Tiles
  // whose operands fit the L2 cache together come together, the longest of them first: they share
  // what they read, and the last to begin are short.
  template <class Blocks, class Work>
  void add(std::int64_t bytes_per_row, Blocks&& blocks, Work&& work);

  int count(int list) const { return begins_[list + 1] - begins_[list]; }
  void upload(const Context& ctx) {
    device_ = const_cast<Tile*>(stage(ctx, std::span<const Tile>(tiles_)));
  }
  TileQueue queue(int list) const {  // once per upload
    return {device_ + begins_[list], reinterpret_cast<int*>(device_) + list, count(list)};
  }

 private:
  struct Unit {
    AttentionSpan span;
    int padded_begin, head, blocks, left;
  };
  std::vector<AttentionSpan> spans_;
  int heads_ = 0;
  std::vector<Tile> tiles_;
  std::vector<int> begins_;
  std::vector<Unit> units_;
  Tile* device_ = nullptr;
};

template <class Blocks, class Work>
void TileLists::add(std::int64_t bytes_per_row, Blocks&& blocks, Work&& work) {
  constexpr std::int64_t kTogether = std::int64_t{20} << 20;
  // Blocks of a unit in order of work: it grows with the block (queries) or shrinks (keys).
  const auto next = [&](const Unit& u) {
    const bool grows = work(u.span, 0) <= work(u.span, u.blocks - 1);
    return grows ? u.left - 1 : u.blocks - u.left;
  };
  const auto flush = [&] {
    while (!units_.empty()) {
      int most = 0;
      for (const Unit& u : units_) most = std::max(most, work(u.span, next(u)));
      for (Unit& u : units_) {
        const int block = next(u), w = work(u.span, block);
        if (w < most) continue;
        tiles_.push_back({u.span, u.padded_begin, u.head, block, w});
        --u.left;
      }
      std::erase_if(units_, [](const Unit& u) { return u.left == 0; });
    }
  };
  std::int64_t together = 0;
  int padded = 0;
  for (const AttentionSpan& s : spans_) {
    const int n = blocks(s);
    for (int h = 0; h < heads_ && n > 0; ++h) {
      const std::int64_t bytes = bytes_per_row * s.kv_rows;
      if (together + bytes > kTogether) {
        flush();
        together = 0;
      }
      units_.push_back({s, padded, h, n, n});
      together += bytes;
    }
    padded += ceil_div(s.q_rows, kPaddedRows) * kPaddedRows;
  }
  flush();
  begins_.push_back(static_cast<int>(tiles_.size()));
}

// ---- On the device

// One thread takes tiles and tells the others: fn(tile) for each, which fetches the operands; a
// tile is told when `empty` says that the one before was read, and `full` gets its arrival by
// fn's ptx::barrier_arrive_expect().
template <class Fn>
__device__ void take_tiles(const TileQueue& queue, std::uint32_t slot, std::uint32_t full,
                           std::uint32_t empty, Fn&& fn) {
  const auto tell = [&](const Tile& t) {
    const int* x = reinterpret_cast<const int*>(&t);
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(slot), "r"(x[0]), "r"(x[1]),
                 "r"(x[2]), "r"(x[3])
                 : "memory");
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(slot + 16), "r"(x[4]), "r"(x[5]),
                 "r"(x[6]), "r"(x[7])
                 : "memory");
  };
  std::uint32_t phase = 1;
  for (int i = blockIdx.x; i < queue.count; phase ^= 1) {
    const Tile t = queue.tiles[i];
    wait(empty, phase);
    tell(t);
    fn(t);
    i = static_cast<int>(gridDim.x) + atomicAdd(queue.next, 1);  // buffers are full meanwhile
  }
  wait(empty, phase);
  Tile none{};
  none.head = -1;
  tell(none);
  ptx::barrier_arrive(full);
}

// The other side. The caller arrives at `empty` when it is done with tile and operands.
__device__ inline Tile next_tile(std::uint32_t slot, std::uint32_t full, std::uint32_t phase) {
  wait(full, phase);
  Tile t;
  int* x = reinterpret_cast<int*>(&t);
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
               : "r"(slot)
               : "memory");
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(x[4]), "=r"(x[5]), "=r"(x[6]), "=r"(x[7])
               : "r"(slot + 16)
               : "memory");
  return t;
}

}  // namespace cachalot::cuda::attn
