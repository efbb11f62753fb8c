// Per lane choices and doubles in the vectors of the level avx512, for kernels whose lanes are
// problems of their own; group_vec_avx2.h has the same names.
#pragma once

#include <cstdint>

#include "kernels/cpu/vec_avx512.h"

#ifdef CACHALOT_X86
CACHALOT_BEGIN_TARGET(CACHALOT_AVX512)
namespace cachalot::cpu::avx512 {

using Mask = __mmask16;
inline Mask both(Mask a, Mask b) { return a & b; }
inline bool any(Mask a) { return a != 0; }
inline Mask every_lane() { return 0xFFFF; }
inline Mask less(Vec a, Vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
inline Mask differ(Vec a, Vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_NEQ_UQ); }
inline Vec select(Mask which, Vec then, Vec other) {
  return _mm512_mask_blend_ps(which, other, then);
}

// A double per lane.
struct Doubles {
  __m512d low, high;
};
inline Doubles doubles(double x) { return {_mm512_set1_pd(x), _mm512_set1_pd(x)}; }
inline Doubles widen(Vec a) {
  return {_mm512_cvtps_pd(_mm512_castps512_ps256(a)),
          _mm512_cvtps_pd(_mm512_extractf32x8_ps(a, 1))};
}
inline Vec narrow(Doubles a) {
  return _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(a.low)), _mm512_cvtpd_ps(a.high),
                            1);
}
inline Doubles quotient(Doubles a, Doubles b) { return {a.low / b.low, a.high / b.high}; }
// sum + a b, rounded once
inline Doubles add_product(Doubles sum, Doubles a, Doubles b) {
  return {_mm512_fmadd_pd(a.low, b.low, sum.low), _mm512_fmadd_pd(a.high, b.high, sum.high)};
}
// c - a b, rounded once
inline Doubles less_product(Doubles c, Doubles a, Doubles b) {
  return {_mm512_fnmadd_pd(a.low, b.low, c.low), _mm512_fnmadd_pd(a.high, b.high, c.high)};
}
// sum + a a, the square rounded first
inline Doubles add_square(Doubles sum, Doubles a) {
  return {sum.low + a.low * a.low, sum.high + a.high * a.high};
}
inline Mask less(Doubles a, Doubles b) {
  const unsigned low = _mm512_cmp_pd_mask(a.low, b.low, _CMP_LT_OQ);
  const unsigned high = _mm512_cmp_pd_mask(a.high, b.high, _CMP_LT_OQ);
  return static_cast<Mask>(low | high << 8);
}
inline Doubles select(Mask which, Doubles then, Doubles other) {
  return {_mm512_mask_blend_pd(static_cast<__mmask8>(which), other.low, then.low),
          _mm512_mask_blend_pd(static_cast<__mmask8>(which >> 8), other.high, then.high)};
}

// Whole numbers, and words of their lowest bits.
using Words = __m512i;
inline Words no_words() { return _mm512_setzero_si512(); }
// words | (the whole number a) << shift
inline Words or_shifted(Words words, Vec a, int shift) {
  return _mm512_or_si512(words, _mm512_sll_epi32(_mm512_cvtps_epi32(a), _mm_cvtsi32_si128(shift)));
}
inline void store_words(std::uint32_t* p, Words words) { _mm512_storeu_si512(p, words); }
// Rounded to bf16, back as a float.
inline Vec rounded_to_bf16(Vec a) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow_to_bf16(a)), 16));
}

}  // namespace cachalot::cpu::avx512
CACHALOT_END_TARGET
#endif
