#include "kernels/cuda/ops.h"
#include "kernels/cuda/stream.cuh"

namespace cachalot::cuda {

namespace {

constexpr int kThreads = 256;

__global__ void scale_rows_kernel(MatView<float> x, const float* weight) {
  const std::int64_t i = blockIdx.x;
  const float w = weight[i];
  for (int j = static_cast<int>(threadIdx.x); j < x.cols; j += kThreads) x.row(i)[j] *= w;
}

__global__ void copy_heads_kernel(CopyHeads a) {
  const std::int64_t i = blockIdx.x;
  for (int at = static_cast<int>(threadIdx.x); at < a.heads * a.cols; at += kThreads) {
    const int h = at / a.cols, j = at % a.cols;
    a.out.row(i)[h * a.out_stride + a.out_offset + j] = a.x.row(i)[h * a.x_stride + a.x_offset + j];
  }
}

}  // namespace

void scale_rows(const Context& ctx, const ScaleRows& a) {
  if (a.x.empty()) return;
  scale_rows_kernel<<<a.x.rows, kThreads, 0, stream_of(ctx)>>>(a.x, a.weight.data());
  check_launch("scale_rows");
}

void copy_heads(const Context& ctx, const CopyHeads& a) {
  if (a.x.empty() || a.cols == 0) return;
  copy_heads_kernel<<<a.x.rows, kThreads, 0, stream_of(ctx)>>>(a);
  check_launch("copy_heads");
}

}  // namespace cachalot::cuda
