// Which tile of which product each block of a persistent grid computes, and which blocks of K.
//
// Tiles of all products are numbered one after the other; worker w (a block, or a cluster of blocks
// that divide K) takes tiles w, w + workers, ... Where the last round would leave workers idle, and
// all products have one K, the tiles of the last two rounds are one line of blocks of K instead,
// cut into equal pieces ("stream-K": Osama and others, 2023): a tile that two or more workers have
// a piece of is summed, in the order of K, by the one that finishes last.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "kernels/cuda/stream.cuh"
#include "tensor/fp8.h"

namespace cachalot::cuda::fp8_product {

inline constexpr int kBlockK = kScaleTileSize;
inline constexpr int kMaxProblems = 256;  // of one launch
inline constexpr int kNearProblems = 6;   // as many travel as the kernel's arguments

// Scale of row r (of A, or of B^T) in block b of K: data[(r >> shift) * by_row + b * by_block].
struct Scales {
  const float* data = nullptr;
  std::int64_t by_row = 0;
  std::int64_t by_block = 0;
  int shift = 0;
};

// C [M, N] = A [M, K] B [N, K]^T
struct Problem {
  CUtensorMap a, b;
  CUtensorMap c;  // where `mapped`
  Scales scale_a, scale_b;
  float* out = nullptr;
  Bf16* out_bf16 = nullptr;  // instead of out
  std::int64_t out_stride = 0;
  const std::int32_t* count = nullptr;  // on the device: rows that exist, at most m
  int m = 0, n = 0, k = 0;
  bool accumulate = false;
  bool vectors = false;  // rows of C are aligned for stores of 4 numbers
  bool mapped = false;   // and for the copy engine

  __device__ int rows() const { return count != nullptr ? min(max(*count, 0), m) : m; }
};

struct Params {
  const Problem* list = nullptr;  // null: `near`
  int problems = 0;
  int group = 8;         // rows of tiles that are walked together, for the L2 cache
  int split_blocks = 0;  // blocks of K of every product, where tiles may be cut; or 0
  int split_cost = 0;    // what cutting costs, in the time of blocks of K of a tile
  float4* partials = nullptr;
  Problem near[kNearProblems];
};

// What one block computes next.
struct Item {
  int problem;
  int row, col;    // of C, where the block's tile begins
  int begin, end;  // blocks of K
  int cut;         // index among the tiles that may be cut, or -1
};

// Tiles of kRows by kCols. The kDeep blocks of a cluster have one tile and each its part of K;
// kAcross blocks have tiles side by side, the last of which may lie outside of C.
template <int kRows, int kCols, int kDeep, int kAcross>
class Schedule {
 public:
  static constexpr int kCluster = kDeep * kAcross;

  // Run by one warp: where each problem's tiles begin; begin[problems] is the number of all.
  static __device__ void number_tiles(const Params& params, const Problem* list, int* begin) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    int sum = 0;
    for (int first = 0; first < params.problems; first += 32) {
      const int i = first + lane;
      const int tiles = i < params.problems ? tiles_down(list[i]) * tiles_right(list[i]) : 0;
      int upto = tiles;
#pragma unroll
      for (int step = 1; step < 32; step *= 2) {
        const int before = __shfl_up_sync(~0u, upto, step);
        if (lane >= step) upto += before;
      }
      if (i < params.problems) begin[i] = sum + upto - tiles;
      sum += __shfl_sync(~0u, upto, 31);
    }
    if (lane == 0) begin[params.problems] = sum;
  }

  __device__ Schedule(const Params& params, const Problem* list, const int* begin, int rank)
      : list_(list),
        begin_(begin),
        group_(params.group),
        blocks_(params.split_blocks),
        rank_(rank) {
    const int workers = static_cast<int>(gridDim.x) / kCluster;
    const int worker = static_cast<int>(blockIdx.x) / kCluster;
    const int tiles = begin[params.problems];
    const int last_round = tiles % workers;
    whole_ = tiles;
    step_ = workers;
    tile_ = worker;
    if (last_round > 0 && blocks_ > 1 &&
        (workers - last_round) * blocks_ > params.split_cost * workers) {
      whole_ = max(tiles / workers - 1, 0) * workers;
      const int units = (tiles - whole_) * blocks_;
      const int cutters = max(1, min(workers, units / kLeastBlocks));
      each_ = units / cutters;
      longer_ = units % cutters;
      unit_ = worker < cutters ? unit_of(worker) : 0;
      unit_end_ = worker < cutters ? unit_of(worker + 1) : 0;
    }
  }

  __device__ bool next(Item& item) {
    int tile;
    if (tile_ < whole_) {
      tile = tile_;
      tile_ += step_;
      item.cut = -1;
    } else {
      if (unit_ >= unit_end_) return false;
      item.cut = unit_ / blocks_;
      item.begin = unit_ - item.cut * blocks_;
      item.end = min(blocks_, item.begin + unit_end_ - unit_);
      unit_ += item.end - item.begin;
      tile = whole_ + item.cut;
    }
    while (begin_[problem_ + 1] <= tile) ++problem_;
    item.problem = problem_;
    const Problem& p = list_[problem_];
    if (item.cut < 0) {
      const int blocks = (p.k + kBlockK - 1) / kBlockK;
      item.begin = kDeep > 1 ? blocks * rank_ / kDeep : 0;
      item.end = kDeep > 1 ? blocks * (rank_ + 1) / kDeep : blocks;
    }
    place(p, tile - begin_[problem_], item);
    return true;
  }

  // Workers that have a piece of the tile are first .. last; the pieces of worker w are in slot
  // 2 w (a tile begun before it) and 2 w + 1.
  __device__ int first_worker(int cut) const { return worker_of(cut * blocks_); }
  __device__ int last_worker(int cut) const { return worker_of(cut * blocks_ + blocks_ - 1); }
  __device__ int slot(int worker, int cut) const {
    return 2 * worker + (unit_of(worker) > cut * blocks_ ? 0 : 1);
  }

 private:
  static constexpr int kLeastBlocks = 2;  // of a worker's share

  static __device__ int tiles_down(const Problem& p) { return (p.rows() + kRows - 1) / kRows; }
  static __device__ int tiles_right(const Problem& p) {
    return (p.n + kCols * kAcross - 1) / (kCols * kAcross);
  }
  // Columns of tiles within groups of rows: what runs at one time is about square.
  __device__ void place(const Problem& p, int tile, Item& item) const {
    const int down = tiles_down(p), right = tiles_right(p);
    const int of_group = group_ * right;
    const int first = tile / of_group * group_;
    const int high = min(group_, down - first);
    const int within = tile % of_group;
    item.row = (first + within % high) * kRows;
    item.col = within / high * (kCols * kAcross) + rank_ % kAcross * kCols;
  }
  __device__ int unit_of(int worker) const { return worker * each_ + min(worker, longer_); }
  __device__ int worker_of(int unit) const {
    const int of_longer = longer_ * (each_ + 1);
    return unit < of_longer ? unit / (each_ + 1) : longer_ + (unit - of_longer) / each_;
  }

  const Problem* list_;
  const int* begin_;
  int group_, blocks_, rank_;
  int whole_ = 0, step_ = 0, tile_ = 0, problem_ = 0;
  int each_ = 1, longer_ = 0, unit_ = 0, unit_end_ = 0;
};

}  // namespace cachalot::cuda::fp8_product
