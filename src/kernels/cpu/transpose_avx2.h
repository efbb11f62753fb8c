// An 8 x 8 transposition, which products of the level avx2 share. Include after simd.h; the
// function belongs to this region's level.
#pragma once

#include <cstring>

#include "kernels/cpu/simd.h"

#ifdef CACHALOT_X86
CACHALOT_BEGIN_TARGET(CACHALOT_AVX2)
namespace cachalot::cpu::avx2 {

inline void transpose_8x8(__m256 (&v)[8]) {
  __m256 t[8];
  CACHALOT_UNROLL
  for (int i = 0; i < 4; ++i) {
    t[2 * i] = _mm256_unpacklo_ps(v[2 * i], v[2 * i + 1]);
    t[2 * i + 1] = _mm256_unpackhi_ps(v[2 * i], v[2 * i + 1]);
  }
  CACHALOT_UNROLL
  for (int q = 0; q < 2; ++q) {
    v[4 * q + 0] = _mm256_shuffle_ps(t[4 * q], t[4 * q + 2], 0x44);
    v[4 * q + 1] = _mm256_shuffle_ps(t[4 * q], t[4 * q + 2], 0xEE);
    v[4 * q + 2] = _mm256_shuffle_ps(t[4 * q + 1], t[4 * q + 3], 0x44);
    v[4 * q + 3] = _mm256_shuffle_ps(t[4 * q + 1], t[4 * q + 3], 0xEE);
  }
  CACHALOT_UNROLL
  for (int c = 0; c < 4; ++c) {
    t[c] = _mm256_permute2f128_ps(v[c], v[4 + c], 0x20);
    t[4 + c] = _mm256_permute2f128_ps(v[c], v[4 + c], 0x31);
  }
  std::memcpy(v, t, sizeof(t));
}

}  // namespace cachalot::cpu::avx2
CACHALOT_END_TARGET
#endif
