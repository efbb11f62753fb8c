// What distinguishes the kernels of gemm_fp8, and what their blocks have in shared memory.
#pragma once

#include <cstdint>

#include "kernels/cuda/gemm_fp8_schedule.cuh"

namespace cachalot::cuda::fp8_product {

// kColumnScales: B has scales for each column, not for 128 together. kDeep blocks form a cluster
// that divides K and then exchanges its sums; each block writes some of the columns. kStaged:
// results leave through shared memory, while the next tile is multiplied.
template <int kRows_, int kCols_, int kStages_, bool kColumnScales_, int kDeep_ = 1,
          bool kStaged_ = false>
struct Shape {
  static constexpr int kRows = kRows_, kCols = kCols_, kStages = kStages_, kDeep = kDeep_;
  static constexpr bool kColumnScales = kColumnScales_, kStaged = kStaged_;

  static constexpr int kMultipliers = kRows / 64;  // warpgroups
  static constexpr int kThreads = 128 * (kMultipliers + 1);
  static constexpr int kSums = kCols / 2;  // of a thread
  static constexpr int kBytesA = kRows * kBlockK, kBytesB = kCols * kBlockK;
  static constexpr int kStageBytes = kBytesA + kBytesB;
  static constexpr int kScalers = 64;  // threads that copy scales

  struct Shared {
    alignas(1024) std::uint8_t tiles[kStages][kStageBytes];
    // [64, kCols] of each warpgroup in boxes of 64 rows by 128 bytes.
    alignas(1024) std::uint8_t staged[kMultipliers][kStaged ? 64 * kCols * 4 : 16];
    float scale_a[kStages][kRows];
    float scale_b[kStages][kColumnScales ? kCols : 4];
    std::uint64_t full[kStages], empty[kStages];
    int tile_begin[kMaxProblems + 1];
    int arrived[kMultipliers];
    // Sums of this block's columns from each block of the cluster.
    float4 exchanged[kDeep > 1 ? kDeep* kMultipliers*(kSums / kDeep / 4) : 1][128];
    std::uint64_t all_exchanged;
  };
  static constexpr int kSharedBytes = static_cast<int>(sizeof(Shared)) + 1024;
  using Tiles = Schedule<kRows, kCols, kDeep>;

  static_assert(kRows == 64 || kRows == 128);
  static_assert(kCols == 64 || kCols == 128);
  static_assert(kDeep == 1 || (kSums / kDeep % 8 == 0 && !kStaged));
  static_assert(kSharedBytes <= 227 * 1024);
};

// For every tile that workers may share (at most two rounds of them) and warpgroup: how many have
// left their piece. Zero between launches.
inline constexpr int kCounters = 2 * 2 * 256;
static __device__ unsigned int counters[kCounters];

// Place in the ring of stages.
template <int kStages>
struct Ring {
  int stage = 0;
  std::uint32_t phase = 0;
  __device__ void advance() {
    if (++stage == kStages) {
      stage = 0;
      phase ^= 1;
    }
  }
};

// What all lanes agree on, as the compiler can see.
template <class T>
__device__ __forceinline__ T uniform(T x) {
  return __shfl_sync(~0u, x, 0);
}

}  // namespace cachalot::cuda::fp8_product
