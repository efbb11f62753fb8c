#include "kernels/dropout.h"

#include <algorithm>

#include "kernels/cpu/avx512.h"
#include "kernels/cpu/vec_avx512.h"

#ifdef CACHALOT_X86
CACHALOT_BEGIN_TARGET(CACHALOT_AVX512)
namespace cachalot::cpu::avx512 {

namespace {

struct KeepBits {
  std::uint32_t word[8];
};

__m512i broadcast(std::uint64_t x) { return _mm512_set1_epi64(static_cast<long long>(x)); }
__m512i high_half(__m512i x) {
  return _mm512_shuffle_epi32(x, static_cast<_MM_PERM_ENUM>(0b11'11'01'01));
}

// Philox-4x32-10 of 16 counters per group from `counter` on, a multiple of 16. A word lies in the
// lower half of 64 bits, where the products want it; set s has the counters 16 (s / 2) + 2 i + s
// mod 2 from there. A round's products wait for the round before, so two groups at once go twice as
// fast.
template <unsigned kGroups>
void keep_bits(const DropoutMask& mask, std::uint64_t counter, std::uint32_t threshold,
               KeepBits& keep) {
  constexpr unsigned kSets = 2 * kGroups;
  const __m512i even = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14);
  const __m512i m0 = _mm512_set1_epi64(0xD2511F53u), m1 = _mm512_set1_epi64(0xCD9E8D57u);
  __m512i c[kSets][4];
  CACHALOT_UNROLL
  for (unsigned s = 0; s < kSets; ++s) {
    const std::uint64_t first = counter + s / 2 * 16;
    c[s][0] = _mm512_add_epi64(broadcast(first + s % 2), even);
    c[s][1] = broadcast(first >> 32);
    c[s][2] = broadcast(mask.stream);
    c[s][3] = broadcast(mask.stream >> 32);
  }
  auto k0 = static_cast<std::uint32_t>(mask.seed);
  auto k1 = static_cast<std::uint32_t>(mask.seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const __m512i key0 = broadcast(k0), key1 = broadcast(k1);
    CACHALOT_UNROLL
    for (unsigned s = 0; s < kSets; ++s) {
      const __m512i p0 = _mm512_mul_epu32(c[s][0], m0), p1 = _mm512_mul_epu32(c[s][2], m1);
      constexpr int kXor3 = 0x96;
      c[s][0] = _mm512_ternarylogic_epi64(high_half(p1), c[s][1], key0, kXor3);
      c[s][1] = p1;
      c[s][2] = _mm512_ternarylogic_epi64(high_half(p0), c[s][3], key1, kXor3);
      c[s][3] = p0;
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  const __m512i least = _mm512_set1_epi16(static_cast<short>(threshold));
  CACHALOT_UNROLL
  for (unsigned s = 0; s < kSets; s += 2) {
    CACHALOT_UNROLL
    for (unsigned w = 0; w < 4; ++w) {
      const __m512i all =
          _mm512_mask_blend_epi32(0xAAAA, c[s][w], _mm512_slli_epi64(c[s + 1][w], 32));
      keep.word[2 * s + w] = _mm512_cmpge_epu16_mask(all, least);
    }
  }
}

Vec only_lanes(Vec v, std::uint32_t bits) {
  return _mm512_maskz_mov_ps(static_cast<__mmask16>(bits), v);
}

}  // namespace

#include "kernels/cpu/dropout_body.inc"

}  // namespace cachalot::cpu::avx512
CACHALOT_END_TARGET
#endif
