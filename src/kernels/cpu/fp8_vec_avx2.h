// E4M3 in the vectors of the level avx2; fp8_vec_avx512.h has the same names.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/cpu/vec_avx2.h"
#include "numeric/small_float.h"
#include "tensor/dtype.h"

#ifdef CACHALOT_X86
CACHALOT_BEGIN_TARGET(CACHALOT_AVX2)
namespace cachalot::cpu::avx2 {

// The larger of two magnitudes; as integers, so that NaN is the largest of all.
inline Vec larger_size(Vec a, Vec b) {
  return _mm256_castsi256_ps(_mm256_max_epi32(_mm256_castps_si256(a), _mm256_castps_si256(b)));
}
inline float largest_size(Vec a) {
  __m128i v = _mm_max_epi32(_mm256_castsi256_si128(_mm256_castps_si256(a)),
                            _mm256_extracti128_si256(_mm256_castps_si256(a), 1));
  v = _mm_max_epi32(v, _mm_shuffle_epi32(v, 0x4E));
  v = _mm_max_epi32(v, _mm_shuffle_epi32(v, 0xB1));
  return std::bit_cast<float>(_mm_cvtsi128_si32(v));
}
inline bool any_below(Vec a, float x) {
  return _mm256_movemask_ps(_mm256_cmp_ps(a, _mm256_set1_ps(x), _CMP_LT_OQ)) != 0;
}
inline bool any_not_below(Vec a, float x) {  // or NaN
  return _mm256_movemask_ps(_mm256_cmp_ps(a, _mm256_set1_ps(x), _CMP_NLT_UQ)) != 0;
}
inline Vec where_zero(Vec a, Vec then, Vec other) {
  return _mm256_blendv_ps(other, then, _mm256_cmp_ps(a, _mm256_setzero_ps(), _CMP_EQ_OQ));
}
// Of normal numbers; infinity and NaN stay.
inline Vec round_up_to_power(Vec a) {
  const __m256i up = _mm256_add_epi32(_mm256_castps_si256(a), _mm256_set1_epi32(0x007FFFFF));
  const Vec power = _mm256_castsi256_ps(_mm256_and_si256(up, _mm256_set1_epi32(0x7F800000)));
  return _mm256_blendv_ps(power, a, _mm256_cmp_ps(a, a, _CMP_UNORD_Q));
}
// 1 / a for powers of two in [2^-126, 2^126].
inline Vec inverse_of_power(Vec a) {
  return _mm256_castsi256_ps(
      _mm256_sub_epi32(_mm256_set1_epi32(0x7F000000), _mm256_castps_si256(a)));
}

// encode_e4m3 of each lane (numeric/small_float.h), in the low bytes.
inline __m256i encode_e4m3(Vec x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i size = _mm256_and_si256(bits, _mm256_set1_epi32(0x7FFFFFFF));
  const __m256i u =
      _mm256_min_epi32(size, _mm256_set1_epi32(std::bit_cast<int>(numeric::kE4M3Max)));
  // Nearest even at bit 20; the exponent's bias falls from 127 to 7.
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 20), _mm256_set1_epi32(1));
  const __m256i rounded =
      _mm256_add_epi32(_mm256_add_epi32(u, odd), _mm256_set1_epi32(0x7FFFF - (120 << 23)));
  __m256i code = _mm256_srli_epi32(rounded, 20);
  // Below 2^-6 the steps are even: the sum with 2^14 rounds to them.
  const __m256 magic = _mm256_set1_ps(0x1p14f);
  const __m256i small =
      _mm256_sub_epi32(_mm256_castps_si256(_mm256_add_ps(_mm256_castsi256_ps(u), magic)),
                       _mm256_castps_si256(magic));
  code = _mm256_blendv_epi8(code, small,
                            _mm256_cmpgt_epi32(_mm256_set1_epi32(std::bit_cast<int>(0x1p-6f)), u));
  code = _mm256_blendv_epi8(code, _mm256_set1_epi32(0x7F),
                            _mm256_cmpgt_epi32(size, _mm256_set1_epi32(0x7F800000)));
  return _mm256_or_si256(code,
                         _mm256_and_si256(_mm256_srli_epi32(bits, 24), _mm256_set1_epi32(0x80)));
}
inline __m128i code_bytes(Vec x) {
  const __m256i code = encode_e4m3(x);
  const __m128i words =
      _mm_packus_epi32(_mm256_castsi256_si128(code), _mm256_extracti128_si256(code, 1));
  return _mm_packus_epi16(words, words);
}
inline void put_codes(std::uint8_t* p, Vec x, All) {
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), code_bytes(x));
}
inline void put_codes(std::uint8_t* p, Vec x, First f) {
  alignas(16) std::uint8_t codes[16];
  _mm_store_si128(reinterpret_cast<__m128i*>(codes), code_bytes(x));
  for (std::ptrdiff_t i = 0; i < f.n; ++i) p[i] = codes[i];
}
// Four vectors of what is finite and at most 464 (which rounds to 448).
inline void put_finite(std::uint8_t* p, Vec a, Vec b, Vec c, Vec d) {
  const __m256i low = _mm256_packus_epi32(encode_e4m3(a), encode_e4m3(b));
  const __m256i high = _mm256_packus_epi32(encode_e4m3(c), encode_e4m3(d));
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), order));
}

// A code has the bits of a half-precision float, but for 2^8 and for NaN.
inline Vec decode_codes(__m128i codes) {
  const __m128i half =
      _mm_and_si128(_mm_slli_epi16(_mm_cvtepi8_epi16(codes), 7), _mm_set1_epi16(-0x4001));
  const Vec x = _mm256_mul_ps(_mm256_cvtph_ps(half), _mm256_set1_ps(256.0f));
  const Vec nan = _mm256_cmp_ps(magnitude(x), _mm256_set1_ps(480.0f), _CMP_EQ_OQ);
  return _mm256_or_ps(x, _mm256_and_ps(nan, _mm256_castsi256_ps(_mm256_set1_epi32(0x7FC00000))));
}
inline Vec take_codes(const std::uint8_t* p, All) {
  return decode_codes(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}
inline Vec take_codes(const std::uint8_t* p, First f) {
  alignas(16) std::uint8_t few[16] = {};
  for (std::ptrdiff_t i = 0; i < f.n; ++i) few[i] = p[i];
  return decode_codes(_mm_load_si128(reinterpret_cast<const __m128i*>(few)));
}

// Rounded to bf16 as to_bf16 does.
inline __m128i bf16_bits(Vec x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i sum = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7FFF)), odd);
  const __m256 quiet = _mm256_or_ps(x, _mm256_castsi256_ps(_mm256_set1_epi32(0x00400000)));
  const __m256i top =
      _mm256_srli_epi32(_mm256_castps_si256(_mm256_blendv_ps(_mm256_castsi256_ps(sum), quiet,
                                                             _mm256_cmp_ps(x, x, _CMP_UNORD_Q))),
                        16);
  return _mm_packus_epi32(_mm256_castsi256_si128(top), _mm256_extracti128_si256(top, 1));
}
inline void put_bf16(Bf16* p, Vec x, All) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bf16_bits(x));
}
inline void put_bf16(Bf16* p, Vec x, First f) {
  alignas(16) Bf16 halves[8];
  _mm_store_si128(reinterpret_cast<__m128i*>(halves), bf16_bits(x));
  for (std::ptrdiff_t i = 0; i < f.n; ++i) p[i] = halves[i];
}

}  // namespace cachalot::cpu::avx2
CACHALOT_END_TARGET
#endif
