#include "kernels/saved.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/cpu/avx2.h"
#include "kernels/cpu/vec_avx2.h"
#include "numeric/e5m6.h"
#include "numeric/logfmt.h"
#include "numeric/small_float.h"

#ifdef CACHALOT_X86
CACHALOT_BEGIN_TARGET(CACHALOT_AVX2)
namespace cachalot::cpu::avx2 {
namespace {

// Eight ints at a time.
using IVec = __m256i;
IVec to_bits(Vec v) { return _mm256_castps_si256(v); }
Vec to_floats(IVec v) { return _mm256_castsi256_ps(v); }
Vec int_to_float(IVec v) { return _mm256_cvtepi32_ps(v); }
IVec int_set(int x) { return _mm256_set1_epi32(x); }
IVec int_and(IVec a, IVec b) { return _mm256_and_si256(a, b); }
IVec int_or(IVec a, IVec b) { return _mm256_or_si256(a, b); }
IVec int_add(IVec a, IVec b) { return _mm256_add_epi32(a, b); }
IVec int_sub(IVec a, IVec b) { return _mm256_sub_epi32(a, b); }
IVec int_max(IVec a, IVec b) { return _mm256_max_epi32(a, b); }
IVec int_min(IVec a, IVec b) { return _mm256_min_epi32(a, b); }
template <int kBits>
IVec shift_right(IVec a) {
  return _mm256_srli_epi32(a, kBits);
}
template <int kBits>
IVec shift_right_signed(IVec a) {
  return _mm256_srai_epi32(a, kBits);
}
template <int kBits>
IVec shift_left(IVec a) {
  return _mm256_slli_epi32(a, kBits);
}
// Per lane: a < b ? x : y.
IVec select_less(IVec a, IVec b, IVec x, IVec y) {
  return _mm256_blendv_epi8(y, x, _mm256_cmpgt_epi32(b, a));
}
Vec select_less(Vec a, Vec b, Vec x, Vec y) {
  return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_LT_OQ));
}
Vec floor(Vec a) { return _mm256_floor_ps(a); }
std::uint32_t largest_lane(IVec v) {
  __m128i half = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  half = _mm_max_epi32(half, _mm_shuffle_epi32(half, 0x4E));
  return static_cast<std::uint32_t>(
      _mm_cvtsi128_si32(_mm_max_epi32(half, _mm_shuffle_epi32(half, 0xB1))));
}
std::uint32_t smallest_lane(IVec v) {
  __m128i half = _mm_min_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  half = _mm_min_epi32(half, _mm_shuffle_epi32(half, 0x4E));
  return static_cast<std::uint32_t>(
      _mm_cvtsi128_si32(_mm_min_epi32(half, _mm_shuffle_epi32(half, 0xB1))));
}

// Two vectors of ints below 2^16 as words, in order.
__m256i to_words(__m256i low, __m256i high) {
  return _mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), 0xD8);
}

// The upper halves of the first min(n, 8) lanes.
void store_upper_halves(Bf16* p, IVec v, std::ptrdiff_t n) {
  const __m256i upper = _mm256_srli_epi32(v, 16);
  const __m128i half = _mm256_castsi256_si128(to_words(upper, upper));
  if (n >= kLanes) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), half);
  } else {
    alignas(16) std::uint16_t few[8];
    _mm_store_si128(reinterpret_cast<__m128i*>(few), half);
    std::memcpy(p, few, static_cast<std::size_t>(n) * sizeof(Bf16));
  }
}

// 16 codes of 12 bits as 24 bytes: words, then pairs of words as 24 of 32 bits, then without gaps.
void store_codes(std::uint8_t* p, IVec low, IVec high) {
  const __m256i pairs = _mm256_madd_epi16(to_words(low, high), _mm256_set1_epi32(4096 << 16 | 1));
  const __m256i bytes = _mm256_shuffle_epi8(
      pairs, _mm256_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1, 0, 1, 2, 4, 5,
                              6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1));
  const __m256i together =
      _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 1, 2, 4, 5, 6, 3, 7));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(together));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p + 16), _mm256_extracti128_si256(together, 1));
}

void load_codes(const std::uint8_t* p, IVec& low, IVec& high) {
  const __m256i together = _mm256_inserti128_si256(
      _mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
      _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + 16)), 1);
  const __m256i apart =
      _mm256_permutevar8x32_epi32(together, _mm256_setr_epi32(0, 1, 2, 7, 3, 4, 5, 7));
  const __m256i both = _mm256_shuffle_epi8(
      apart, _mm256_setr_epi8(0, 1, 1, 2, 3, 4, 4, 5, 6, 7, 7, 8, 9, 10, 10, 11, 0, 1, 1, 2, 3, 4,
                              4, 5, 6, 7, 7, 8, 9, 10, 10, 11));
  const __m256i words = _mm256_and_si256(_mm256_blend_epi16(both, _mm256_srli_epi16(both, 4), 0xAA),
                                         _mm256_set1_epi16(0xFFF));
  low = _mm256_cvtepu16_epi32(_mm256_castsi256_si128(words));
  high = _mm256_cvtepu16_epi32(_mm256_extracti128_si256(words, 1));
}

}  // namespace
#include "kernels/cpu/saved_body.inc"
}  // namespace cachalot::cpu::avx2
CACHALOT_END_TARGET
#endif
