// Hopper's asynchronous parts as the attention kernels use them: barriers in shared memory, tiles
// brought by TMA, and the descriptors by which wgmma reads them.
//
// A tile of bf16 lies in panels of 64 columns: row r of a panel is 128 bytes at r * 128, its
// 16-byte pieces permuted by r % 8 (TMA's and wgmma's 128-byte swizzle). A panel begins at a
// multiple of 1024 bytes. Products read a panel both ways: along its rows (the summed dimension is
// the columns) and across them (it is the rows).
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/ptx.cuh"

namespace cachalot::cuda::attn {

constexpr int kPanelCols = 64;
constexpr int kRowBytes = 128;
constexpr int kBoxRows = 64;  // rows that one TMA request brings
constexpr int kBoxBytes = kBoxRows * kRowBytes;

// ---- Barriers

__device__ inline void publish_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async.shared::cta;" ::: "memory");
}
__device__ inline void wait(std::uint32_t barrier, std::uint32_t parity) {
#ifdef CACHALOT_CUDA_SPIN_LIMIT  // wrong results instead of a deadlock (__trap costs registers)
  for (int i = 0; !ptx::barrier_try_wait(barrier, parity) && i < (1 << 16); ++i) {
  }
#else
  while (!ptx::barrier_try_wait(barrier, parity)) {
  }
#endif
}
// The numbered barriers of a block (0 is __syncthreads).
__device__ inline void sync_threads(int barrier, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}
__device__ inline void arrive_threads(int barrier, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// Which of a ring of buffers is next, and how often it was gone round.
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

// ---- Copies

// 64 columns from `col` of `rows` (a multiple of 64) rows from `row`; zeros outside the matrix.
template <int kRows>
__device__ inline void load_panel(const CUtensorMap& map, std::uint32_t barrier, std::uint32_t to,
                                  int col, int row) {
#pragma unroll
  for (int r = 0; r < kRows; r += kBoxRows) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
        "[%0], [%1, {%3, %4}], [%2];" ::"r"(to + r * kRowBytes),
        "l"(reinterpret_cast<std::uint64_t>(&map)), "r"(barrier), "r"(col), "r"(row + r)
        : "memory");
  }
}
// Contiguous bytes; addresses and size are multiples of 16.
__device__ inline void load_bytes(const void* from, std::uint32_t barrier, std::uint32_t to,
                                  int bytes) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(to),
      "l"(from), "r"(bytes), "r"(barrier)
      : "memory");
}
__device__ inline void prefetch(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(reinterpret_cast<std::uint64_t>(&map)) : "memory");
}

// Rows from `from` of every panel become zeros: what lies behind a sequence's end is another one's,
// and zero times its infinities would not be zero. By all `threads`; ends with their barrier.
template <int kPanels, int kRows>
__device__ inline void zero_rows_behind(std::uint32_t tile, int from, int thread, int threads,
                                        int barrier) {
  const int words = (kRows - from) * (kRowBytes / 16);
  for (int i = thread; i < kPanels * words; i += threads) {
    const std::uint32_t at =
        tile + (i / words) * (kRows * kRowBytes) + from * kRowBytes + (i % words) * 16;
    asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(at), "r"(0) : "memory");
  }
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");  // wgmma sees it
  sync_threads(barrier, threads);
}

// ---- Descriptors: address, distance of panels and of groups of 8 rows, 128-byte swizzle.

struct Operand {
  std::uint32_t low, high;
  __device__ Operand operator+(int sixteen_bytes) const { return {low + sixteen_bytes, high}; }
};
constexpr std::uint32_t kSwizzle = (1u << 30) | (1024 >> 4);

// The summed dimension lies along the rows: add 2 for the next 16 columns.
__device__ inline Operand along_rows(std::uint32_t tile) {
  return {(1u << 16) | (tile >> 4), kSwizzle};
}
// The summed dimension lies across the rows: add 128 for the next 16 rows.
template <int kPanelRows>
__device__ inline Operand across_rows(std::uint32_t tile) {
  return {(std::uint32_t{kPanelRows * kRowBytes >> 4} << 16) | (tile >> 4), kSwizzle};
}

template <int kRegisters>
__device__ inline void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ inline void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

}  // namespace cachalot::cuda::attn
