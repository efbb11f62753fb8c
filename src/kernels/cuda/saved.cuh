// Formats of saved activations and payloads on the device, value by value: E5M6 (numeric/e5m6.h),
// E5M2 and LogFMT (numeric/payload.h, numeric/logfmt.h), bf16 (tensor/dtype.h).
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

namespace cachalot::cuda {

// NaN stays what it is, as the instruction would not have it.
__device__ __forceinline__ std::uint32_t bf16_bits(float x) {
  const std::uint32_t u = __float_as_uint(x);
  if ((u & 0x7FFFFFFFu) > 0x7F800000u) return (u >> 16) | 0x40u;
  return (u + 0x7FFFu + ((u >> 16) & 1u)) >> 16;
}

// 2^e as a scale's byte holds it, e >= -126: the least one with largest <= fits * 2^e
// (numeric/small_float.h); `largest` as bits, finite and not zero.
__device__ __forceinline__ std::uint32_t fitting_scale(std::uint32_t largest, float fits) {
  const std::uint32_t f = __float_as_uint(fits);
  const std::uint32_t up = largest + 0x007FFFFFu - (f & 0x007FFFFFu);
  const int e = static_cast<int>(up >> 23) - static_cast<int>(f >> 23);
  return static_cast<std::uint32_t>(max(e, -126) + 127);
}
__device__ __forceinline__ float power_of(std::uint32_t scale) {
  return __uint_as_float(scale << 23);
}
// 1 / that: a number below the normals for the largest scales, and exact there too.
__device__ __forceinline__ float inverse_power_of(std::uint32_t scale) {
  return scale < 254u ? __uint_as_float((254u - scale) << 23) : __uint_as_float(0x00400000u);
}

// --- E5M6

__device__ __forceinline__ std::uint32_t e5m6_scale_of(std::uint32_t largest) {
  if (largest >= 0x7F800000u) return 255;
  return largest == 0 ? 127 : fitting_scale(largest, 129024.0f);
}

__device__ __forceinline__ std::uint32_t e5m6_code_of(float x, std::uint32_t scale) {
  if (scale == 255) return 0x7FF;
  const std::uint32_t t = __float_as_uint(__fmul_rn(x, inverse_power_of(scale)));
  const std::uint32_t u = t & 0x7FFFFFFFu, sign = t >> 20 & 0x800u;
  if (u < (113u << 23)) {  // below the normals: the addition rounds to the even grid
    return sign |
           (__float_as_uint(__fadd_rn(__uint_as_float(u), 0x1p3f)) - __float_as_uint(0x1p3f));
  }
  return sign | (((u + 0xFFFFu + (u >> 17 & 1u)) >> 17) - (112u << 6));
}

// The upper bits of `code` are ignored.
__device__ __forceinline__ float e5m6_value_of(std::uint32_t code, std::uint32_t scale) {
  const std::uint32_t size = code & 0x7FFu;
  const float magnitude = size < 0x40u ? static_cast<float>(size) * 0x1p-20f
                                       : __uint_as_float((size << 17) + (112u << 23));
  const float value = size == 0x7FFu ? __uint_as_float(0x7FC00000u) : magnitude;
  const float factor = scale == 255 ? __uint_as_float(0x7FC00000u) : power_of(scale);
  return __fmul_rn(__uint_as_float(__float_as_uint(value) | (code & 0x800u) << 20), factor);
}

// --- E5M2

__device__ __forceinline__ float2 through_e5m2_pair(float a, float b) {
  std::uint32_t halves;
  asm("{\n.reg .b16 pair;\n"
      "cvt.rn.satfinite.e5m2x2.f32 pair, %2, %1;\n"
      "cvt.rn.f16x2.e5m2x2 %0, pair;\n}"
      : "=r"(halves)
      : "f"(a), "f"(b));
  return __half22float2(*reinterpret_cast<const __half2*>(&halves));
}

// A tile whose largest magnitude is this one. Nothing overflows: the scale fits it.
__device__ __forceinline__ void through_e5m2(float (&x)[4], float largest) {
  const std::uint32_t u = __float_as_uint(largest);
  const bool finite = u < 0x7F800000u;
  const std::uint32_t scale = !finite ? 255u : u == 0 ? 127u : fitting_scale(u, 57344.0f);
  const float inverse = inverse_power_of(scale == 255u ? 127u : scale);
  const float factor = finite ? power_of(scale) : __uint_as_float(0x7FC00000u);
  const float2 a = through_e5m2_pair(__fmul_rn(x[0], inverse), __fmul_rn(x[1], inverse));
  const float2 b = through_e5m2_pair(__fmul_rn(x[2], inverse), __fmul_rn(x[3], inverse));
  x[0] = __fmul_rn(a.x, factor);
  x[1] = __fmul_rn(a.y, factor);
  x[2] = __fmul_rn(b.x, factor);
  x[3] = __fmul_rn(b.y, factor);
}

// --- LogFMT

// log2 of a normal float as whole part and rest: x = 2^whole m, m in [sqrt(1/2), sqrt(2)); the rest
// with Cephes' polynomial for logf, off by less than 2^-24.
struct Log2 {
  float whole, rest;
};
__device__ __forceinline__ Log2 log2_parts(std::uint32_t u) {
  const int whole = static_cast<int>(u - 0x3F3504F3u) >> 23;
  const float f = __uint_as_float(u - (static_cast<std::uint32_t>(whole) << 23)) - 1.0f;
  float p = 7.0376836292e-2f;
  p = __fmaf_rn(p, f, -1.1514610310e-1f);
  p = __fmaf_rn(p, f, 1.1676998740e-1f);
  p = __fmaf_rn(p, f, -1.2420140846e-1f);
  p = __fmaf_rn(p, f, 1.4249322787e-1f);
  p = __fmaf_rn(p, f, -1.6668057665e-1f);
  p = __fmaf_rn(p, f, 2.0000714765e-1f);
  p = __fmaf_rn(p, f, -2.4999993993e-1f);
  p = __fmaf_rn(p, f, 3.3333331174e-1f);
  const float ff = __fmul_rn(f, f);
  const float ln = __fadd_rn(f, __fmaf_rn(__fmul_rn(ff, f), p, __fmul_rn(ff, -0.5f)));
  return {static_cast<float>(whole), __fmul_rn(ln, 1.44269504088896341f)};
}

// 2^x for |x| <= 1/2, off by less than 2^-23: the polynomial of exp.
__device__ __forceinline__ float exp2_of_rest(float x) {
  const float r = __fmul_rn(x, 0.693147180559945309f);
  float p = 1.9875691500e-4f;
  p = __fmaf_rn(p, r, 1.3981999507e-3f);
  p = __fmaf_rn(p, r, 8.3334519073e-3f);
  p = __fmaf_rn(p, r, 4.1665795894e-2f);
  p = __fmaf_rn(p, r, 1.6666665459e-1f);
  p = __fmaf_rn(p, r, 5.0000001201e-1f);
  return __fadd_rn(__fmaf_rn(p, __fmul_rn(r, r), r), 1.0f);
}

// A tile's grid; `offset` puts the decision points at the means of their neighbours.
struct LogGrid {
  float low, high, last;
  Log2 log_low;
  float steps, offset;              // steps = 1 / step
  float step, step_high, step_low;  // step = step_high (few bits) + step_low
};
__device__ __forceinline__ LogGrid log_grid(float low, float high, int bits) {
  LogGrid g;
  const int last = (1 << (bits - 1)) - 1;
  const double step = log2(static_cast<double>(high) / static_cast<double>(low)) / (last - 1);
  // log2((1 + 2^s) / 2) / s = 1/2 + log2(cosh(y)) / s with y = s ln2 / 2, which is 0.09 at most.
  constexpr double kLn2 = 0.69314718055994530942;
  const double y = step * kLn2 / 2, y2 = y * y;
  const double log_cosh = y2 * (1.0 / 2 - y2 * (1.0 / 12 - y2 * (1.0 / 45 - y2 * (17.0 / 2520))));
  g.low = low;
  g.high = high;
  g.last = static_cast<float>(last);
  g.log_low = log2_parts(__float_as_uint(low));
  g.steps = static_cast<float>(1 / step);
  g.offset = static_cast<float>(1.5 - log_cosh / (step * kLn2));
  g.step = static_cast<float>(step);
  g.step_high = __uint_as_float(__float_as_uint(g.step) & 0xFFFFF000u);
  g.step_low = static_cast<float>(step - static_cast<double>(g.step_high));
  return g;
}

// The decoded magnitude of one.
__device__ __forceinline__ float through_grid(const LogGrid& g, float size) {
  if (size < g.low) return __fmul_rn(0.5f, g.low) < size ? g.low : 0.0f;
  const Log2 log = log2_parts(__float_as_uint(size));
  const float above =
      __fadd_rn(__fsub_rn(log.whole, g.log_low.whole), __fsub_rn(log.rest, g.log_low.rest));
  const float code = fmaxf(1.0f, fminf(floorf(__fmaf_rn(above, g.steps, g.offset)), g.last));
  if (code >= g.last) return g.high;
  // 2^(step (code - 1)): the product with the coarse step is exact, so its rest is.
  const float n = code - 1.0f;
  const float whole = rintf(__fmul_rn(n, g.step));
  const float rest = __fmaf_rn(n, g.step_low, __fmaf_rn(n, g.step_high, -whole));
  const float power =
      __uint_as_float(static_cast<std::uint32_t>(static_cast<int>(whole) + 127) << 23);
  return __fmul_rn(__fmul_rn(exp2_of_rest(rest), g.low), power);
}

// A tile whose least magnitude that is not zero and largest one are these, as bits.
__device__ __forceinline__ void through_logfmt(float (&x)[4], std::uint32_t least,
                                               std::uint32_t largest, int bits) {
  const float high = __uint_as_float(bf16_bits(__uint_as_float(largest)) << 16);
  const bool finite = high < __uint_as_float(0x7F800000u);
  const bool sent = high >= 0x1p-90f;
  const float low =
      fmaxf(__uint_as_float(bf16_bits(__uint_as_float(least)) << 16), __fmul_rn(high, 0x1p-32f));
  LogGrid g{};
  const bool spread = finite && sent && low < high;  // of the whole warp
  if (spread) g = log_grid(low, high, bits);
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const float size = fabsf(x[j]);
    float value = 0;
    if (spread) {
      value = through_grid(g, size);
    } else if (!finite) {
      value = __uint_as_float(0x7FC00000u);
    } else if (sent && __fmul_rn(2.0f, size) > low) {  // one magnitude, or zero
      value = low;
    }
    x[j] = copysignf(value, x[j]);
  }
}

}  // namespace cachalot::cuda
