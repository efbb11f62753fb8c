#include <algorithm>
#include <array>
#include <utility>

#include "kernels/cpu/gemm_avx512.h"
#include "kernels/cpu/panel_stream.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/transpose_avx512.h"

// Few rows (decoding) with bf16 weights: as gemm_direct_avx512.cc, but two elements of k at a time.
// The bits are the same; half the instructions leave the time to the memory.

#ifdef CACHALOT_X86
CACHALOT_BEGIN_TARGET(CACHALOT_AVX512BF16)
namespace cachalot::cpu::avx512bf16 {

namespace {

using avx512::first_lanes;
using avx512::kGemmVecs;
using avx512::load_words;
using avx512::transpose_16x16;

constexpr int kLanes = 16;
constexpr int kElements = 2 * kLanes;  // of k in a vector of B
constexpr int kRowsAhead = 16;         // of a B across k: 4 KiB where 128 columns are read

inline __m512 add(__m512 sum, const std::uint32_t* a, __m512i b) {
  return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(*a))),
                          reinterpret_cast<__m512bh>(b));
}

inline void store(const DirectJob& job, int row, int col, __m512 x) {
  float* c = job.c + row * job.c_stride + col;
  const __mmask16 live = first_lanes(job.cols - col);
  if (job.accumulate) x = _mm512_add_ps(_mm512_maskz_loadu_ps(live, c), x);
  _mm512_mask_storeu_ps(c, live, x);
}

// B is [N, K]: 16 of its rows at a time, 64 bytes of each transposed in registers, while the next
// 16 are fetched in the order of memory.
template <int kRows>
void along(const DirectJob& job) {
  for (int col = 0; col < job.cols; col += kLanes) {
    const int lines = std::min(kLanes, job.cols - col);
    const Bf16* src = static_cast<const Bf16*>(job.b) + col * job.b_stride;
    const std::uint32_t* a = job.a;
    __m512 sums[kRows];
    CACHALOT_UNROLL
    for (int m = 0; m < kRows; ++m) sums[m] = _mm512_setzero_ps();
    const int full = lines == kLanes ? job.k / kElements * kElements : 0;
    const char* ahead = reinterpret_cast<const char*>(src + kLanes * job.b_stride);
    const bool dense = job.b_stride == job.k;  // the 16 rows are one piece of memory
    const auto row_step = static_cast<std::ptrdiff_t>(sizeof(Bf16)) * job.b_stride;
    const std::ptrdiff_t ahead_step = dense ? Touch::kLine : row_step;
    for (int i = 0; i < full; i += kElements, a += kLanes * kRows) {
      __m512i v[kLanes];
      CACHALOT_UNROLL
      for (int r = 0; r < kLanes; ++r) v[r] = _mm512_loadu_si512(src + r * job.b_stride + i);
      transpose_16x16(v);
      CACHALOT_UNROLL
      for (int s = 0; s < kLanes; ++s) {  // fetched evenly: a burst would be waited for
        _mm_prefetch(ahead + s * ahead_step, _MM_HINT_T1);
        CACHALOT_UNROLL
        for (int m = 0; m < kRows; ++m) sums[m] = add(sums[m], a + s * kRows + m, v[s]);
      }
      ahead += dense ? kLanes * Touch::kLine : Touch::kLine;
    }
    for (int i = full; i < job.k; i += kElements) {
      const int n = std::min(kElements, job.k - i);
      __m512i v[kLanes];
      for (int r = 0; r < kLanes; ++r) {
        v[r] = r < lines ? load_words<true>(src + r * job.b_stride + i, n) : _mm512_setzero_si512();
      }
      transpose_16x16(v);
      for (int s = 0; 2 * s < n; ++s, a += kRows) {
        CACHALOT_UNROLL
        for (int m = 0; m < kRows; ++m) sums[m] = add(sums[m], a + m, v[s]);
      }
    }
    CACHALOT_UNROLL
    for (int m = 0; m < kRows; ++m) store(job, m, col, sums[m]);
  }
}

