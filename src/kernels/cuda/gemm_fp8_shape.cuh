// What distinguishes the kernels of gemm_fp8, and what their blocks have in shared memory.
#pragma once

#include <cstdint>

#include "kernels/cuda/gemm_fp8_schedule.cuh"

namespace cachalot::cuda::fp8_product {

// How a kernel's blocks divide the work. Fields are what a kernel is named by.
struct Form {
  int groups = 1;  // warpgroups that multiply
  int parts = 1;   // of 64 rows, of each warpgroup
  int cols = 64;
  int stages = 10;
  bool column_scales = false;  // B has scales for each column, not for 128 together
  // Blocks of a cluster: `deep` of them divide K and then exchange their sums, each writing some of
  // the columns; `across` lie side by side and share the tile of A.
  int deep = 1, across = 1;
  int staged = 0;  // boxes of 8 KB of each warpgroup through which results leave, or 0
};

template <Form F>
struct Shape {
  static constexpr int kGroups = F.groups, kParts = F.parts;
  static constexpr int kRows = 64 * F.groups * F.parts, kCols = F.cols, kStages = F.stages;
  static constexpr int kDeep = F.deep, kAcross = F.across, kCluster = kDeep * kAcross;
  static constexpr bool kColumnScales = F.column_scales;
  static constexpr int kStagedBoxes = F.staged;
  // The next block of K is multiplied while this one is added: twice the registers.
  static constexpr bool kAhead = kParts == 1 && kGroups <= 2;

  static constexpr int kThreads = 128 * (kGroups + 1);
  // Registers of a thread that multiplies, and of one that loads.
  static constexpr int kRegisters = kGroups == 3 ? 160 : kAhead ? 232 : 224;
  static constexpr int kLoaderRegisters = (kGroups == 3 ? 512 : 504) - kGroups * kRegisters;
  static constexpr int kSums = kCols / 2;  // of a thread and part
  static constexpr int kBytesA = kRows * kBlockK, kBytesB = kCols * kBlockK;
  static constexpr int kStageBytes = kBytesA + kBytesB;
  static constexpr int kBoxA = kRows / kAcross;  // rows of A that one block loads
  static constexpr int kScalers = 64;            // threads that copy scales

  struct Shared {
    alignas(1024) std::uint8_t tiles[kStages][kStageBytes];
    // Boxes of 64 rows by 128 bytes.
    alignas(1024) std::uint8_t staged[kGroups][kStagedBoxes > 0 ? kStagedBoxes * 8192 : 16];
    float scale_a[kStages][kRows];
    float scale_b[kStages][kColumnScales ? kCols : 4];
    std::uint64_t full[kStages], empty[kStages];
    int tile_begin[kMaxProblems + 1];
    int arrived[kGroups];
    // Sums of this block's columns from each block of the cluster.
    float4 exchanged[kDeep > 1 ? kDeep* kGroups*(kSums / kDeep / 4) : 1][128];
    std::uint64_t all_exchanged;
  };
  static constexpr int kSharedBytes = static_cast<int>(sizeof(Shared)) + 1024;
  using Tiles = Schedule<kRows, kCols, kDeep, kAcross>;

  static_assert(kRows <= 256 && kBoxA % 8 == 0);
  static_assert(kCols == 64 || kCols == 128);
  static_assert(kDeep == 1 ||
                (kSums / kDeep % 8 == 0 && kParts == 1 && kAcross == 1 && F.staged == 0));
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
