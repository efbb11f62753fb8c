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
using Words = __m512bh;  // a word: a pair

inline Words row_words(const std::uint32_t* p) {
  return reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(*p)));
}
inline Words column_words(const std::uint32_t* p) {
  return reinterpret_cast<__m512bh>(_mm512_loadu_si512(p));
}
inline __m512 multiply_add(__m512 sum, Words a, Words b) { return _mm512_dpbf16_ps(sum, a, b); }

#include "kernels/cpu/gemm_tile_avx512.inc"

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

bool pairs_are_faster() noexcept {
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

static constexpr GemmIsa kFloats = {.lanes = kLanes,
                                    .max_rows = kGemmRows,
                                    .max_vecs = kGemmVecs,
                                    .direct_rows = kDirectRowsLimit,
                                    .bf16 = Steps::kWide,
                                    .flush_denormals_in_bf16 = true,
                                    .pack = gemm_pack,
                                    .tile = avx512::gemm_tile,
                                    .scaled_tile = avx512::gemm_scaled_tile,
                                    .direct = avx512::gemm_direct,
                                    .store = avx512::gemm_store,
                                    .store_bf16 = avx512::gemm_store_bf16};
static constexpr GemmIsa kPairs = {.lanes = kLanes,
                                   .max_rows = kGemmRows,
                                   .max_vecs = kGemmVecs,
                                   .direct_rows = kDirectRowsLimit,
                                   .bf16 = Steps::kPair,
                                   .direct_takes_pairs = true,
                                   .direct_takes_packed = true,
                                   .flush_denormals_in_bf16 = true,
                                   .pack = gemm_pack,
                                   .tile = run_tile,
                                   .scaled_tile = run_scaled_tile,
                                   .direct = gemm_direct_pairs,
                                   .store = avx512::gemm_store,
                                   .store_bf16 = gemm_store_bf16};

void gemm_floats(const Context& ctx, Precision precision, std::span<const Gemm> problems) {
  run_gemm(kFloats, ctx, precision, problems);
}
void gemm_pairs(const Context& ctx, std::span<const Gemm> problems) {
  run_gemm(kPairs, ctx, Precision::kBF16, problems);
}
void gemm_fp8_floats(const Context& ctx, std::span<const Fp8Gemm> problems) {
  run_gemm_fp8(kFloats, ctx, problems);
}
void gemm_fp8_pairs(const Context& ctx, std::span<const Fp8Gemm> problems) {
  run_gemm_fp8(kPairs, ctx, problems);
}

void gemm(const Context& ctx, Precision precision, std::span<const Gemm> problems) {
  if (precision == Precision::kBF16 && pairs_are_faster()) {
    gemm_pairs(ctx, problems);
  } else {
    gemm_floats(ctx, precision, problems);
  }
}

void pack_b(const Context& ctx, Precision precision, std::span<const PackB> jobs) {
  run_pack_b(precision == Precision::kBF16 && pairs_are_faster() ? kPairs : kFloats, ctx, precision,
             jobs);
}

void gemm_fp8(const Context& ctx, std::span<const Fp8Gemm> problems) {
  if (pairs_are_faster()) {
    gemm_fp8_pairs(ctx, problems);
  } else {
    gemm_fp8_floats(ctx, problems);
  }
}

}  // namespace cachalot::cpu::avx512bf16
CACHALOT_END_TARGET
#endif
