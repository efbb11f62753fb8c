#include <algorithm>

#include "kernels/cpu/e4m3_avx512.h"
#include "kernels/cpu/gemm_avx512.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/transpose_avx512.h"

#ifdef CACHALOT_X86
CACHALOT_BEGIN_TARGET(CACHALOT_AVX512)
namespace cachalot::cpu::avx512 {

namespace {

constexpr int kLanes = 16;
constexpr int kAhead = 256;  // bytes of a line fetched ahead

// The steps of a pair of elements of k: bf16 of the even one in the low halves.
template <Steps kSteps>
inline std::uint32_t* put_pair(std::uint32_t* dst, int width, __mmask16 keep, __m512i pair) {
  if constexpr (kSteps == Steps::kPair) {
    _mm512_mask_storeu_epi32(dst, keep, pair);
    return dst + width;
  } else {
    _mm512_mask_storeu_epi32(dst, keep, high_floats(pair));
    _mm512_mask_storeu_epi32(dst + width, keep, low_floats(pair));
    return dst + 2 * width;
  }
}

// Lines side by side in memory: a step is a contiguous piece of a row (or of two).
template <Steps kSteps>
void pack_across(const PackJob& job) {
  const auto* src = static_cast<const std::uint8_t*>(job.src);
  const int k = job.k_end - job.k_begin;
  for (int line = 0; line < job.width; line += kLanes) {
    const __mmask16 live = first_lanes(job.lines - line);
    const __mmask16 keep = first_lanes(job.width - line);
    const std::uint8_t* p = src + line;
    std::uint32_t* dst = job.dst + line;
    for (int i = 0; i < k; i += 2, p += 2 * job.k_stride) {
      const __m512i even = _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(live, p));
      const __m512i odd = i + 1 < k
                              ? _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(live, p + job.k_stride))
                              : _mm512_setzero_si512();
      const __m512i codes = _mm512_or_si512(even, _mm512_slli_epi32(odd, 16));
      dst = put_pair<kSteps>(dst, job.width, keep, decode_e4m3(codes));
    }
  }
}

// Lines far apart, k contiguous: blocks of 16 lines x 64 codes are transposed in registers, four
// codes to a word.
template <Steps kSteps>
void pack_along(const PackJob& job) {
  constexpr int kCodes = 64;
  const __m512i first =
      _mm512_set4_epi32(static_cast<int>(0x800D800Cu), static_cast<int>(0x80098008u),
                        static_cast<int>(0x80058004u), static_cast<int>(0x80018000u));
  const __m512i second = _mm512_add_epi8(first, _mm512_set1_epi16(2));
  const int k = job.k_end - job.k_begin;
  for (int line = 0; line < job.width; line += kLanes) {
    const __mmask16 keep = first_lanes(job.width - line);
    const int lines = std::clamp(job.lines - line, 0, kLanes);
    const auto* src = static_cast<const std::uint8_t*>(job.src) + line * job.line_stride;
    std::uint32_t* dst = job.dst + line;
    for (int i = 0; i < k; i += kCodes) {
      const int n = std::min(kCodes, k - i);
      __m512i v[kLanes];
      if (lines == kLanes && n == kCodes) {
        CACHALOT_UNROLL
        for (int r = 0; r < kLanes; ++r) {
          const std::uint8_t* p = src + r * job.line_stride + i;
          _mm_prefetch(reinterpret_cast<const char*>(p) + kAhead, _MM_HINT_T0);
          v[r] = _mm512_loadu_si512(p);
        }
      } else {
        const __mmask64 live = n == kCodes ? ~__mmask64{0} : (__mmask64{1} << n) - 1;
        for (int r = 0; r < kLanes; ++r) {
          v[r] = r < lines ? _mm512_maskz_loadu_epi8(live, src + r * job.line_stride + i)
                           : _mm512_setzero_si512();
        }
      }
      transpose_16x16(v);
      for (int w = 0; 4 * w < n; ++w) {
        dst = put_pair<kSteps>(dst, job.width, keep, decode_e4m3(_mm512_shuffle_epi8(v[w], first)));
        if (4 * w + 2 >= n) break;
        dst =
            put_pair<kSteps>(dst, job.width, keep, decode_e4m3(_mm512_shuffle_epi8(v[w], second)));
      }
    }
  }
}

}  // namespace

void gemm_pack_fp8(const PackJob& job) {
  const bool across = job.line_stride == 1 && job.k_stride != 1;
  if (job.steps == Steps::kPair) {
    return across ? pack_across<Steps::kPair>(job) : pack_along<Steps::kPair>(job);
  }
  return across ? pack_across<Steps::kWide>(job) : pack_along<Steps::kWide>(job);
}

}  // namespace cachalot::cpu::avx512
CACHALOT_END_TARGET
#endif
