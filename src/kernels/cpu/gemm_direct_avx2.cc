#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "kernels/cpu/gemm_avx2.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/transpose_avx2.h"
#include "kernels/cpu/vec_avx2.h"

// Few rows (decoding), as in gemm_direct_avx512.cc: B is read once, where it lies; the sums keep
// the order of the contract, one accumulator per element.

#ifdef CACHALOT_X86
CACHALOT_BEGIN_TARGET(CACHALOT_AVX2)
namespace cachalot::cpu::avx2 {

namespace {

constexpr int kVector = static_cast<int>(kLanes);
constexpr int kLine = 64;
constexpr int kLineParts = 2;  // of a vector each
// Rows of B that lie side by side are fetched in the order of memory, a block of them before its
// use, unless that is more than half of a second cache keeps; then each by itself, as many bytes
// before its use as one core reads in 100 ns.
constexpr std::ptrdiff_t kNearBlock = 256 << 10;
constexpr std::ptrdiff_t kAhead = 1024;
constexpr int kRowsAhead = 16;  // of a strip of columns

// Two vectors of columns hide that a sum waits for the one before it; more rows than four leave no
// registers for that. Where they lie side by side, as many as there are registers for: whole lines.
constexpr int columns_along(int rows) { return rows <= 4 ? 2 : 1; }
constexpr int columns_across(int rows) { return rows <= 4 ? 8 / rows : 1; }

template <int kRows>
struct Sums {
  __m256 acc[kRows];

  inline void zero() {
    CACHALOT_UNROLL
    for (int m = 0; m < kRows; ++m) acc[m] = _mm256_setzero_ps();
  }
  inline void step(const float* a, __m256 b) {
    CACHALOT_UNROLL
    for (int m = 0; m < kRows; ++m) acc[m] = _mm256_fmadd_ps(_mm256_broadcast_ss(a + m), b, acc[m]);
  }
  inline void store(const DirectJob& job, int col) const {
    const int there = job.cols - col;
    const auto to = [&](auto live) {
      for (int m = 0; m < kRows; ++m) {
        float* c = job.c + m * job.c_stride + col;
        avx2::store(c, job.accumulate ? load(c, live) + acc[m] : acc[m], live);
      }
    };
    if (there >= kVector) return to(All{});
    if (there > 0) to(First(first_lanes(there)));
  }
};

// The element of k that a step takes.
template <Steps kSteps>
constexpr int element(int step) {
  return kSteps == Steps::kFloat ? step : step ^ 1;
}

// The vector of a step, of 32 bytes of each of 8 rows, transposed.
template <Steps kSteps>
inline __m256 vector_of(int step, const __m256 (&v)[8], const float* /*kind*/) {
  const __m256 b = v[element<kSteps>(step)];
  return kSteps == Steps::kFloat ? b : widen_bf16(narrow_to_bf16(b));
}
template <Steps kSteps>
inline __m256 vector_of(int step, const __m256 (&v)[8], const Bf16* /*kind*/) {
  const __m256i pair = _mm256_castps_si256(v[step / 2]);
  if (element<kSteps>(step) % 2 == 0) return _mm256_castsi256_ps(_mm256_slli_epi32(pair, 16));
  return _mm256_castsi256_ps(
      _mm256_and_si256(pair, _mm256_set1_epi32(static_cast<int>(0xFFFF0000u))));
}

// What to fetch while a block of rows is read, a line of each at a time.
class Ahead {
 public:
  Ahead(const void* block, std::ptrdiff_t stride, int rows) {
    const std::ptrdiff_t bytes = stride * rows;
    const bool near = bytes <= kNearBlock;
    at_ = static_cast<const char*>(block) + (near ? bytes : kAhead);
    step_ = near ? kLine : stride;
    back_ = near ? 0 : kLine - bytes;
  }
  [[gnu::always_inline]] inline void fetch() {
    _mm_prefetch(at_, _MM_HINT_T1);
    at_ += step_;
  }
  [[gnu::always_inline]] inline void next_column() { at_ += back_; }

