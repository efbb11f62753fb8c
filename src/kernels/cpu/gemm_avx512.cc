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
using Words = __m512;

inline Words row_words(const std::uint32_t* p) {
  return _mm512_set1_ps(*reinterpret_cast<const float*>(p));
}
inline Words column_words(const std::uint32_t* p) { return _mm512_loadu_ps(p); }
inline __m512 multiply_add(__m512 sum, Words a, Words b) { return _mm512_fmadd_ps(a, b, sum); }

#include "kernels/cpu/gemm_tile_avx512.inc"

}  // namespace

void gemm_tile(const TileJob& job) { run_tile(job); }
void gemm_scaled_tile(const TileJob& job) { run_scaled_tile(job); }

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

static constexpr GemmIsa kIsa = {.lanes = kLanes,
                                 .max_rows = kGemmRows,
                                 .max_vecs = kGemmVecs,
                                 .direct_rows = kDirectRowsLimit,
                                 .bf16 = Steps::kWide,
                                 .flush_denormals_in_bf16 = false,
                                 .pack = gemm_pack,
                                 .tile = gemm_tile,
                                 .scaled_tile = gemm_scaled_tile,
                                 .direct = gemm_direct,
                                 .store = gemm_store,
                                 .store_bf16 = gemm_store_bf16};

void gemm(const Context& ctx, Precision precision, std::span<const Gemm> problems) {
  run_gemm(kIsa, ctx, precision, problems);
}

void pack_b(const Context& ctx, Precision precision, std::span<const PackB> jobs) {
  run_pack_b(kIsa, ctx, precision, jobs);
}

void gemm_fp8(const Context& ctx, std::span<const Fp8Gemm> problems) {
  run_gemm_fp8(kIsa, ctx, problems);
}

}  // namespace cachalot::cpu::avx512
CACHALOT_END_TARGET
#endif
