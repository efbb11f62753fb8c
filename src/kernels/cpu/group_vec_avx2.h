// Per lane choices and doubles in the vectors of the level avx2; group_vec_avx512.h has the same
// names.
#pragma once

#include <cstdint>

#include "kernels/cpu/vec_avx2.h"

#ifdef CACHALOT_X86
CACHALOT_BEGIN_TARGET(CACHALOT_AVX2)
namespace cachalot::cpu::avx2 {

struct Mask {
  __m256i lanes;  // all bits of a lane, or none
};
inline Mask both(Mask a, Mask b) { return {_mm256_and_si256(a.lanes, b.lanes)}; }
inline bool any(Mask a) { return _mm256_movemask_epi8(a.lanes) != 0; }
inline Mask every_lane() { return {_mm256_set1_epi32(-1)}; }
inline Mask less(Vec a, Vec b) { return {_mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_LT_OQ))}; }
inline Mask differ(Vec a, Vec b) { return {_mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_NEQ_UQ))}; }
inline Vec select(Mask which, Vec then, Vec other) {
  return _mm256_blendv_ps(other, then, _mm256_castsi256_ps(which.lanes));
}

// A double per lane.
struct Doubles {
  __m256d low, high;
};
inline Doubles doubles(double x) { return {_mm256_set1_pd(x), _mm256_set1_pd(x)}; }
inline Doubles widen(Vec a) {
  return {_mm256_cvtps_pd(_mm256_castps256_ps128(a)), _mm256_cvtps_pd(_mm256_extractf128_ps(a, 1))};
}
inline Vec narrow(Doubles a) {
  return _mm256_set_m128(_mm256_cvtpd_ps(a.high), _mm256_cvtpd_ps(a.low));
}
inline Doubles quotient(Doubles a, Doubles b) { return {a.low / b.low, a.high / b.high}; }
// sum + a b, rounded once
inline Doubles add_product(Doubles sum, Doubles a, Doubles b) {
  return {_mm256_fmadd_pd(a.low, b.low, sum.low), _mm256_fmadd_pd(a.high, b.high, sum.high)};
}
// c - a b, rounded once
inline Doubles less_product(Doubles c, Doubles a, Doubles b) {
  return {_mm256_fnmadd_pd(a.low, b.low, c.low), _mm256_fnmadd_pd(a.high, b.high, c.high)};
}
// sum + a a, the square rounded first
inline Doubles add_square(Doubles sum, Doubles a) {
  return {sum.low + a.low * a.low, sum.high + a.high * a.high};
}
inline Mask less(Doubles a, Doubles b) {
  const __m256 low = _mm256_castpd_ps(_mm256_cmp_pd(a.low, b.low, _CMP_LT_OQ));
  const __m256 high = _mm256_castpd_ps(_mm256_cmp_pd(a.high, b.high, _CMP_LT_OQ));
  const __m256i mixed = _mm256_castps_si256(_mm256_shuffle_ps(low, high, 0x88));
  return {_mm256_permute4x64_epi64(mixed, 0xD8)};
}
inline Doubles select(Mask which, Doubles then, Doubles other) {
  const __m256i low = _mm256_cvtepi32_epi64(_mm256_castsi256_si128(which.lanes));
  const __m256i high = _mm256_cvtepi32_epi64(_mm256_extracti128_si256(which.lanes, 1));
  return {_mm256_blendv_pd(other.low, then.low, _mm256_castsi256_pd(low)),
          _mm256_blendv_pd(other.high, then.high, _mm256_castsi256_pd(high))};
}

// Whole numbers, and words of their lowest bits.
using Words = __m256i;
inline Words no_words() { return _mm256_setzero_si256(); }
// words | (the whole number a) << shift
inline Words or_shifted(Words words, Vec a, int shift) {
  return _mm256_or_si256(words, _mm256_sll_epi32(_mm256_cvtps_epi32(a), _mm_cvtsi32_si128(shift)));
}
inline void store_words(std::uint32_t* p, Words words) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), words);
}
// Rounded to bf16, back as a float.
inline Vec rounded_to_bf16(Vec a) { return widen_bf16(narrow_to_bf16(a)); }

}  // namespace cachalot::cpu::avx2
CACHALOT_END_TARGET
#endif
