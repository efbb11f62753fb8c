#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/cpu/gemm_avx512.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/transpose_avx512.h"

#ifdef CACHALOT_X86
CACHALOT_BEGIN_TARGET(CACHALOT_AVX512)
namespace cachalot::cpu::avx512 {

namespace {

// The high halves of both, once rounded.
inline __m512i bf16_pairs(__m512 low, __m512 high) {
  // Words 1, 3, 5 .. 63 of the two vectors.
  const __m512i odd_words = _mm512_add_epi32(
      _mm512_mullo_epi32(_mm512_set1_epi32(0x00040004),
                         _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)),
      _mm512_set1_epi32(0x00030001));
  return _mm512_permutex2var_epi16(round_to_bf16(_mm512_castps_si512(low)), odd_words,
                                   round_to_bf16(_mm512_castps_si512(high)));
}

#include "kernels/cpu/gemm_pack_avx512.inc"

}  // namespace

void gemm_pack(const PackJob& job) {
  if (job.dtype == DType::kF8E4M3) return gemm_pack_fp8(job);
  pack(job);
}

}  // namespace cachalot::cpu::avx512
CACHALOT_END_TARGET

CACHALOT_BEGIN_TARGET(CACHALOT_AVX512BF16)
namespace cachalot::cpu::avx512bf16 {

namespace {

using avx512::first_lanes;

// Denormals become zero, as they do in vdpbf16ps.
inline __m512i bf16_pairs(__m512 low, __m512 high) {
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
}

#include "kernels/cpu/gemm_pack_avx512.inc"

}  // namespace

void gemm_pack(const PackJob& job) {
  if (job.dtype == DType::kF8E4M3) return avx512::gemm_pack_fp8(job);
  pack(job);
}

}  // namespace cachalot::cpu::avx512bf16
CACHALOT_END_TARGET
#endif