// B is [K, N]: two rows of it become pairs; in each 128-bit lane columns 0 to 3 in one vector and 4
// to 7 in the other, put in order at the end. kGroups times 32 columns at a time: what is read of a
// row lies in one piece, long enough to be worth its page.
template <int kRows, int kGroups>
void across_columns(const DirectJob& job, int col) {
  const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
  const __m512i second =
      _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
  const Bf16* src = static_cast<const Bf16*>(job.b) + col;
  const std::uint32_t* a = job.a;
  __mmask32 live[kGroups];
  __m512 low[kGroups][kRows], high[kGroups][kRows];
  CACHALOT_UNROLL
  for (int g = 0; g < kGroups; ++g) {
    const int left = std::clamp(job.cols - col - g * 2 * kLanes, 0, 2 * kLanes);
    live[g] = static_cast<__mmask32>((std::uint64_t{1} << left) - 1);
    CACHALOT_UNROLL
    for (int m = 0; m < kRows; ++m) low[g][m] = high[g][m] = _mm512_setzero_ps();
  }
  for (int k = 0; k < job.k; k += 2, a += kRows) {
    const Bf16* row = src + k * job.b_stride;
    const Bf16* ahead = row + kRowsAhead * job.b_stride;
    CACHALOT_UNROLL
    for (int g = 0; g < kGroups; ++g) {
      const int at = g * 2 * kLanes;
      _mm_prefetch(reinterpret_cast<const char*>(ahead + at), _MM_HINT_T0);
      _mm_prefetch(reinterpret_cast<const char*>(ahead + job.b_stride + at), _MM_HINT_T0);
      const __m512i even = _mm512_maskz_loadu_epi16(live[g], row + at);
      const __m512i odd = k + 1 < job.k ? _mm512_maskz_loadu_epi16(live[g], row + job.b_stride + at)
                                        : _mm512_setzero_si512();
      const __m512i b0 = _mm512_unpacklo_epi16(even, odd);
      const __m512i b1 = _mm512_unpackhi_epi16(even, odd);
      CACHALOT_UNROLL
      for (int m = 0; m < kRows; ++m) {
        low[g][m] = add(low[g][m], a + m, b0);
        high[g][m] = add(high[g][m], a + m, b1);
      }
    }
  }
  CACHALOT_UNROLL
  for (int g = 0; g < kGroups; ++g) {
    const int at = col + g * 2 * kLanes;
    CACHALOT_UNROLL
    for (int m = 0; m < kRows; ++m) {
      if (at < job.cols) store(job, m, at, _mm512_permutex2var_ps(low[g][m], first, high[g][m]));
      if (at + kLanes < job.cols) {
        store(job, m, at + kLanes, _mm512_permutex2var_ps(low[g][m], second, high[g][m]));
      }
    }
  }
}

template <int kRows>
void across(const DirectJob& job) {
  constexpr int kGroups = kRows <= 2 ? 4 : kRows <= 4 ? 2 : 1;
  for (int col = 0; col < job.cols; col += kGroups * 2 * kLanes) {
    across_columns<kRows, kGroups>(job, col);
  }
}

// One panel of a packed B, kVecs vectors wide: one stream, fetched into the second cache.
template <int kRows, int kVecs>
void packed_panel(const DirectJob& job, int col, const std::uint32_t* b,
                  const PanelStream& stream) {
  const std::uint32_t* a = job.a;
  const int steps = (job.k + 1) / 2;
  __m512 sums[kRows][kVecs];
  CACHALOT_UNROLL
  for (int m = 0; m < kRows; ++m) {
    CACHALOT_UNROLL
    for (int v = 0; v < kVecs; ++v) sums[m][v] = _mm512_setzero_ps();
  }
  for (int s = 0; s < steps; ++s, a += kRows, b += kVecs * kLanes) {
    const char* ahead = stream.ahead(b);
    CACHALOT_UNROLL
    for (int v = 0; v < kVecs; ++v) {
      _mm_prefetch(ahead + v * Touch::kLine, _MM_HINT_T1);
      const __m512i word = _mm512_loadu_si512(b + v * kLanes);
      CACHALOT_UNROLL
      for (int m = 0; m < kRows; ++m) sums[m][v] = add(sums[m][v], a + m, word);
    }
  }
  CACHALOT_UNROLL
  for (int m = 0; m < kRows; ++m) {
    CACHALOT_UNROLL
    for (int v = 0; v < kVecs; ++v) store(job, m, col + v * kLanes, sums[m][v]);
  }
}

template <int kRows>
void packed(const DirectJob& job) {
  const std::ptrdiff_t steps = (job.k + 1) / 2;
  const std::uint32_t* b = job.packed;
  const int padded = (job.cols + kLanes - 1) / kLanes * kLanes;
  const PanelStream stream(b, b + steps * padded, job.packed_next);
  for (int col = 0; col < job.cols; col += kGemmVecs * kLanes) {
    if (job.cols - col > kLanes) {
      packed_panel<kRows, kGemmVecs>(job, col, b, stream);
    } else {
      packed_panel<kRows, 1>(job, col, b, stream);
    }
    b += steps * kGemmVecs * kLanes;
  }
}

template <int kRows>
void one(const DirectJob& job) {
  if (job.packed != nullptr) return packed<kRows>(job);
  job.trans_b ? along<kRows>(job) : across<kRows>(job);
}

using DirectFn = void (*)(const DirectJob&);
template <std::size_t... kI>
constexpr std::array<DirectFn, sizeof...(kI)> by_rows(std::index_sequence<kI...>) {
  return {one<static_cast<int>(kI) + 1>...};
}

}  // namespace

void gemm_direct_pairs(const DirectJob& job) {
  if (job.steps != Steps::kPair) return avx512::gemm_direct(job);
  static constexpr auto kFns = by_rows(std::make_index_sequence<kDirectRowsLimit>());
  kFns[static_cast<std::size_t>(job.rows - 1)](job);
}

}  // namespace cachalot::cpu::avx512bf16
CACHALOT_END_TARGET
#endif
