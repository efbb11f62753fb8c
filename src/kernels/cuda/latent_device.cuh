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
// A wait of seconds is a fault: a trap names it where a hang would not.
__device__ inline void wait(std::uint32_t bar, std::uint32_t parity) {
  if (ptx::barrier_try_wait(bar, parity)) return;
  const long long begin = clock64();
  while (!ptx::barrier_try_wait(bar, parity)) {
    if (clock64() - begin > 1'000'000'000) __trap();
  }
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
// Where the program says: a load that moves up takes registers.
__device__ inline uint4 load_global_piece(const void* from) {
  uint4 x;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
               : "l"(from));
  return x;
}
__device__ inline float load_global_float(const void* from) {
  float x;
  asm volatile("ld.global.nc.f32 %0, [%1];" : "=f"(x) : "l"(from));
  return x;
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
  __device__ explicit CodeScale(float scale, bool large) {
    first = __float2bfloat162_rn(large ? 0x1p120f : scale * 0x1p120f);
    second = __float2bfloat162_rn(scale);
  }
};
template <bool kLarge>
__device__ inline std::uint32_t two_of_codes(std::uint32_t spread, const CodeScale& scale) {
  const std::uint32_t bits = (spread & 0x80008000u) | ((spread >> 4) & 0x07F007F0u);
  __nv_bfloat162 x = __hmul2(*reinterpret_cast<const __nv_bfloat162*>(&bits), scale.first);
  if constexpr (kLarge) x = __hmul2(x, scale.second);
  return *reinterpret_cast<const std::uint32_t*>(&x);
}
// Where a thread's 16 columns lie, two pieces: columns 16 `piece` on of a token's four column
// blocks from `first_column` on. Threads have the pieces of a token in order; those of neighbouring
// column blocks store theirs in opposite orders: no two of the eight that store at once meet in a
// bank.
struct PieceStore {
  std::uint32_t at, next;
  bool odd;
  template <int kTokens>
  static __device__ PieceStore of(std::uint32_t tile, int token, int first_column, int piece) {
    const bool odd = piece / 4 % 2 != 0;
    const std::uint32_t at =
        tile + piece_at<kTokens>(token, first_column + piece / 4, piece % 4 * 2 + odd);
    return {at, at ^ 16, odd};
  }
};
template <bool kLarge>
__device__ inline void expand_piece(uint4 codes, float scale, const PieceStore& to, int offset) {
  const CodeScale by(scale, kLarge);
  const auto two = [&](std::uint32_t word, std::uint32_t which) {
    return two_of_codes<kLarge>(__byte_perm(word, 0, which), by);
  };
  constexpr std::uint32_t kLow = 0x1404, kHigh = 0x3424;  // where two codes go: upper bytes of two
  const uint2 first = to.odd ? uint2{codes.z, codes.w} : uint2{codes.x, codes.y};
  const uint2 second = to.odd ? uint2{codes.x, codes.y} : uint2{codes.z, codes.w};
  store_piece(to.at + offset,
              {two(first.x, kLow), two(first.x, kHigh), two(first.y, kLow), two(first.y, kHigh)});
  store_piece(to.next + offset, {two(second.x, kLow), two(second.x, kHigh), two(second.y, kLow),
                                 two(second.y, kHigh)});
}

// Tokens [first, first + 32) of a tile from rows of FP8 in shared memory; those from `valid` on, of
// the rows, become zeros. By four warps.
template <int kTokens>
__device__ inline void expand_rows(std::uint32_t rows, std::uint32_t tile, int first, int valid,
                                   int thread) {
  constexpr int kAtOnce = 4;
  const int warp = thread / 32, lane = thread % 32;
  // Eight tokens further they lie 1024 bytes further.
  const PieceStore to[2] = {PieceStore::of<kTokens>(tile, first + warp, 0, lane),
                            PieceStore::of<kTokens>(tile, first + warp + 4, 0, lane)};
#pragma unroll
  for (int t0 = 0; t0 < 32; t0 += 4 * kAtOnce) {
    uint4 codes[kAtOnce];
    float scales[kAtOnce];
    bool large = false;
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int t = t0 + 4 * i + warp;
      const std::uint32_t row = rows + static_cast<std::uint32_t>(t * kFp8RowBytes);
      codes[i] = load_piece(row + lane * 16);
      scales[i] = load_float(row + kFp8ScalesAt + lane / 8 * 4);
      if (t >= valid) {
        codes[i] = {0, 0, 0, 0};
        scales[i] = 1;
      }
      large |= is_large_scale(scales[i]);
    }
    if (__any_sync(0xFFFFFFFFu, large)) {
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        expand_piece<true>(codes[i], scales[i], to[i % 2], (t0 + i / 2 * 8) * 128);
      }
    } else {
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        expand_piece<false>(codes[i], scales[i], to[i % 2], (t0 + i / 2 * 8) * 128);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int t = thread / 8 + 16 * i;
    uint4 x = load_piece(rows + static_cast<std::uint32_t>(t * kFp8RowBytes + kFp8RopeAt) +
                         thread % 8 * 16);
    if (t >= valid) x = {0, 0, 0, 0};
    store_piece(tile + piece_at<kTokens>(first + t, kColumnBlocks - 1, thread % 8), x);
  }
}

