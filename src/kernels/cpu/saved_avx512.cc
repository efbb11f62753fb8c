#include "kernels/saved.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/cpu/avx512.h"
#include "kernels/cpu/vec_avx512.h"
#include "numeric/e5m6.h"
#include "numeric/logfmt.h"
#include "numeric/small_float.h"

#ifdef CACHALOT_X86
CACHALOT_BEGIN_TARGET(CACHALOT_AVX512)
namespace cachalot::cpu::avx512 {
namespace {

// Sixteen ints at a time.
using IVec = __m512i;
IVec to_bits(Vec v) { return _mm512_castps_si512(v); }
Vec to_floats(IVec v) { return _mm512_castsi512_ps(v); }
Vec int_to_float(IVec v) { return _mm512_cvtepi32_ps(v); }
IVec int_set(int x) { return _mm512_set1_epi32(x); }
IVec int_and(IVec a, IVec b) { return _mm512_and_si512(a, b); }
IVec int_or(IVec a, IVec b) { return _mm512_or_si512(a, b); }
IVec int_add(IVec a, IVec b) { return _mm512_add_epi32(a, b); }
IVec int_sub(IVec a, IVec b) { return _mm512_sub_epi32(a, b); }
IVec int_max(IVec a, IVec b) { return _mm512_max_epi32(a, b); }
IVec int_min(IVec a, IVec b) { return _mm512_min_epi32(a, b); }
template <int kBits>
IVec shift_right(IVec a) {
  return _mm512_srli_epi32(a, kBits);
}
template <int kBits>
IVec shift_right_signed(IVec a) {
  return _mm512_srai_epi32(a, kBits);
}
template <int kBits>
IVec shift_left(IVec a) {
  return _mm512_slli_epi32(a, kBits);
}
// Per lane: a < b ? x : y.
IVec select_less(IVec a, IVec b, IVec x, IVec y) {
  return _mm512_mask_blend_epi32(_mm512_cmplt_epi32_mask(a, b), y, x);
}
Vec select_less(Vec a, Vec b, Vec x, Vec y) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x);
}
Vec floor(Vec a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
std::uint32_t largest_lane(IVec v) {
  return static_cast<std::uint32_t>(_mm512_reduce_max_epi32(v));
}
std::uint32_t smallest_lane(IVec v) {
  return static_cast<std::uint32_t>(_mm512_reduce_min_epi32(v));
}

// The upper halves of the first min(n, 16) lanes.
void store_upper_halves(Bf16* p, IVec v, std::ptrdiff_t n) {
  const __m256i half = _mm512_cvtepi32_epi16(_mm512_srli_epi32(v, 16));
  if (n >= kLanes) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), half);
  } else {
    _mm256_mask_storeu_epi16(p, first_lanes(n).mask, half);
  }
}

// 32 codes of 12 bits as 48 bytes: words, then pairs of words as 24 of 32 bits, then without gaps.
void store_codes(std::uint8_t* p, IVec low, IVec high) {
  alignas(64) static constexpr std::uint16_t kEven[32] = {
      0,  2,  4,  6,  8,  10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30,
      32, 34, 36, 38, 40, 42, 44, 46, 48, 50, 52, 54, 56, 58, 60, 62};
  const __m512i words = _mm512_permutex2var_epi16(low, _mm512_load_si512(kEven), high);
  const __m512i pairs = _mm512_madd_epi16(words, _mm512_set1_epi32(4096 << 16 | 1));
  const __m512i bytes =
      _mm512_shuffle_epi8(pairs, _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10,
                                                                      12, 13, 14, -1, -1, -1, -1)));
  const __m512i together = _mm512_permutexvar_epi32(
      _mm512_setr_epi32(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 3, 7, 11, 15), bytes);
  _mm512_mask_storeu_epi32(p, 0x0FFF, together);
}

void load_codes(const std::uint8_t* p, IVec& low, IVec& high) {
  const __m512i together = _mm512_maskz_loadu_epi32(0x0FFF, p);
  const __m512i apart = _mm512_permutexvar_epi32(
      _mm512_setr_epi32(0, 1, 2, 15, 3, 4, 5, 15, 6, 7, 8, 15, 9, 10, 11, 15), together);
  const __m512i both = _mm512_shuffle_epi8(
      apart,
      _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 3, 4, 4, 5, 6, 7, 7, 8, 9, 10, 10, 11)));
  const __m512i words = _mm512_and_si512(_mm512_mask_srli_epi16(both, 0xAAAAAAAAu, both, 4),
                                         _mm512_set1_epi16(0xFFF));
  low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(words));
  high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(words, 1));
}

}  // namespace
#include "kernels/cpu/saved_body.inc"
}  // namespace cachalot::cpu::avx512
CACHALOT_END_TARGET
#endif
