// E4M3 on the device: codes, scales and quotients exactly as numeric/quantize.h has them.
//
// Exact means: the same scales and the same codes, with one exception. The code of a NaN is 0x7F
// whatever its sign (numeric/small_float.h keeps the sign); a tile that holds one, or an infinity,
// has a scale that makes all of it NaN in any case.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "kernels/cuda/stream.cuh"
#include "kernels/fp8.h"

namespace cachalot::cuda {

// --- codes

// Four codes in a word, the first in its lowest byte. The instruction rounds to nearest even and
// saturates, infinities too, as encode_e4m3 does.
__device__ __forceinline__ std::uint32_t encode_e4m3x4(float a, float b, float c, float d) {
  std::uint32_t codes;
  asm("{\n.reg .b16 low, high;\n"
      "cvt.rn.satfinite.e4m3x2.f32 low, %2, %1;\n"
      "cvt.rn.satfinite.e4m3x2.f32 high, %4, %3;\n"
      "mov.b32 %0, {low, high};\n}"
      : "=r"(codes)
      : "f"(a), "f"(b), "f"(c), "f"(d));
  return codes;
}

// Two, in the lower half.
__device__ __forceinline__ std::uint32_t encode_e4m3x2(float a, float b) {
  std::uint16_t codes;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %2, %1;" : "=h"(codes) : "f"(a), "f"(b));
  return codes;
}

__device__ __forceinline__ void decode_e4m3x4(std::uint32_t codes, float (&x)[4]) {
  std::uint32_t low, high;
  asm("{\n.reg .b16 l, h;\n"
      "mov.b32 {l, h}, %2;\n"
      "cvt.rn.f16x2.e4m3x2 %0, l;\n"
      "cvt.rn.f16x2.e4m3x2 %1, h;\n}"
      : "=r"(low), "=r"(high)
      : "r"(codes));
  const float2 a = __half22float2(*reinterpret_cast<const __half2*>(&low));
  const float2 b = __half22float2(*reinterpret_cast<const __half2*>(&high));
  x[0] = a.x;
  x[1] = a.y;
  x[2] = b.x;
  x[3] = b.y;
}

// --- scales

// The larger of two, NaN if either is. Of magnitudes, bits order the same way: NaN comes last.
__device__ __forceinline__ float larger(float a, float b) {
  float m;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(m) : "f"(a), "f"(b));
  return m;
}
__device__ __forceinline__ float largest_of(const float (&x)[4]) {
  return larger(larger(fabsf(x[0]), fabsf(x[1])), larger(fabsf(x[2]), fabsf(x[3])));
}
__device__ __forceinline__ float largest_in_warp(float magnitude) {
  return __uint_as_float(__reduce_max_sync(0xFFFFFFFFu, __float_as_uint(magnitude)));
}

__host__ __device__ constexpr bool is_pow2(numeric::ScaleKind kind) {
  return kind == numeric::ScaleKind::kPow2 || kind == numeric::ScaleKind::kOfficialUe8m0;
}
__host__ __device__ constexpr bool is_official(numeric::ScaleKind kind) {
  return kind == numeric::ScaleKind::kOfficial || kind == numeric::ScaleKind::kOfficialUe8m0;
}

// numeric::block_scale, word by word.
__device__ __forceinline__ float scale_of_block(numeric::ScaleKind kind, float amax) {
  if (is_official(kind) && amax < 1e-4f) amax = 1e-4f;
  if (amax == 0.0f) return 1.0f;
  float scale = __fdiv_rn(amax, 448.0f);
  if (scale == 0.0f) scale = __uint_as_float(1);
  const std::uint32_t bits = __float_as_uint(scale);
  if (!is_pow2(kind) || bits >= 0x7F800000u) return scale;
  if (bits < 0x00800000u) {  // below the normals a power of two is a single bit
    return __uint_as_float(bits <= 1 ? 1u : 1u << (32 - __clz(static_cast<int>(bits - 1))));
  }
  return __uint_as_float((bits + 0x007FFFFFu) & 0x7F800000u);
}

// A tile's scale and what quotients by it are made of. Where the scale is so small that its inverse
// would overflow, value and divisor are both multiplied by `lift` first, a power of two.
struct TileScale {
  float scale, divisor, inverse, lift;
  __device__ bool lifted() const { return lift != 1.0f; }
};

