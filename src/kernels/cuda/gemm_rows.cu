// Few rows of A against weights [N, K] of floats or bf16 (decoding): rows_kernel.cuh.
#include <algorithm>

#include "kernels/cuda/rows_kernel.cuh"

namespace cachalot::cuda {

bool few_rows(Precision precision, const Gemm& g) noexcept {
  // Bf16 products of both types; of float precision where products of bf16 numbers are exact.
  const bool exact = g.a.dtype == DType::kBF16 && g.b.dtype == DType::kBF16;
  return (precision == Precision::kBF16 || exact) && !g.trans_a && g.trans_b && g.m() <= 32;
}

void gemm_rows(const Context& ctx, Precision, std::span<const Gemm> problems) {
  std::vector<RowsJob> jobs[2][2];  // [float weights][float x]
  std::vector<MatRef> xs;
  int most = 0;
  for (const Gemm& g : problems) {
    xs.push_back(g.a);
    most = std::max(most, g.m());
  }
  if (most > 8) {
    std::vector<MatRef*> floats;
    for (MatRef& x : xs) floats.push_back(&x);
    convert_operands(ctx, DType::kBF16, floats);
  }
  for (std::size_t i = 0; i < problems.size(); ++i) {
    const Gemm& g = problems[i];
    const MatRef& x = xs[i];
    RowsJob job{};
    const std::size_t size = size_of(g.b.dtype);
    job.x = x.data;
    job.x_stride = x.stride;
    job.w = static_cast<const std::uint8_t*>(g.b.data);
    job.w_stride = g.b.stride * static_cast<std::ptrdiff_t>(size);
    job.y = g.c.data;
    job.y_stride = g.c.stride;
    if (g.c_bf16.rows > 0) {
      job.y_bf16 = reinterpret_cast<__nv_bfloat16*>(g.c_bf16.data);
      job.y_stride = g.c_bf16.stride;
    }
    job.m = g.m();
    job.n = g.n();
    job.k = g.k();
    job.w_vectors = in_vectors(g.b.data, g.b.stride, size);
    job.x_vectors = in_vectors(x.data, x.stride, size_of(x.dtype));
    job.accumulate = g.accumulate;
    jobs[g.b.dtype == DType::kF32][x.dtype == DType::kF32].push_back(job);
  }
  for (const bool x_float : {false, true}) {
    launch_rows<Bf16Rows>(ctx, jobs[0][x_float], x_float);
    launch_rows<FloatRows>(ctx, jobs[1][x_float], x_float);
  }
}

}  // namespace cachalot::cuda
