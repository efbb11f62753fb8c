#include <algorithm>
#include <array>
#include <chrono>
#include <utility>

#include "kernels/cpu/avx512bf16.h"
#include "kernels/cpu/gemm_avx512.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/transpose_avx512.h"

#ifdef CACHALOT_X86
CACHALOT_BEGIN_TARGET(CACHALOT_AVX512BF16)
namespace cachalot::cpu::avx512bf16 {

namespace {

using avx512::kGemmRows;
using avx512::kGemmVecs;
constexpr int kLanes = 16;
constexpr int kAhead = 8 * 32;  // words of B fetched ahead, as in the float kernel

// The float kernel's tile, two elements of k to a step.
template <int kRows, int kVecs>
void tile_kernel(const TileJob& job) {
  __m512 acc[kRows][kVecs];
  CACHALOT_UNROLL
  for (int i = 0; i < kRows; ++i) {
    CACHALOT_UNROLL
    for (int j = 0; j < kVecs; ++j) {
      acc[i][j] =
          job.load ? _mm512_loadu_ps(job.c + i * job.c_stride + j * kLanes) : _mm512_setzero_ps();
    }
  }
  const std::uint32_t* a = job.a;
  const std::uint32_t* b = job.b;
  const char* next = static_cast<const char*>(job.next);
  for (std::int64_t s = job.steps; s > 0; --s) {
    _mm_prefetch(reinterpret_cast<const char*>(b + kAhead), _MM_HINT_T0);
    if (kVecs > 1) _mm_prefetch(reinterpret_cast<const char*>(b + kAhead + kLanes), _MM_HINT_T0);
    _mm_prefetch(next, _MM_HINT_T1);
    next += job.next_step;
    __m512bh bv[kVecs];
    CACHALOT_UNROLL
    for (int j = 0; j < kVecs; ++j) {
      bv[j] = reinterpret_cast<__m512bh>(_mm512_loadu_si512(b + j * kLanes));
    }
    CACHALOT_UNROLL
    for (int i = 0; i < kRows; ++i) {
      const auto av = reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(a[i])));
      CACHALOT_UNROLL
      for (int j = 0; j < kVecs; ++j) acc[i][j] = _mm512_dpbf16_ps(acc[i][j], av, bv[j]);
    }
    a += kRows;
    b += kVecs * kLanes;
  }
  CACHALOT_UNROLL
  for (int i = 0; i < kRows; ++i) {
    CACHALOT_UNROLL
    for (int j = 0; j < kVecs; ++j) {
      _mm512_storeu_ps(job.c + i * job.c_stride + j * kLanes, acc[i][j]);
    }
  }
}

using TileFn = void (*)(const TileJob&);
template <int kVecs, std::size_t... kI>
constexpr std::array<TileFn, sizeof...(kI)> tiles(std::index_sequence<kI...>) {
  return {tile_kernel<static_cast<int>(kI) + 1, kVecs>...};
}

void tile(const TileJob& job) {
  static constexpr auto kOne = tiles<1>(std::make_index_sequence<kGemmRows>());
  static constexpr auto kTwo = tiles<2>(std::make_index_sequence<kGemmRows>());
  const auto row = static_cast<std::size_t>(job.rows - 1);
  (job.vecs == 1 ? kOne : kTwo)[row](job);
}

// One step of each kind, on the same 12 accumulators: which does more per second here?
template <bool kPairs>
double rate() {
  __m512 acc[12];
  CACHALOT_UNROLL
  for (int i = 0; i < 12; ++i) acc[i] = _mm512_set1_ps(static_cast<float>(i));
  const __m512 x = _mm512_set1_ps(0.5f);
  const auto begin = std::chrono::steady_clock::now();
  for (int n = 0; n < 400; ++n) {
    CACHALOT_UNROLL
    for (int i = 0; i < 12; ++i) {
      acc[i] = kPairs ? _mm512_dpbf16_ps(acc[i], reinterpret_cast<__m512bh>(x),
                                         reinterpret_cast<__m512bh>(x))
                      : _mm512_fmadd_ps(x, x, acc[i]);
    }
    __asm__ volatile("" : : "v"(acc[0]));
  }
  const std::chrono::duration<double> time = std::chrono::steady_clock::now() - begin;
  __m512 sum = acc[0];
  CACHALOT_UNROLL
  for (int i = 1; i < 12; ++i) sum = _mm512_add_ps(sum, acc[i]);
  __asm__ volatile("" : : "v"(sum));
  return (kPairs ? 2.0 : 1.0) / time.count();
}

}  // namespace

bool pairs_are_faster() {
  static const bool faster = [] {
    double pairs = 0;
    double floats = 0;
    for (int i = 0; i < 5; ++i) {
      pairs = std::max(pairs, rate<true>());
      floats = std::max(floats, rate<false>());
    }
    return pairs > 1.1 * floats;
  }();
  return faster;
}

void gemm_floats(const Context& ctx, Precision precision, std::span<const Gemm> problems) {
  static constexpr GemmIsa kIsa = {.lanes = kLanes,
                                   .max_rows = kGemmRows,
                                   .max_vecs = kGemmVecs,
                                   .direct_rows = kDirectRowsLimit,
                                   .bf16 = Steps::kWide,
                                   .flush_denormals_in_bf16 = true,
                                   .pack = avx512::gemm_pack,
                                   .tile = avx512::gemm_tile,
                                   .direct = avx512::gemm_direct,
                                   .store = avx512::gemm_store};
  run_gemm(kIsa, ctx, precision, problems);
}

void gemm_pairs(const Context& ctx, std::span<const Gemm> problems) {
  static constexpr GemmIsa kIsa = {.lanes = kLanes,
                                   .max_rows = kGemmRows,
                                   .max_vecs = kGemmVecs,
                                   .direct_rows = kDirectRowsLimit,
                                   .bf16 = Steps::kPair,
                                   .flush_denormals_in_bf16 = true,
                                   .pack = avx512::gemm_pack,
                                   .tile = tile,
                                   .direct = avx512::gemm_direct,
                                   .store = avx512::gemm_store};
  run_gemm(kIsa, ctx, Precision::kBF16, problems);
}

void gemm(const Context& ctx, Precision precision, std::span<const Gemm> problems) {
  if (precision == Precision::kBF16 && pairs_are_faster()) {
    gemm_pairs(ctx, problems);
  } else {
    gemm_floats(ctx, precision, problems);
  }
}

}  // namespace cachalot::cpu::avx512bf16
CACHALOT_END_TARGET
#endif