// kPow2: the kind is known to be one of powers of two.
template <bool kPow2>
__device__ __forceinline__ TileScale tile_scale(numeric::ScaleKind kind, float amax) {
  constexpr float kLift = 0x1p64f;
  if constexpr (kPow2) {
    if (is_official(kind) && amax < 1e-4f) amax = 1e-4f;
    // From 2^-100 on the scale is the least power with amax <= 448 * power: 448 is 1.75 * 2^8, and
    // the sum carries into the exponent where amax has a larger fraction than that.
    constexpr std::uint32_t kLeast = (127u - 100u) << 23, kInfinity = 0x7F800000u;
    const std::uint32_t u = __float_as_uint(amax);
    if (u - kLeast < kInfinity - kLeast) {
      const std::uint32_t bits = ((u + 0x001FFFFFu) & 0xFF800000u) - (8u << 23);
      return {__uint_as_float(bits), 0, __uint_as_float((254u << 23) - bits), 1};
    }
    if (u == 0) return {1, 0, 1, 1};
    const float scale = scale_of_block(kind, amax);
    if (u >= kInfinity) return {scale, 0, u == kInfinity ? 0 : scale, 1};
    return {scale, 0, __frcp_rn(scale * kLift), kLift};
  } else {
    TileScale t{scale_of_block(kind, amax), 0, 0, 1};
    if (t.scale < 0x1p-60f) t.lift = kLift;
    t.divisor = t.scale * t.lift;
    t.inverse = __frcp_rn(t.divisor);  // of infinity 0, of NaN NaN
    if (!(t.divisor <= 0x1p127f)) t.divisor = 0;
    return t;
  }
}

// x / scale as a division rounds it, wherever the result is not below half of the least code; there
// it is small enough, with its sign. kLifted: the scale may be lifted.
//
// Powers of two: one product, exact or rounded as the quotient is. Others: x times the rounded
// inverse, then two corrections by the remainder, which is exact in a fused product; the second one
// starts within an ulp of the quotient and so ends at the nearest float (Markstein 1990).
template <bool kPow2, bool kLifted>
__device__ __forceinline__ float quotient(float x, const TileScale& t) {
  const float lifted = kLifted ? __fmul_rn(x, t.lift) : x;
  float q = __fmul_rn(lifted, t.inverse);
  if constexpr (kPow2) return q;
  q = __fmaf_rn(__fmaf_rn(-q, t.divisor, lifted), t.inverse, q);
  q = __fmaf_rn(__fmaf_rn(-q, t.divisor, lifted), t.inverse, q);
  return copysignf(q, x);
}
template <bool kPow2, bool kLifted>
__device__ __forceinline__ std::uint32_t codes_of(const float (&x)[4], const TileScale& a,
                                                  const TileScale& b, const TileScale& c,
                                                  const TileScale& d) {
  return encode_e4m3x4(quotient<kPow2, kLifted>(x[0], a), quotient<kPow2, kLifted>(x[1], b),
                       quotient<kPow2, kLifted>(x[2], c), quotient<kPow2, kLifted>(x[3], d));
}

// --- tiles along rows, each in the lanes of one warp

// Scales of kTiles tiles with these largest magnitudes: lane i has that of tile i.
template <bool kPow2, int kTiles>
__device__ __forceinline__ TileScale scale_of_lane(numeric::ScaleKind kind,
                                                   const float (&amax)[kTiles], int lane) {
  float mine = amax[0];
#pragma unroll
  for (int i = 1; i < kTiles; ++i) {
    if (lane == i) mine = amax[i];
  }
  return tile_scale<kPow2>(kind, mine);
}
// Codes of tile i, by the scale that lane i has.
template <bool kPow2, bool kLifted>
__device__ __forceinline__ std::uint32_t codes_of_tile(const float (&x)[4], const TileScale& lanes,
                                                       int i) {
  TileScale t = lanes;
  t.inverse = __shfl_sync(0xFFFFFFFFu, lanes.inverse, i);
  if constexpr (!kPow2) t.divisor = __shfl_sync(0xFFFFFFFFu, lanes.divisor, i);
  if constexpr (kLifted) t.lift = __shfl_sync(0xFFFFFFFFu, lanes.lift, i);
  return codes_of<kPow2, kLifted>(x, t, t, t, t);
}
// Codes of kTiles tiles, handed to write<kWhole>(i, codes); returns the lane's scale. `whole`: what
// is written has no edge. kWhole is told only where no scale is lifted either, which is nearly
// always, so that there are two versions and not four.
template <bool kPow2, int kTiles, class Write>
__device__ __forceinline__ float quantize_tiles(const float (&x)[kTiles][4],
                                                numeric::ScaleKind kind, int lane, bool whole,
                                                const Write& write) {
  float amax[kTiles];
#pragma unroll
  for (int i = 0; i < kTiles; ++i) amax[i] = largest_in_warp(largest_of(x[i]));
  const TileScale t = scale_of_lane<kPow2>(kind, amax, lane);
  if (!__any_sync(0xFFFFFFFFu, t.lifted() || !whole)) {
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      write.template operator()<true>(i, codes_of_tile<kPow2, false>(x[i], t, i));
    }
  } else {
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      write.template operator()<false>(i, codes_of_tile<kPow2, true>(x[i], t, i));
    }
  }
  return t.scale;
}

}  // namespace cachalot::cuda
