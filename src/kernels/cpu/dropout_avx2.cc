#include "kernels/dropout.h"

#include <algorithm>

#include "kernels/cpu/avx2.h"
#include "kernels/cpu/vec_avx2.h"

#ifdef CACHALOT_X86
CACHALOT_BEGIN_TARGET(CACHALOT_AVX2)
namespace cachalot::cpu::avx2 {

namespace {

struct KeepBits {
  std::uint32_t word[8];
};

__m256i broadcast(std::uint64_t x) { return _mm256_set1_epi64x(static_cast<long long>(x)); }
__m256i high_half(__m256i x) { return _mm256_shuffle_epi32(x, 0b11'11'01'01); }

// Philox-4x32-10 of eight counters from `counter` on, a multiple of 8: words[w] has their word w. A
// word lies in the lower half of 64 bits, where the products want it; set s has counter + 2 i + s.
void eight_blocks(const DropoutMask& mask, std::uint64_t counter, __m256i* words) {
  const __m256i even = _mm256_setr_epi64x(0, 2, 4, 6);
  const __m256i m0 = _mm256_set1_epi64x(0xD2511F53u), m1 = _mm256_set1_epi64x(0xCD9E8D57u);
  __m256i c[2][4];
  CACHALOT_UNROLL
  for (unsigned s = 0; s < 2; ++s) {
    c[s][0] = _mm256_add_epi64(broadcast(counter + s), even);
    c[s][1] = broadcast(counter >> 32);
    c[s][2] = broadcast(mask.stream);
    c[s][3] = broadcast(mask.stream >> 32);
  }
  auto k0 = static_cast<std::uint32_t>(mask.seed);
  auto k1 = static_cast<std::uint32_t>(mask.seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const __m256i key0 = broadcast(k0), key1 = broadcast(k1);
    CACHALOT_UNROLL
    for (unsigned s = 0; s < 2; ++s) {
      const __m256i p0 = _mm256_mul_epu32(c[s][0], m0), p1 = _mm256_mul_epu32(c[s][2], m1);
      c[s][0] = _mm256_xor_si256(_mm256_xor_si256(high_half(p1), c[s][1]), key0);
      c[s][1] = p1;
      c[s][2] = _mm256_xor_si256(_mm256_xor_si256(high_half(p0), c[s][3]), key1);
      c[s][3] = p0;
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  CACHALOT_UNROLL
  for (int w = 0; w < 4; ++w) {
    words[w] = _mm256_blend_epi32(c[0][w], _mm256_slli_epi64(c[1][w], 32), 0xAA);
  }
}

template <unsigned kGroups>
void keep_bits(const DropoutMask& mask, std::uint64_t counter, std::uint32_t threshold,
               KeepBits& keep) {
  const __m256i least = _mm256_set1_epi16(static_cast<short>(threshold));
  for (unsigned g = 0; g < kGroups; ++g) {
    __m256i low[4], high[4];
    eight_blocks(mask, counter + 16 * g, low);
    eight_blocks(mask, counter + 16 * g + 8, high);
    CACHALOT_UNROLL
    for (unsigned w = 0; w < 4; ++w) {
      const __m256i a = _mm256_cmpeq_epi16(_mm256_max_epu16(low[w], least), low[w]);
      const __m256i b = _mm256_cmpeq_epi16(_mm256_max_epu16(high[w], least), high[w]);
      const __m256i bytes = _mm256_permute4x64_epi64(_mm256_packs_epi16(a, b), 0b11'01'10'00);
      keep.word[4 * g + w] = static_cast<std::uint32_t>(_mm256_movemask_epi8(bytes));
    }
  }
}

Vec only_lanes(Vec v, std::uint32_t bits) {
  const __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  const __m256i here = _mm256_and_si256(_mm256_set1_epi32(static_cast<int>(bits)), lane);
  return _mm256_and_ps(v, _mm256_castsi256_ps(_mm256_cmpeq_epi32(here, lane)));
}

}  // namespace

#include "kernels/cpu/dropout_body.inc"

}  // namespace cachalot::cpu::avx2
CACHALOT_END_TARGET
#endif
