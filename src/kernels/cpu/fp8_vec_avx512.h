// E4M3 in the vectors of the level avx512; fp8_vec_avx2.h has the same names.
#pragma once

#include <cstdint>

#include "kernels/cpu/vec_avx512.h"
#include "numeric/small_float.h"
#include "tensor/dtype.h"

#ifdef CACHALOT_X86
CACHALOT_BEGIN_TARGET(CACHALOT_AVX512)
namespace cachalot::cpu::avx512 {

// The larger of two magnitudes; as integers, so that NaN is the largest of all.
inline Vec larger_size(Vec a, Vec b) {
  return _mm512_castsi512_ps(_mm512_max_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
}
inline float largest_size(Vec a) {
  return std::bit_cast<float>(_mm512_reduce_max_epi32(_mm512_castps_si512(a)));
}
inline bool any_below(Vec a, float x) {
  return _mm512_cmp_ps_mask(a, _mm512_set1_ps(x), _CMP_LT_OQ) != 0;
}
inline bool any_not_below(Vec a, float x) {  // or NaN
  return _mm512_cmp_ps_mask(a, _mm512_set1_ps(x), _CMP_NLT_UQ) != 0;
}
inline Vec where_zero(Vec a, Vec then, Vec other) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, _mm512_setzero_ps(), _CMP_EQ_OQ), other, then);
}
// Of normal numbers; infinity and NaN stay.
inline Vec round_up_to_power(Vec a) {
  const __m512i up = _mm512_add_epi32(_mm512_castps_si512(a), _mm512_set1_epi32(0x007FFFFF));
  const Vec power = _mm512_castsi512_ps(_mm512_and_si512(up, _mm512_set1_epi32(0x7F800000)));
  return _mm512_mask_mov_ps(power, _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), a);
}
// 1 / a for powers of two in [2^-126, 2^126].
inline Vec inverse_of_power(Vec a) {
  return _mm512_castsi512_ps(
      _mm512_sub_epi32(_mm512_set1_epi32(0x7F000000), _mm512_castps_si512(a)));
}

// encode_e4m3 of each lane (numeric/small_float.h), in the low bytes.
inline __m512i encode_e4m3(Vec x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i size = _mm512_and_si512(bits, _mm512_set1_epi32(0x7FFFFFFF));
  const __m512i u =
      _mm512_min_epu32(size, _mm512_set1_epi32(std::bit_cast<int>(numeric::kE4M3Max)));
  // Nearest even at bit 20; the exponent's bias falls from 127 to 7.
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 20), _mm512_set1_epi32(1));
  const __m512i rounded =
      _mm512_add_epi32(_mm512_add_epi32(u, odd), _mm512_set1_epi32(0x7FFFF - (120 << 23)));
  __m512i code = _mm512_srli_epi32(rounded, 20);
  // Below 2^-6 the steps are even: the sum with 2^14 rounds to them.
  const __m512 magic = _mm512_set1_ps(0x1p14f);
  const __m512i small =
      _mm512_sub_epi32(_mm512_castps_si512(_mm512_add_ps(_mm512_castsi512_ps(u), magic)),
                       _mm512_castps_si512(magic));
  code = _mm512_mask_mov_epi32(
      code, _mm512_cmplt_epi32_mask(u, _mm512_set1_epi32(std::bit_cast<int>(0x1p-6f))), small);
  code = _mm512_mask_mov_epi32(code, _mm512_cmpgt_epi32_mask(size, _mm512_set1_epi32(0x7F800000)),
                               _mm512_set1_epi32(0x7F));
  // code | (bits >> 24 & sign)
  return _mm512_ternarylogic_epi32(code, _mm512_srli_epi32(bits, 24), _mm512_set1_epi32(0x80),
                                   0xF8);
}
// The same for what is finite and at most 464 (which rounds to 448).
inline __m512i encode_finite(Vec x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i u = _mm512_and_si512(bits, _mm512_set1_epi32(0x7FFFFFFF));
  const __m512i half = _mm512_add_epi32(u, _mm512_set1_epi32(0x7FFFF - (120 << 23)));
  const __mmask16 odd = _mm512_test_epi32_mask(u, _mm512_set1_epi32(1 << 20));
  const __m512i code =
      _mm512_srli_epi32(_mm512_mask_add_epi32(half, odd, half, _mm512_set1_epi32(1)), 20);
  const __m512 magic = _mm512_set1_ps(0x1p14f);
  const __m512i small = _mm512_mask_sub_epi32(
      code, _mm512_cmplt_epi32_mask(u, _mm512_set1_epi32(std::bit_cast<int>(0x1p-6f))),
      _mm512_castps_si512(_mm512_add_ps(_mm512_castsi512_ps(u), magic)),
      _mm512_castps_si512(magic));
  return _mm512_ternarylogic_epi32(small, _mm512_srli_epi32(bits, 24), _mm512_set1_epi32(0x80),
                                   0xF8);
}
// Four vectors of such numbers at once.
inline void put_finite(std::uint8_t* p, Vec a, Vec b, Vec c, Vec d) {
  const __m512i low = _mm512_packus_epi32(encode_finite(a), encode_finite(b));
  const __m512i high = _mm512_packus_epi32(encode_finite(c), encode_finite(d));
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  _mm512_storeu_si512(p, _mm512_permutexvar_epi32(order, _mm512_packus_epi16(low, high)));
}
inline void put_codes(std::uint8_t* p, Vec x, All) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(encode_e4m3(x)));
}
inline void put_codes(std::uint8_t* p, Vec x, First f) {
  _mm512_mask_cvtepi32_storeu_epi8(p, f.mask, encode_e4m3(x));
}

// A code has the bits of a half-precision float, but for 2^8 and for NaN.
inline Vec decode_codes(__m128i codes) {
  const __m256i half = _mm256_and_si256(_mm256_slli_epi16(_mm256_cvtepi8_epi16(codes), 7),
                                        _mm256_set1_epi16(-0x4001));
  const Vec x = _mm512_mul_ps(_mm512_cvtph_ps(half), _mm512_set1_ps(256.0f));
  const __mmask16 nan = _mm512_cmp_ps_mask(magnitude(x), _mm512_set1_ps(480.0f), _CMP_EQ_OQ);
  return _mm512_castsi512_ps(_mm512_mask_or_epi32(
      _mm512_castps_si512(x), nan, _mm512_castps_si512(x), _mm512_set1_epi32(0x7FC00000)));
}
inline Vec take_codes(const std::uint8_t* p, All) {
  return decode_codes(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline Vec take_codes(const std::uint8_t* p, First f) {
  return decode_codes(_mm_maskz_loadu_epi8(f.mask, p));
}

// Rounded to bf16 as to_bf16 does.
inline __m256i bf16_bits(Vec x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  __m512i sum = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7FFF)), odd);
  sum = _mm512_mask_or_epi32(sum, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), bits,
                             _mm512_set1_epi32(0x00400000));
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(sum, 16));
}
inline void put_bf16(Bf16* p, Vec x, All) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), bf16_bits(x));
}
inline void put_bf16(Bf16* p, Vec x, First f) { _mm256_mask_storeu_epi16(p, f.mask, bf16_bits(x)); }

}  // namespace cachalot::cpu::avx512
CACHALOT_END_TARGET
#endif
