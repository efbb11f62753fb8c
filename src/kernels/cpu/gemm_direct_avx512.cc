#include <algorithm>
#include <array>
#include <utility>

#include "kernels/cpu/gemm_avx512.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/transpose_avx512.h"

// Few rows (decoding): bound by reading B. B is read once, where it lies, in the order of memory;
// the sums keep the order of the contract, one accumulator per element.

#ifdef CACHALOT_X86
CACHALOT_BEGIN_TARGET(CACHALOT_AVX512)
namespace cachalot::cpu::avx512 {

namespace {

constexpr int kLanes = 16;
// Bytes a row is fetched ahead of its use: about 100 ns at the speed of one core.
constexpr int kAhead = 1024;

template <int kRows>
struct Sums {
  __m512 acc[kRows];

  inline void zero() {
    CACHALOT_UNROLL
    for (int m = 0; m < kRows; ++m) acc[m] = _mm512_setzero_ps();
  }
  inline void step(const float* a, __m512 b) {
    CACHALOT_UNROLL
    for (int m = 0; m < kRows; ++m) acc[m] = _mm512_fmadd_ps(_mm512_set1_ps(a[m]), b, acc[m]);
  }
  inline void store(const DirectJob& job, int col) const {
    CACHALOT_UNROLL
    for (int m = 0; m < kRows; ++m) {
      float* c = job.c + m * job.c_stride + col;
      const __mmask16 live = first_lanes(job.cols - col);
      __m512 x = acc[m];
      if (job.accumulate) x = _mm512_add_ps(_mm512_maskz_loadu_ps(live, c), x);
      _mm512_mask_storeu_ps(c, live, x);
    }
  }
};

// The steps held by 16 transposed vectors: n elements of k.
template <Steps kSteps, bool kPairs, int kRows>
inline void steps_of_block(Sums<kRows>& sums, const float* a, const __m512i* v, int n) {
  const __m512i high = _mm512_set1_epi32(static_cast<int>(0xFFFF0000u));
  if constexpr (kPairs) {
    for (int i = 0; 2 * i < n; ++i) {
      const __m512 even = _mm512_castsi512_ps(_mm512_slli_epi32(v[i], 16));
      const __m512 odd = _mm512_castsi512_ps(_mm512_and_si512(v[i], high));
      sums.step(a + 2 * i * kRows, kSteps == Steps::kWide ? odd : even);
      if (kSteps == Steps::kWide || 2 * i + 1 < n) {
        sums.step(a + (2 * i + 1) * kRows, kSteps == Steps::kWide ? even : odd);
      }
    }
  } else {
    for (int i = 0; i < n; ++i) sums.step(a + i * kRows, _mm512_castsi512_ps(v[i]));
  }
}
template <Steps kSteps, bool kPairs, int kRows>
inline void steps_of_full_block(Sums<kRows>& sums, const float* a, const __m512i* v) {
  const __m512i high = _mm512_set1_epi32(static_cast<int>(0xFFFF0000u));
  CACHALOT_UNROLL
  for (int i = 0; i < 16; ++i) {
    if constexpr (kPairs) {
      const __m512 even = _mm512_castsi512_ps(_mm512_slli_epi32(v[i], 16));
      const __m512 odd = _mm512_castsi512_ps(_mm512_and_si512(v[i], high));
      sums.step(a + 2 * i * kRows, kSteps == Steps::kWide ? odd : even);
      sums.step(a + (2 * i + 1) * kRows, kSteps == Steps::kWide ? even : odd);
    } else {
      sums.step(a + i * kRows, _mm512_castsi512_ps(v[i]));
    }
  }
}

// B is [N, K]: 16 of its rows at a time, 64 bytes of each transposed in registers.
template <Steps kSteps, int kRows, class T>
void direct_along(const DirectJob& job) {
  constexpr bool kPairs = kSteps != Steps::kFloat || sizeof(T) == 2;
  constexpr int kElements = kPairs ? 32 : 16;
  const auto* a = reinterpret_cast<const float*>(job.a);
  for (int col = 0; col < job.cols; col += kLanes) {
    const int lines = std::min(kLanes, job.cols - col);
    const T* src = static_cast<const T*>(job.b) + col * job.b_stride;
    Sums<kRows> sums;
    sums.zero();
    const int full = lines == kLanes ? job.k / kElements * kElements : 0;
    for (int i = 0; i < full; i += kElements) {
      __m512i v[kLanes];
      CACHALOT_UNROLL
      for (int r = 0; r < kLanes; ++r) {
        const T* p = src + r * job.b_stride + i;
        _mm_prefetch(reinterpret_cast<const char*>(p) + kAhead, _MM_HINT_T0);
        v[r] = load_words<kPairs>(p);
      }
      transpose_16x16(v);
      steps_of_full_block<kSteps, kPairs>(sums, a + i * kRows, v);
    }
    for (int i = full; i < job.k; i += kElements) {
      const int n = std::min(kElements, job.k - i);
      __m512i v[kLanes];
      for (int r = 0; r < kLanes; ++r) {
        v[r] =
            r < lines ? load_words<kPairs>(src + r * job.b_stride + i, n) : _mm512_setzero_si512();
      }
      transpose_16x16(v);
      steps_of_block<kSteps, kPairs>(sums, a + i * kRows, v, n);
    }
    sums.store(job, col);
  }
}

template <Steps kSteps>
inline __m512 load_step(const float* p, __mmask16 live) {
  const __m512 x = _mm512_maskz_loadu_ps(live, p);
  if constexpr (kSteps == Steps::kFloat) return x;
  return _mm512_castsi512_ps(round_to_bf16(_mm512_castps_si512(x)));
}
template <Steps kSteps>
inline __m512 load_step(const Bf16* p, __mmask16 live) {
  return _mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(live, p)), 16));
}

