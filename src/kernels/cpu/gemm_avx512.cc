#include "kernels/cpu/gemm_avx512.h"

#include <array>
#include <utility>

#include "kernels/cpu/avx512.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/transpose_avx512.h"

#ifdef CACHALOT_X86
CACHALOT_BEGIN_TARGET(CACHALOT_AVX512)
namespace cachalot::cpu::avx512 {

namespace {

constexpr int kLanes = 16;
// Floats of B fetched ahead, from L2 to L1: 8 steps, about 110 cycles.
constexpr int kAhead = 8 * 32;

// 14 x 32: per step 2 loads and 14 broadcasts feed 28 multiply-adds, 14 cycles on two units.
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
  const auto* a = reinterpret_cast<const float*>(job.a);
  const auto* b = reinterpret_cast<const float*>(job.b);
  const char* next = static_cast<const char*>(job.next);
  for (std::int64_t s = job.steps; s > 0; --s) {
    _mm_prefetch(reinterpret_cast<const char*>(b + kAhead), _MM_HINT_T0);
    if (kVecs > 1) _mm_prefetch(reinterpret_cast<const char*>(b + kAhead + kLanes), _MM_HINT_T0);
    _mm_prefetch(next, _MM_HINT_T1);
    next += job.next_step;
    __m512 bv[kVecs];
    CACHALOT_UNROLL
    for (int j = 0; j < kVecs; ++j) bv[j] = _mm512_loadu_ps(b + j * kLanes);
    CACHALOT_UNROLL
    for (int i = 0; i < kRows; ++i) {
      const __m512 av = _mm512_set1_ps(a[i]);
      CACHALOT_UNROLL
      for (int j = 0; j < kVecs; ++j) acc[i][j] = _mm512_fmadd_ps(av, bv[j], acc[i][j]);
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

}  // namespace

void gemm_tile(const TileJob& job) {
  static constexpr auto kOne = tiles<1>(std::make_index_sequence<kGemmRows>());
  static constexpr auto kTwo = tiles<2>(std::make_index_sequence<kGemmRows>());
  const auto row = static_cast<std::size_t>(job.rows - 1);
  (job.vecs == 1 ? kOne : kTwo)[row](job);
}

void gemm_store(const float* tile, std::ptrdiff_t stride, int rows, int cols, bool accumulate,
                float* c, std::ptrdiff_t c_stride) {
  for (int i = 0; i < rows; ++i, tile += stride, c += c_stride) {
    for (int j = 0; j < cols; j += kLanes) {
      const __mmask16 live = first_lanes(cols - j);
      __m512 x = _mm512_maskz_loadu_ps(live, tile + j);
      if (accumulate) x = _mm512_add_ps(_mm512_maskz_loadu_ps(live, c + j), x);
      _mm512_mask_storeu_ps(c + j, live, x);
    }
  }
}

void gemm(const Context& ctx, Precision precision, std::span<const Gemm> problems) {
  static constexpr GemmIsa kIsa = {.lanes = kLanes,
                                   .max_rows = kGemmRows,
                                   .max_vecs = kGemmVecs,
                                   .direct_rows = kDirectRowsLimit,
                                   .bf16 = Steps::kWide,
                                   .flush_denormals_in_bf16 = false,
                                   .pack = gemm_pack,
                                   .tile = gemm_tile,
                                   .direct = gemm_direct,
                                   .store = gemm_store};
  run_gemm(kIsa, ctx, precision, problems);
}

}  // namespace cachalot::cpu::avx512
CACHALOT_END_TARGET
#endif
