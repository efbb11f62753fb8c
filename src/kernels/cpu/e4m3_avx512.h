// Codes of E4M3 to bf16 and to floats, 32 at a time. Include after simd.h; the functions belong to
// this region's level.
#pragma once

#include "kernels/cpu/simd.h"

#ifdef CACHALOT_X86
CACHALOT_BEGIN_TARGET(CACHALOT_AVX512)
namespace cachalot::cpu::avx512 {

// 32 words of a code each -> 32 bf16. Exact: subnormals are kept, NaN is NaN.
inline __m512i decode_e4m3(__m512i codes) {
  // The subnormals, 0 .. 7 times 2^-9, in bf16.
  const __m512i small = _mm512_castsi128_si512(
      _mm_setr_epi16(0x0000, 0x3B00, 0x3B80, 0x3BC0, 0x3C00, 0x3C20, 0x3C40, 0x3C60));
  const __m512i size = _mm512_and_si512(codes, _mm512_set1_epi16(0x7F));
  // Exponent and fraction in their places; 127 - 7 more in the exponent.
  __m512i x = _mm512_add_epi16(_mm512_slli_epi16(size, 4), _mm512_set1_epi16(120 << 7));
  x = _mm512_mask_permutexvar_epi16(x, _mm512_testn_epi16_mask(codes, _mm512_set1_epi16(0x78)),
                                    size, small);
  x = _mm512_mask_mov_epi16(x, _mm512_cmpeq_epi16_mask(size, _mm512_set1_epi16(0x7F)),
                            _mm512_set1_epi16(0x7FC0));
  // x | (codes << 8 & sign)
  return _mm512_ternarylogic_epi32(x, _mm512_slli_epi16(codes, 8),
                                   _mm512_set1_epi16(static_cast<short>(0x8000)), 0xF8);
}

// The two bf16 of each word of 32 bits as floats.
inline __m512i low_floats(__m512i pairs) { return _mm512_slli_epi32(pairs, 16); }
inline __m512i high_floats(__m512i pairs) {
  return _mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xFFFF0000u)));
}

}  // namespace cachalot::cpu::avx512
CACHALOT_END_TARGET
#endif