// B is [K, N]: a step is a contiguous piece of a row; kGroups vectors of columns at a time.
template <Steps kSteps, int kRows, int kGroups, class T>
void across_columns(const DirectJob& job, int col) {
  const auto* a = reinterpret_cast<const float*>(job.a);
  const T* src = static_cast<const T*>(job.b) + col;
  __mmask16 live[kGroups];
  Sums<kRows> sums[kGroups];
  for (int g = 0; g < kGroups; ++g) {
    live[g] = first_lanes(job.cols - col - g * kLanes);
    sums[g].zero();
  }
  const auto step = [&](std::int64_t s, std::int64_t k) __attribute__((always_inline)) {
    const T* row = src + k * job.b_stride;
    CACHALOT_UNROLL
    for (int g = 0; g < kGroups; ++g) {
      sums[g].step(a + s * kRows,
                   k < job.k ? load_step<kSteps>(row + g * kLanes, live[g]) : _mm512_setzero_ps());
    }
  };
  if constexpr (kSteps == Steps::kFloat) {
    for (int k = 0; k < job.k; ++k) step(k, k);
  } else {
    for (int k = 0; k < job.k; k += 2) {
      step(k, k + 1);
      step(k + 1, k);
    }
  }
  for (int g = 0; g < kGroups; ++g) {
    if (job.cols - col - g * kLanes > 0) sums[g].store(job, col + g * kLanes);
  }
}

template <Steps kSteps, int kRows, class T>
void direct_across(const DirectJob& job) {
  constexpr int kGroups = kRows <= 2 ? 4 : 2;
  for (int col = 0; col < job.cols; col += kGroups * kLanes) {
    across_columns<kSteps, kRows, kGroups, T>(job, col);
  }
}

template <Steps kSteps, class T, int kRows>
void direct_one(const DirectJob& job) {
  job.trans_b ? direct_along<kSteps, kRows, T>(job) : direct_across<kSteps, kRows, T>(job);
}

using DirectFn = void (*)(const DirectJob&);
template <Steps kSteps, class T, std::size_t... kI>
constexpr std::array<DirectFn, sizeof...(kI)> by_rows(std::index_sequence<kI...>) {
  return {direct_one<kSteps, T, static_cast<int>(kI) + 1>...};
}

template <Steps kSteps, class T>
void run(const DirectJob& job) {
  static constexpr auto kFns = by_rows<kSteps, T>(std::make_index_sequence<kDirectRowsLimit>());
  kFns[static_cast<std::size_t>(job.rows - 1)](job);
}

}  // namespace

void gemm_direct(const DirectJob& job) {
  const bool bf16 = job.b_dtype == DType::kBF16;
  if (job.steps == Steps::kFloat) {
    return bf16 ? run<Steps::kFloat, Bf16>(job) : run<Steps::kFloat, float>(job);
  }
  return bf16 ? run<Steps::kWide, Bf16>(job) : run<Steps::kWide, float>(job);
}

}  // namespace cachalot::cpu::avx512
CACHALOT_END_TARGET
#endif
