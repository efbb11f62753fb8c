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

namespace cachalot::cuda {

inline constexpr int kLatentWidth = 512, kRopeWidth = 64;  // of the fast kernels
inline constexpr int kQueryWidth = kLatentWidth + kRopeWidth;
inline constexpr int kColumnBlocks = kQueryWidth / 64;
inline constexpr int kBf16RowBytes = 2 * kQueryWidth;
inline constexpr int kFp8ScalesAt = kLatentWidth;
inline constexpr int kFp8RopeAt = kFp8ScalesAt + 4 * (kLatentWidth / 128);
inline constexpr int kFp8RowBytes = kFp8RopeAt + 2 * kRopeWidth;
inline constexpr int kCopyGrain = 128;  // bytes that blocks of bf16 are aligned to, mutually

__device__ inline std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

// Barriers in shared memory: 64 bits each.
__device__ inline void init_barrier(std::uint32_t bar, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(arrivals) : "memory");
}
__device__ inline void fence_barrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ inline void arrive(std::uint32_t bar) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}
__device__ inline void arrive_expecting(std::uint32_t bar, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes)
               : "memory");
}
__device__ inline bool try_wait(std::uint32_t bar, std::uint32_t parity) {
  std::uint32_t done;
  asm volatile(
      "{\n.reg .pred p;\n"
      "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
      "selp.u32 %0, 1, 0, p;\n}"
      : "=r"(done)
      : "r"(bar), "r"(parity)
      : "memory");
  return done != 0;
}
// A wait of seconds is a fault: a trap names it where a hang would not.
__device__ inline void wait(std::uint32_t bar, std::uint32_t parity) {
  if (try_wait(bar, parity)) return;
  const long long begin = clock64();
  while (!try_wait(bar, parity)) {
    if (clock64() - begin > 1'000'000'000) __trap();
  }
}

// Writes of this thread to shared memory become visible to tensor copies and wgmma.
__device__ inline void fence_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

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
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
          to),
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

// Codes of E4M3 without subnormals -> bf16, times a power of two that may be as large as 2^119. The
// bits of a code, put where those of a bf16 are, are the number times 2^-120; two factors, because
// their product may be past the end of bf16.
struct CodeScale {
  __nv_bfloat162 first, second;
  bool two;  // else `second` is 1
  __device__ explicit CodeScale(float scale) {
    two = !(scale <= 0x1p7f);
    first = __float2bfloat162_rn(two ? 0x1p120f : scale * 0x1p120f);
    second = __float2bfloat162_rn(scale);
  }
};
__device__ inline std::uint32_t two_of_codes(std::uint32_t spread, const CodeScale& scale) {
  const std::uint32_t bits = (spread & 0x80008000u) | ((spread >> 4) & 0x07F007F0u);
  __nv_bfloat162 x = __hmul2(*reinterpret_cast<const __nv_bfloat162*>(&bits), scale.first);
  if (scale.two) x = __hmul2(x, scale.second);
  return *reinterpret_cast<const std::uint32_t*>(&x);
}
// The four codes of a word as two pairs of bf16.
__device__ inline uint2 four_codes(std::uint32_t codes, const CodeScale& scale) {
  return {two_of_codes(__byte_perm(codes, 0, 0x1404), scale),
          two_of_codes(__byte_perm(codes, 0, 0x3424), scale)};
}

// Four column blocks of a tile from `first_column` on, and the rope if asked for, out of global
// memory: read into registers, then, once `room` says so, expanded.
template <int kTokens, int kThreads, class Room>
__device__ inline void expand_half(const std::byte* block, int valid, std::uint32_t tile,
                                   int first_column, bool rope, Room&& room, int thread) {
  constexpr int kPerRow = 16, kRowsAtOnce = kThreads / kPerRow, kSteps = kTokens / kRowsAtOnce;
  constexpr int kRopeSteps = kTokens * 8 / kThreads;
  const int piece = thread % kPerRow, first_row = thread / kPerRow;
  uint4 codes[kSteps], ropes[kRopeSteps];
  float scales[kSteps];
#pragma unroll
  for (int i = 0; i < kSteps; ++i) {
    const int t = first_row + i * kRowsAtOnce;
    codes[i] = {0, 0, 0, 0};
    scales[i] = 1;
    if (t >= valid) continue;
    const std::byte* row = block + t * kFp8RowBytes;
    codes[i] = __ldg(reinterpret_cast<const uint4*>(row + first_column * 64) + piece);
    scales[i] = __ldg(reinterpret_cast<const float*>(row + kFp8ScalesAt) + first_column / 2 +
                      piece / 8);
  }
  room();
  const int odd = piece / 4 % 2;
#pragma unroll
  for (int i = 0; i < kSteps; ++i) {
    if (rope && i == kSteps / 2) {  // into registers that are free by now
#pragma unroll
      for (int j = 0; j < kRopeSteps; ++j) {
        const int t = (thread + j * kThreads) / 8;
        ropes[j] = {0, 0, 0, 0};
        if (t >= valid) continue;
        ropes[j] = __ldg(reinterpret_cast<const uint4*>(block + t * kFp8RowBytes + kFp8RopeAt) +
                         thread % 8);
      }
    }
    const CodeScale by(scales[i]);
    const uint2 a = four_codes(codes[i].x, by), b = four_codes(codes[i].y, by),
                c = four_codes(codes[i].z, by), d = four_codes(codes[i].w, by);
    const uint4 low = {a.x, a.y, b.x, b.y}, high = {c.x, c.y, d.x, d.y};
    // Neighbouring column blocks' halves in opposite orders: no two of the eight threads that write
    // at once meet in a bank.
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int which = half ^ odd;
      const uint4 x = which == 0 ? low : high;
      asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(
                       tile + piece_at<kTokens>(first_row + i * kRowsAtOnce,
                                                first_column + piece / 4, piece % 4 * 2 + which)),
                   "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w)
                   : "memory");
    }
  }
  if (rope) {
#pragma unroll
    for (int i = 0; i < kRopeSteps; ++i) {
      const int t = (thread + i * kThreads) / 8;
      asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(
                       tile + piece_at<kTokens>(t, kColumnBlocks - 1, thread % 8)),
                   "r"(ropes[i].x), "r"(ropes[i].y), "r"(ropes[i].z), "r"(ropes[i].w)
                   : "memory");
    }
  }
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
