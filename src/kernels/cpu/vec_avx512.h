// Sixteen floats at a time: what the elementwise kernels of the level avx512 are written in.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "kernels/cpu/simd.h"

#ifdef CACHALOT_X86
CACHALOT_BEGIN_TARGET(CACHALOT_AVX512)
namespace cachalot::cpu::avx512 {

using Vec = __m512;
inline constexpr std::ptrdiff_t kLanes = 16;

// Which lanes of a vector are in the array: all, or the first few (the rest loads as zero).
struct All {};
struct First {
  __mmask16 mask;
};
inline First first_lanes(std::ptrdiff_t n) {
  return {static_cast<__mmask16>((1u << static_cast<unsigned>(n)) - 1u)};
}

inline Vec load(const float* p, All) { return _mm512_loadu_ps(p); }
inline Vec load(const float* p, First f) { return _mm512_maskz_loadu_ps(f.mask, p); }
inline void store(float* p, Vec v, All) { _mm512_storeu_ps(p, v); }
inline void store(float* p, Vec v, First f) { _mm512_mask_storeu_ps(p, f.mask, v); }
// bf16 is the upper half of a float.
inline Vec load_bf16(const void* p, All) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
inline Vec load_bf16(const void* p, First f) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(f.mask, p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
// To nearest, ties to even; NaN stays NaN: the bits of to_bf16.
inline __m256i narrow_to_bf16(Vec v) {
  const __m512i u = _mm512_castps_si512(v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
  const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
  const __m512i quiet = _mm512_set1_epi32(0x400000);
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_or_epi32(up, nan, u, quiet), 16));
}
inline void store_bf16(void* p, Vec v, All) {
  _mm256_storeu_si256(static_cast<__m256i*>(p), narrow_to_bf16(v));
}
inline void store_bf16(void* p, Vec v, First f) {
  _mm256_mask_storeu_epi16(p, f.mask, narrow_to_bf16(v));
}
// Lanes that are not live take `other`.
inline Vec or_else(Vec v, float, All) { return v; }
inline Vec or_else(Vec v, float other, First f) {
  return _mm512_mask_blend_ps(f.mask, _mm512_set1_ps(other), v);
}

inline Vec set(float x) { return _mm512_set1_ps(x); }
inline Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }  // a b + c
inline Vec min(Vec a, Vec b) { return _mm512_min_ps(a, b); }
inline Vec max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
inline Vec sqrt(Vec a) { return _mm512_sqrt_ps(a); }
// Without the sign, which NaN loses too.
inline Vec magnitude(Vec a) {
  return _mm512_castsi512_ps(
      _mm512_and_si512(_mm512_castps_si512(a), _mm512_set1_epi32(0x7FFFFFFF)));
}
inline Vec round(Vec a) {
  return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
inline Vec scale_by_power(Vec a, Vec n) { return _mm512_scalef_ps(a, n); }
inline float sum(Vec a) { return _mm512_reduce_add_ps(a); }
inline float largest(Vec a) { return _mm512_reduce_max_ps(a); }
// One bit per lane.
inline std::uint32_t equal_lanes(Vec a, Vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }

// Sums in double of what is added as floats.
struct DoubleSum {
  __m512d low, high;
  // Written out: an implicit constructor would be compiled outside the region.
  DoubleSum() : low(_mm512_setzero_pd()), high(_mm512_setzero_pd()) {}
  void add(Vec v) {
    low = _mm512_add_pd(low, _mm512_cvtps_pd(_mm512_castps512_ps256(v)));
    high = _mm512_add_pd(high, _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1)));
  }
  void add_square(Vec v) {  // exact products: 24 bits squared fit in 53
    const __m512d a = _mm512_cvtps_pd(_mm512_castps512_ps256(v));
    const __m512d b = _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1));
    low = _mm512_fmadd_pd(a, a, low);
    high = _mm512_fmadd_pd(b, b, high);
  }
  double total() const { return _mm512_reduce_add_pd(_mm512_add_pd(low, high)); }
};

// Interleaved pairs (a0, b0, a1, b1, ...) with one value of c per pair.
inline Vec swap_pairs(Vec x) { return _mm512_permute_ps(x, 0xB1); }
inline Vec load_per_pair(const float* p, std::ptrdiff_t pairs) {
  const auto mask =
      static_cast<__mmask16>(pairs >= 8 ? 0xFF : (1u << static_cast<unsigned>(pairs)) - 1u);
  const __m512i twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
  return _mm512_permutexvar_ps(twice, _mm512_maskz_loadu_ps(mask, p));
}
inline Vec sub_add(Vec a, Vec b, Vec c) {
  return _mm512_fmaddsub_ps(a, b, c);
}  // even lanes a b - c
inline Vec add_sub(Vec a, Vec b, Vec c) {
  return _mm512_fmsubadd_ps(a, b, c);
}  // even lanes a b + c

#include "kernels/cpu/vec_common.inc"

}  // namespace cachalot::cpu::avx512
CACHALOT_END_TARGET
#endif
