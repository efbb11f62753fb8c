#include <algorithm>

#include "kernels/cpu/gemm_avx512.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/transpose_avx512.h"

#ifdef CACHALOT_X86
CACHALOT_BEGIN_TARGET(CACHALOT_AVX512)
namespace cachalot::cpu::avx512 {

namespace {

constexpr int kLanes = 16;
constexpr int kAhead = 512;  // bytes of a line fetched ahead

// 16 elements as the bits of floats, rounded to bf16 where the steps want it.
template <Steps kSteps>
inline __m512i load_bits(const float* p, __mmask16 live) {
  const __m512i x = _mm512_castps_si512(_mm512_maskz_loadu_ps(live, p));
  return kSteps == Steps::kFloat ? x : round_to_bf16(x);
}
template <Steps kSteps>
inline __m512i load_bits(const Bf16* p, __mmask16 live) {
  return _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(live, p)), 16);
}

inline void put(std::uint32_t* dst, __mmask16 keep, __m512i words) {
  _mm512_mask_storeu_epi32(dst, keep, words);
}

// Lines side by side in memory: a step is a contiguous piece of a row (or of two).
template <Steps kSteps, class T>
void pack_across(const PackJob& job) {
  const T* src = static_cast<const T*>(job.src);
  const int k = job.k_end - job.k_begin;
  for (int line = 0; line < job.width; line += kLanes) {
    const __mmask16 live = first_lanes(job.lines - line);
    const __mmask16 keep = first_lanes(job.width - line);
    const T* p = src + line;
    std::uint32_t* dst = job.dst + line;
    if constexpr (kSteps == Steps::kFloat) {
      for (int i = 0; i < k; ++i, p += job.k_stride, dst += job.width) {
        put(dst, keep, load_bits<kSteps>(p, live));
      }
    } else {
      for (int i = 0; i < k; i += 2, p += 2 * job.k_stride) {
        const __m512i even = load_bits<kSteps>(p, live);
        const __m512i odd =
            i + 1 < k ? load_bits<kSteps>(p + job.k_stride, live) : _mm512_setzero_si512();
        if constexpr (kSteps == Steps::kWide) {
          put(dst, keep, odd);
          put(dst + job.width, keep, even);
          dst += 2 * job.width;
        } else {
          put(dst, keep, _mm512_or_si512(odd, _mm512_srli_epi32(even, 16)));
          dst += job.width;
        }
      }
    }
  }
}

// Writes 16 transposed vectors: of pairs of bf16, or of float bits.
template <Steps kSteps, bool kPairs>
inline void put_block(const __m512i* v, int k, int width, __mmask16 keep, std::uint32_t* dst) {
  const __m512i high = _mm512_set1_epi32(static_cast<int>(0xFFFF0000u));
  if constexpr (kPairs && kSteps == Steps::kPair) {
    for (int i = 0; 2 * i < k; ++i) put(dst + i * width, keep, v[i]);
  } else if constexpr (kPairs) {
    for (int i = 0; 2 * i < k; ++i) {
      const __m512i even = _mm512_slli_epi32(v[i], 16);
      const __m512i odd = _mm512_and_si512(v[i], high);
      put(dst + 2 * i * width, keep, kSteps == Steps::kWide ? odd : even);
      if (kSteps == Steps::kWide || 2 * i + 1 < k) {
        put(dst + (2 * i + 1) * width, keep, kSteps == Steps::kWide ? even : odd);
      }
    }
  } else {
    for (int i = 0; i < k; ++i) put(dst + i * width, keep, v[i]);
  }
}

// Lines far apart, k contiguous: blocks of 16 lines x 64 bytes are transposed in registers.
template <Steps kSteps, class T>
void pack_along(const PackJob& job) {
  // bf16 steps travel as pairs, 32 elements to a vector, also where the source is float.
  constexpr bool kPairs = kSteps != Steps::kFloat || sizeof(T) == 2;
  constexpr int kElements = kPairs ? 32 : 16;
  const int k = job.k_end - job.k_begin;
  for (int line = 0; line < job.width; line += kLanes) {
    const __mmask16 keep = first_lanes(job.width - line);
    const int lines = std::clamp(job.lines - line, 0, kLanes);
    const T* src = static_cast<const T*>(job.src) + line * job.line_stride;
    std::uint32_t* dst = job.dst + line;
    for (int i = 0; i < k; i += kElements) {
      const int n = std::min(kElements, k - i);
      __m512i v[kLanes];
      if (lines > 0 && n == kElements) {
        CACHALOT_UNROLL
        for (int r = 0; r < kLanes; ++r) {
          // The last line once more where there are fewer than 16: `keep` leaves it out.
          const T* p = src + std::min(r, lines - 1) * job.line_stride + i;
          _mm_prefetch(reinterpret_cast<const char*>(p) + kAhead, _MM_HINT_T0);
          v[r] = load_words<kPairs>(p);
        }
      } else {
        for (int r = 0; r < kLanes; ++r) {
          v[r] = r < lines ? load_words<kPairs>(src + r * job.line_stride + i, n)
                           : _mm512_setzero_si512();
        }
      }
      transpose_16x16(v);
      put_block<kSteps, kPairs>(v, n, job.width, keep, dst + steps_of(kSteps, i) * job.width);
    }
  }
}

template <Steps kSteps>
void pack(const PackJob& job) {
  const bool across = job.line_stride == 1 && job.k_stride != 1;
  if (job.dtype == DType::kBF16) {
    return across ? pack_across<kSteps, Bf16>(job) : pack_along<kSteps, Bf16>(job);
  }
  return across ? pack_across<kSteps, float>(job) : pack_along<kSteps, float>(job);
}

}  // namespace

void gemm_pack(const PackJob& job) {
  if (job.dtype == DType::kF8E4M3) return gemm_pack_fp8(job);
  switch (job.steps) {
    case Steps::kFloat:
      return pack<Steps::kFloat>(job);
    case Steps::kWide:
      return pack<Steps::kWide>(job);
    case Steps::kPair:
      return pack<Steps::kPair>(job);
  }
}

}  // namespace cachalot::cpu::avx512
CACHALOT_END_TARGET
#endif