// Four column blocks of a tile from `first_column` on, and the rope if asked for, out of global
// memory: read into registers, then, once `room` says so, expanded. By four warps.
template <int kTokens, class Room>
__device__ inline void expand_half(const std::byte* block, int valid, std::uint32_t tile,
                                   int first_column, bool rope, Room&& room, int thread) {
  constexpr int kThreads = 128, kPerRow = 16, kRowsAtOnce = kThreads / kPerRow;
  constexpr int kSteps = kTokens / kRowsAtOnce, kRopeSteps = kTokens * 8 / kThreads;
  const int piece = thread % kPerRow, first_row = thread / kPerRow;
  const std::byte* row = block + first_row * kFp8RowBytes;
  const std::byte* codes_at = row + first_column * 64 + piece * 16;
  const std::byte* scale_at = row + kFp8ScalesAt + (first_column / 2 + piece / 8) * 4;
  const PieceStore to = PieceStore::of<kTokens>(tile, first_row, first_column, piece);
  uint4 codes[kSteps];
  float scales[kSteps];
  bool large = false;
#pragma unroll
  for (int i = 0; i < kSteps; ++i) {
    codes[i] = {0, 0, 0, 0};
    scales[i] = 1;
    if (first_row + i * kRowsAtOnce < valid) {
      codes[i] = load_global_piece(codes_at + i * kRowsAtOnce * kFp8RowBytes);
      scales[i] = load_global_float(scale_at + i * kRowsAtOnce * kFp8RowBytes);
    }
  }
  room();
#pragma unroll
  for (int i = 0; i < kSteps; ++i) large |= is_large_scale(scales[i]);
  large = __any_sync(0xFFFFFFFFu, large);
  uint4 ropes[kRopeSteps];
  const auto expand = [&](auto is_large) {
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      if (rope && i == kSteps / 2) {  // into registers that are free by now
#pragma unroll
        for (int j = 0; j < kRopeSteps; ++j) {
          const int t = (thread + j * kThreads) / 8;
          ropes[j] = {0, 0, 0, 0};
          if (t < valid) {
            ropes[j] = load_global_piece(block + t * kFp8RowBytes + kFp8RopeAt + thread % 8 * 16);
          }
        }
      }
      expand_piece<is_large.value>(codes[i], scales[i], to, i * kRowsAtOnce * 128);
    }
  };
  if (large) {
    expand(std::true_type{});
  } else {
    expand(std::false_type{});
  }
  if (!rope) return;
  const std::uint32_t rope_to = tile + piece_at<kTokens>(thread / 8, kColumnBlocks - 1, thread % 8);
#pragma unroll
  for (int j = 0; j < kRopeSteps; ++j) store_piece(rope_to + j * (kThreads / 8) * 128, ropes[j]);
}

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