 private:
  const char* at_;
  std::ptrdiff_t step_, back_;
};

// B is [N, K]: 8 of its rows, or twice 8, a line of each at a time (rows that lie 4 KiB apart share
// eight places of the first cache), 32 bytes of each transposed in registers.
template <Steps kSteps, int kRows, class T>
void direct_along(const DirectJob& job) {
  constexpr int kElements = 32 / static_cast<int>(sizeof(T));
  constexpr int kLineElements = kLineParts * kElements;
  constexpr int kColumns = columns_along(kRows);
  const auto* a = reinterpret_cast<const float*>(job.a);
  for (int col = 0; col < job.cols; col += kColumns * kVector) {
    const T* src = static_cast<const T*>(job.b) + col * job.b_stride;
    const int lines = job.cols - col;
    Sums<kRows> sums[kColumns];
    CACHALOT_UNROLL
    for (int g = 0; g < kColumns; ++g) sums[g].zero();
    const int full = lines >= kColumns * kVector ? job.k / kLineElements * kLineElements : 0;
    Ahead ahead(src, job.b_stride * static_cast<std::ptrdiff_t>(sizeof(T)), kColumns * kVector);
    for (int i = 0; i < full; i += kLineElements) {
      CACHALOT_UNROLL
      for (int g = 0; g < kColumns; ++g) {
        CACHALOT_UNROLL
        for (int part = 0; part < kLineParts; ++part) {
          const int at = i + part * kElements;
          __m256 v[8];
          CACHALOT_UNROLL
          for (int r = 0; r < kVector; ++r) {
            if (part == 0) ahead.fetch();
            v[r] = _mm256_loadu_ps(
                reinterpret_cast<const float*>(src + (g * kVector + r) * job.b_stride + at));
          }
          transpose_8x8(v);
          CACHALOT_UNROLL
          for (int s = 0; s < kElements; ++s) {
            sums[g].step(a + (at + s) * kRows, vector_of<kSteps>(s, v, src));
          }
        }
      }
      ahead.next_column();
    }
    for (int i = full; i < job.k; i += kElements) {
      const int n = std::min(kElements, job.k - i);
      // Behind the end are zeros; the odd one of the last pair is one of them.
      const int steps = kSteps == Steps::kFloat ? n : (n + 1) / 2 * 2;
      for (int g = 0; g < kColumns; ++g) {
        __m256 v[8];
        for (int r = 0; r < 8; ++r) {
          alignas(32) T tail[kElements] = {};
          if (g * kVector + r < lines) {
            std::memcpy(tail, src + (g * kVector + r) * job.b_stride + i,
                        static_cast<std::size_t>(n) * sizeof(T));
          }
          v[r] = _mm256_load_ps(reinterpret_cast<const float*>(tail));
        }
        transpose_8x8(v);
        for (int s = 0; s < steps; ++s) {
          sums[g].step(a + (i + s) * kRows, vector_of<kSteps>(s, v, src));
        }
      }
    }
    for (int g = 0; g < kColumns; ++g) sums[g].store(job, col + g * kVector);
  }
}

template <Steps kSteps, class Live>
inline __m256 load_step(const float* p, Live live) {
  const __m256 x = load(p, live);
  return kSteps == Steps::kFloat ? x : widen_bf16(narrow_to_bf16(x));
}
template <Steps kSteps, class Live>
inline __m256 load_step(const Bf16* p, Live live) {
  return load_bf16(p, live);
}

// B is [K, N]: a step is a contiguous piece of a row.
template <Steps kSteps, int kRows, int kGroups, class T, class Live>
void across_columns(const DirectJob& job, int col, Live live) {
  const auto* a = reinterpret_cast<const float*>(job.a);
  const T* src = static_cast<const T*>(job.b) + col;
  Sums<kRows> sums[kGroups];
  CACHALOT_UNROLL
  for (int g = 0; g < kGroups; ++g) sums[g].zero();
  const int steps = kSteps == Steps::kFloat ? job.k : (job.k + 1) / 2 * 2;
  constexpr int kBytes = kGroups * kVector * static_cast<int>(sizeof(T));
  for (int s = 0; s < steps; ++s) {
    const int k = element<kSteps>(s);
    const T* row = src + k * job.b_stride;
    const auto* ahead = reinterpret_cast<const char*>(row + kRowsAhead * job.b_stride);
    if (s + kRowsAhead >= steps) {  // behind the last row the next columns begin
      ahead += kBytes - job.k * job.b_stride * static_cast<std::ptrdiff_t>(sizeof(T));
    }
    CACHALOT_UNROLL
    for (int line = 0; line < kBytes; line += kLine) _mm_prefetch(ahead + line, _MM_HINT_T0);
    CACHALOT_UNROLL
    for (int g = 0; g < kGroups; ++g) {
      sums[g].step(a + std::ptrdiff_t{s} * kRows,
                   k < job.k ? load_step<kSteps>(row + g * kVector, live) : _mm256_setzero_ps());
    }
  }
  CACHALOT_UNROLL
  for (int g = 0; g < kGroups; ++g) sums[g].store(job, col + g * kVector);
}

template <Steps kSteps, int kRows, class T>
void direct_across(const DirectJob& job) {
  constexpr int kGroups = columns_across(kRows);
  int col = 0;
  for (; col + kGroups * kVector <= job.cols; col += kGroups * kVector) {
    across_columns<kSteps, kRows, kGroups, T>(job, col, All{});
  }
  for (; col < job.cols; col += kVector) {
    const int there = job.cols - col;
    if (there >= kVector) {
      across_columns<kSteps, kRows, 1, T>(job, col, All{});
    } else {
      across_columns<kSteps, kRows, 1, T>(job, col, First(first_lanes(there)));
    }
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
  static constexpr auto kFns = by_rows<kSteps, T>(std::make_index_sequence<kGemmRows>());
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

}  // namespace cachalot::cpu::avx2
CACHALOT_END_TARGET
#endif
