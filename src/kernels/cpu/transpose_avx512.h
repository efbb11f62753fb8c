// Small AVX-512 pieces that products share: rounding, loads of words, a 16 x 16 transposition.
// Include after simd.h; the functions belong to this region's level.
#pragma once

#include "kernels/cpu/simd.h"
#include "tensor/dtype.h"

#ifdef CACHALOT_X86
CACHALOT_BEGIN_TARGET(CACHALOT_AVX512)
namespace cachalot::cpu::avx512 {

inline __mmask16 first_lanes(int n) {
  if (n >= 16) return 0xFFFF;
  return n <= 0 ? __mmask16{0} : static_cast<__mmask16>((1u << n) - 1);
}

// Float bits rounded to bf16 (nearest, ties to even, NaN stays NaN), kept in the high half.
inline __m512i round_to_bf16(__m512i x) {
  const __m512i high = _mm512_set1_epi32(static_cast<int>(0xFFFF0000u));
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(x, 16), _mm512_set1_epi32(1));
  const __m512i sum = _mm512_add_epi32(_mm512_add_epi32(x, _mm512_set1_epi32(0x7FFF)), odd);
  const __mmask16 nan =
      _mm512_cmp_ps_mask(_mm512_castsi512_ps(x), _mm512_castsi512_ps(x), _CMP_UNORD_Q);
  return _mm512_and_si512(_mm512_mask_or_epi32(sum, nan, x, _mm512_set1_epi32(0x00400000)), high);
}

// 64 bytes of words along k: 16 floats, or 32 bf16 (pairs), of which the first n exist.
template <bool kPairs>
inline __m512i load_words(const float* p, int n) {
  if constexpr (!kPairs) {
    return _mm512_castps_si512(_mm512_maskz_loadu_ps(first_lanes(n), p));
  } else {
    const __m512i low = _mm512_castps_si512(_mm512_maskz_loadu_ps(first_lanes(n), p));
    const __m512i high = _mm512_castps_si512(_mm512_maskz_loadu_ps(first_lanes(n - 16), p + 16));
    return _mm512_inserti64x4(
        _mm512_castsi256_si512(_mm512_cvtepi32_epi16(_mm512_srli_epi32(round_to_bf16(low), 16))),
        _mm512_cvtepi32_epi16(_mm512_srli_epi32(round_to_bf16(high), 16)), 1);
  }
}
template <bool kPairs>
inline __m512i load_words(const Bf16* p, int n) {
  static_assert(kPairs);
  const __mmask32 live = n >= 32 ? ~__mmask32{0} : static_cast<__mmask32>((1u << n) - 1);
  return _mm512_maskz_loadu_epi16(live, p);
}
template <bool kPairs, class T>
inline __m512i load_words(const T* p) {
  if constexpr (kPairs && sizeof(T) == 4) {
    return load_words<kPairs>(p, 32);
  } else {
    return _mm512_loadu_si512(p);
  }
}

// Lanes of 128 bits of four vectors each, exchanged: the last two steps of a transposition.
[[gnu::always_inline]] inline void exchange_lanes(__m512i (&v)[16]) {
  __m512i t[16];
  CACHALOT_UNROLL
  for (int c = 0; c < 4; ++c) {
    t[c] = _mm512_shuffle_i32x4(v[c], v[4 + c], 0x88);           // lanes 0, 2 of quads 0, 1
    t[4 + c] = _mm512_shuffle_i32x4(v[c], v[4 + c], 0xDD);       // lanes 1, 3
    t[8 + c] = _mm512_shuffle_i32x4(v[8 + c], v[12 + c], 0x88);  // of quads 2, 3
    t[12 + c] = _mm512_shuffle_i32x4(v[8 + c], v[12 + c], 0xDD);
  }
  CACHALOT_UNROLL
  for (int c = 0; c < 4; ++c) {
    v[c] = _mm512_shuffle_i32x4(t[c], t[8 + c], 0x88);           // columns of lane 0
    v[4 + c] = _mm512_shuffle_i32x4(t[4 + c], t[12 + c], 0x88);  // lane 1
    v[8 + c] = _mm512_shuffle_i32x4(t[c], t[8 + c], 0xDD);       // lane 2
    v[12 + c] = _mm512_shuffle_i32x4(t[4 + c], t[12 + c], 0xDD);
  }
}

// Always inline: a call would pass the sixteen vectors through memory.
[[gnu::always_inline]] inline void transpose_16x16(__m512i (&v)[16]) {
  __m512i t[16];
  CACHALOT_UNROLL
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
  }
  // Row 4q + c of v: in each 128-bit lane l, column 4l + c of rows 4q .. 4q + 3.
  CACHALOT_UNROLL
  for (int q = 0; q < 4; ++q) {
    v[4 * q + 0] = _mm512_unpacklo_epi64(t[4 * q], t[4 * q + 2]);
    v[4 * q + 1] = _mm512_unpackhi_epi64(t[4 * q], t[4 * q + 2]);
    v[4 * q + 2] = _mm512_unpacklo_epi64(t[4 * q + 1], t[4 * q + 3]);
    v[4 * q + 3] = _mm512_unpackhi_epi64(t[4 * q + 1], t[4 * q + 3]);
  }
  exchange_lanes(v);
}

// The same, but in each 128-bit lane the low halves of its four dwords come first, then the high
// halves: for codes of a byte, whose neighbours are then merged by plain unpacking.
[[gnu::always_inline]] inline void transpose_16x16_halves(__m512i (&v)[16]) {
  __m512i t[16];
  CACHALOT_UNROLL
  for (int q = 0; q < 4; ++q) {
    t[4 * q + 0] = _mm512_unpacklo_epi16(v[4 * q], v[4 * q + 2]);
    t[4 * q + 1] = _mm512_unpackhi_epi16(v[4 * q], v[4 * q + 2]);
    t[4 * q + 2] = _mm512_unpacklo_epi16(v[4 * q + 1], v[4 * q + 3]);
    t[4 * q + 3] = _mm512_unpackhi_epi16(v[4 * q + 1], v[4 * q + 3]);
  }
  CACHALOT_UNROLL
  for (int q = 0; q < 4; ++q) {
    v[4 * q + 0] = _mm512_unpacklo_epi16(t[4 * q], t[4 * q + 2]);
    v[4 * q + 1] = _mm512_unpackhi_epi16(t[4 * q], t[4 * q + 2]);
    v[4 * q + 2] = _mm512_unpacklo_epi16(t[4 * q + 1], t[4 * q + 3]);
    v[4 * q + 3] = _mm512_unpackhi_epi16(t[4 * q + 1], t[4 * q + 3]);
  }
  exchange_lanes(v);
}

}  // namespace cachalot::cpu::avx512
CACHALOT_END_TARGET
#endif
