// Instructions of Hopper that latent attention is made of, and how its tiles lie in shared memory.
//
// A tile holds tokens as bf16 in columns of 64 values: column block c begins at c * tokens * 128
// bytes, token t of it 128 * t bytes further; its 16-byte pieces are swapped, piece j lying at
// j ^ (t % 8): the 128-byte swizzle of tensor copies, which ldmatrix and wgmma read without
// conflicts of banks.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/launch_early.cuh"
#include "kernels/cuda/ptx.cuh"

namespace cachalot::cuda {

inline constexpr int kLatentWidth = 512, kRopeWidth = 64;  // of the fast kernels
inline constexpr int kQueryWidth = kLatentWidth + kRopeWidth;
inline constexpr int kColumnBlocks = kQueryWidth / 64;
inline constexpr int kBf16RowBytes = 2 * kQueryWidth;
inline constexpr int kFp8ScalesAt = kLatentWidth;
inline constexpr int kFp8RopeAt = kFp8ScalesAt + 4 * (kLatentWidth / 128);
inline constexpr int kFp8RowBytes = kFp8RopeAt + 2 * kRopeWidth;
inline constexpr int kCopyGrain = 128;  // bytes that blocks of bf16 are aligned to, mutually

// Barriers in shared memory: 64 bits each.
__device__ inline void fence_barrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ inline void wait(std::uint32_t bar, std::uint32_t parity) {
  ptx::barrier_wait(bar, parity);
}

// Writes of this thread to shared memory become visible to tensor copies and wgmma.
__device__ inline void fence_async() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Registers move between groups of four warps.
template <int kRegisters>
__device__ inline void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ inline void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// A barrier of some of the block's threads.
__device__ inline void sync_threads(int name, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(name), "r"(threads) : "memory");
}

__device__ inline bool any_of_threads(int name, int threads, bool x) {
  std::uint32_t any;
  asm volatile(
      "{\n.reg .pred p, q;\nsetp.ne.u32 p, %1, 0;\n"
      "barrier.cta.red.or.pred q, %2, %3, p;\nselp.u32 %0, 1, 0, q;\n}"
      : "=r"(any)
      : "r"(static_cast<std::uint32_t>(x)), "r"(name), "r"(threads)
      : "memory");
  return any != 0;
}

__device__ inline void copy_box(std::uint32_t to, const CUtensorMap* map, std::uint32_t bar, int x,
                                int y, int z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%3, %4, %5}], [%2];" ::"r"(to),
      "l"(map), "r"(bar), "r"(x), "r"(y), "r"(z)
      : "memory");
}
__device__ inline void copy_bytes(std::uint32_t to, const void* from, int bytes,
                                  std::uint32_t bar) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(to),
      "l"(from), "r"(bytes), "r"(bar)
      : "memory");
}

__device__ inline float load_float(std::uint32_t address) {
  float x;
  asm volatile("ld.shared.f32 %0, [%1];" : "=f"(x) : "r"(address) : "memory");
  return x;
}
__device__ inline void store_float(std::uint32_t address, float x) {
  asm volatile("st.shared.f32 [%0], %1;" ::"r"(address), "f"(x) : "memory");
}
__device__ inline uint4 load_piece(std::uint32_t address) {
  uint4 x;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
               : "r"(address)
               : "memory");
  return x;
}
__device__ inline void store_piece(std::uint32_t address, uint4 x) {
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(x.x), "r"(x.y),
               "r"(x.z), "r"(x.w)
               : "memory");
}

// Four 8 x 8 matrices of bf16 as products have them in registers: lane 8 j + i has the address of
// row i of matrix j.
__device__ inline void store_matrices(std::uint32_t address, std::uint32_t a, std::uint32_t b,
                                      std::uint32_t c, std::uint32_t d) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
               "r"(a), "r"(b), "r"(c), "r"(d)
               : "memory");
}
// The same, each matrix transposed.
__device__ inline void store_transposed(std::uint32_t address, std::uint32_t a, std::uint32_t b,
                                        std::uint32_t c, std::uint32_t d) {
  asm volatile(
      "stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
      "r"(a), "r"(b), "r"(c), "r"(d)
      : "memory");
}

__device__ inline std::uint32_t pack_bf16(float low, float high) {
  std::uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}
// Of a packed pair: weights are summed as they are multiplied, so that they sum to one exactly.
__device__ inline float sum_of_pair(std::uint32_t pair) {
  return __uint_as_float(pair << 16) + __uint_as_float(pair & 0xFFFF0000u);
}
__device__ inline float exp2_of(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Where a 16-byte piece of a token lies in a tile of `kTokens`.
template <int kTokens>
__device__ inline std::uint32_t piece_at(int token, int column_block, int piece) {
  return static_cast<std::uint32_t>(column_block * (kTokens * 128) + token * 128 +
                                    ((piece ^ (token & 7)) << 4));
}

// Codes of E4M3 without subnormals -> bf16. The bits of a code, put where those of a bf16 are, are
// the number times 2^-120: a product with the scale, a power of two, times 2^120 is exact. Where
// that is past the end of bf16, and for NaN, kLarge multiplies twice.
__device__ inline bool is_large_scale(float scale) { return !(scale <= 0x1p7f); }
struct CodeScale {
  __nv_bfloat162 first, second;
  CodeScale() = default;
  __device__ explicit CodeScale(float scale, bool large) : CodeScale(scale, scale, large) {}
  // Of the lower of two codes, and of the upper one.
  __device__ CodeScale(float low, float high, bool large) {
    first = large ? __float2bfloat162_rn(0x1p120f)
                  : __floats2bfloat162_rn(low * 0x1p120f, high * 0x1p120f);
    second = __floats2bfloat162_rn(low, high);
  }
};
// Two bytes of a pair of words, each below its sign repeated: `kWhich` as PTX's prmt has it.
template <std::uint32_t kWhich>
__device__ inline std::uint32_t two_bytes(std::uint32_t a, std::uint32_t b) {
  std::uint32_t x;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(x) : "r"(a), "r"(b), "n"(kWhich));
  return x;
}
template <bool kLarge>
__device__ inline std::uint32_t two_of_codes(std::uint32_t bytes, const CodeScale& scale) {
  const std::uint32_t bits = (bytes << 4) & 0x87F087F0u;
  __nv_bfloat162 x = __hmul2(*reinterpret_cast<const __nv_bfloat162*>(&bits), scale.first);
  if constexpr (kLarge) x = __hmul2(x, scale.second);
  return *reinterpret_cast<const std::uint32_t*>(&x);
}
inline constexpr std::uint32_t kLowCodes = 0x9180, kHighCodes = 0xB3A2;  // of a word
// Code `c` of a word and of another one.
inline constexpr std::uint32_t codes_across(std::uint32_t c) { return 0xC480u + 0x1111u * c; }

// Tokens from `valid` on become zeros: what a block holds behind its last row may be NaN, and a
// weight of zero would not silence that.
template <int kTokens, int kThreads>
__device__ inline void clear_tokens(std::uint32_t tile, int valid, int thread) {
  for (int i = valid * 72 + thread; i < kTokens * 72; i += kThreads) {
    const int t = i / 72, piece = i % 72;
    asm volatile("st.shared.v4.u32 [%0], {%1, %1, %1, %1};" ::"r"(
                     tile + piece_at<kTokens>(t, piece / 8, piece % 8)),
                 "r"(0)
                 : "memory");
  }
}

}  // namespace cachalot::cuda
