// Eight floats at a time: what the elementwise kernels of the level avx2 are written in. The same
// names as vec_avx512.h, so that one body of a kernel serves both.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "kernels/cpu/simd.h"

#ifdef CACHALOT_X86
CACHALOT_BEGIN_TARGET(CACHALOT_AVX2)
namespace cachalot::cpu::avx2 {

using Vec = __m256;
inline constexpr std::ptrdiff_t kLanes = 8;

// Which lanes of a vector are in the array: all, or the first few (the rest loads as zero).
struct All {};
struct First {
  __m256i mask;
  std::ptrdiff_t n;
};
inline First first_lanes(std::ptrdiff_t n) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return {_mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), lane), n};
}

inline Vec load(const float* p, All) { return _mm256_loadu_ps(p); }
inline Vec load(const float* p, First f) { return _mm256_maskload_ps(p, f.mask); }
inline void store(float* p, Vec v, All) { _mm256_storeu_ps(p, v); }
inline void store(float* p, Vec v, First f) { _mm256_maskstore_ps(p, f.mask, v); }
// bf16 is the upper half of a float.
inline Vec widen_bf16(__m128i half) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
inline Vec load_bf16(const void* p, All) {
  return widen_bf16(_mm_loadu_si128(static_cast<const __m128i*>(p)));
}
inline Vec load_bf16(const void* p, First f) {
  alignas(16) std::uint16_t few[8] = {};
  for (std::ptrdiff_t i = 0; i < f.n; ++i) few[i] = static_cast<const std::uint16_t*>(p)[i];
  return widen_bf16(_mm_load_si128(reinterpret_cast<const __m128i*>(few)));
}
// To nearest, ties to even; NaN stays NaN: the bits of to_bf16.
inline __m128i narrow_to_bf16(Vec v) {
  const __m256i u = _mm256_castps_si256(v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  const __m256i up = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  const __m256i quiet = _mm256_or_si256(u, _mm256_set1_epi32(0x400000));
  const __m256i high = _mm256_srli_epi32(_mm256_blendv_epi8(up, quiet, nan), 16);
  return _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
}
inline void store_bf16(void* p, Vec v, All) {
  _mm_storeu_si128(static_cast<__m128i*>(p), narrow_to_bf16(v));
}
inline void store_bf16(void* p, Vec v, First f) {
  alignas(16) std::uint16_t few[8];
  _mm_store_si128(reinterpret_cast<__m128i*>(few), narrow_to_bf16(v));
  for (std::ptrdiff_t i = 0; i < f.n; ++i) static_cast<std::uint16_t*>(p)[i] = few[i];
}
// Lanes that are not live take `other`.
inline Vec or_else(Vec v, float, All) { return v; }
inline Vec or_else(Vec v, float other, First f) {
  return _mm256_blendv_ps(_mm256_set1_ps(other), v, _mm256_castsi256_ps(f.mask));
}

inline Vec set(float x) { return _mm256_set1_ps(x); }
inline Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }  // a b + c
inline Vec min(Vec a, Vec b) { return _mm256_min_ps(a, b); }
inline Vec max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
inline Vec sqrt(Vec a) { return _mm256_sqrt_ps(a); }
// Without the sign, which NaN loses too.
inline Vec magnitude(Vec a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
inline Vec round(Vec a) {
  return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
// a 2^n for whole n of [-252, 254], as two factors: the first product is exact, so only the second
// rounds, and it does so once, also where the result is denormal.
inline Vec scale_by_power(Vec a, Vec n) {
  const __m256i whole = _mm256_cvtps_epi32(n);
  const __m256i half = _mm256_srai_epi32(whole, 1);
  const __m256i rest = _mm256_sub_epi32(whole, half);
  const __m256i bias = _mm256_set1_epi32(127);
  const Vec f = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
  const Vec g = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
  return a * f * g;
}
inline float sum(Vec a) {
  __m128 v = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  v = _mm_add_ps(v, _mm_movehl_ps(v, v));
  return _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)));
}
inline float largest(Vec a) {
  __m128 v = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  v = _mm_max_ps(v, _mm_movehl_ps(v, v));
  return _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)));
}
// One bit per lane.
inline std::uint32_t equal_lanes(Vec a, Vec b) {
  return static_cast<std::uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_EQ_OQ)));
}

// Sums in double of what is added as floats.
struct DoubleSum {
  __m256d low, high;
  // Written out: an implicit constructor would be compiled outside the region.
  DoubleSum() : low(_mm256_setzero_pd()), high(_mm256_setzero_pd()) {}
  void add(Vec v) {
    low = _mm256_add_pd(low, _mm256_cvtps_pd(_mm256_castps256_ps128(v)));
    high = _mm256_add_pd(high, _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1)));
  }
  void add_square(Vec v) {  // exact products: 24 bits squared fit in 53
    const __m256d a = _mm256_cvtps_pd(_mm256_castps256_ps128(v));
    const __m256d b = _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1));
    low = _mm256_fmadd_pd(a, a, low);
    high = _mm256_fmadd_pd(b, b, high);
  }
  double total() const {
    const __m256d all = _mm256_add_pd(low, high);
    const __m128d v = _mm_add_pd(_mm256_castpd256_pd128(all), _mm256_extractf128_pd(all, 1));
    return _mm_cvtsd_f64(_mm_add_sd(v, _mm_unpackhi_pd(v, v)));
  }
};

// Interleaved pairs (a0, b0, a1, b1, ...) with one value of c per pair.
inline Vec swap_pairs(Vec x) { return _mm256_permute_ps(x, 0xB1); }
inline Vec load_per_pair(const float* p, std::ptrdiff_t pairs) {
  const __m128i mask =
      _mm_cmpgt_epi32(_mm_set1_epi32(static_cast<int>(pairs)), _mm_setr_epi32(0, 1, 2, 3));
  const __m256i twice = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
  return _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_maskload_ps(p, mask)), twice);
}
inline Vec sub_add(Vec a, Vec b, Vec c) {
  return _mm256_fmaddsub_ps(a, b, c);
}  // even lanes a b - c
inline Vec add_sub(Vec a, Vec b, Vec c) {
  return _mm256_fmsubadd_ps(a, b, c);
}  // even lanes a b + c

#include "kernels/cpu/vec_common.inc"

}  // namespace cachalot::cpu::avx2
CACHALOT_END_TARGET
#endif
