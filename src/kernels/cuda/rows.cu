#include "kernels/cuda/launch_early.cuh"
#include "kernels/cuda/ops.h"

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

// A block per row, a thread per pair.
__global__ void __launch_bounds__(kThreads) rotate_heads_kernel(const RotateHeads a) {
  after_those_before();
  const CopyHeads& c = a.copy;
  const std::int64_t i = blockIdx.x;
  const int pairs = c.cols / 2;
  for (int at = static_cast<int>(threadIdx.x); at < c.heads * pairs; at += kThreads) {
    const int h = at / pairs, j = at % pairs;
    const float* x = c.x.row(i) + h * c.x_stride + c.x_offset + 2 * j;
    float* out = c.out.row(i) + h * c.out_stride + c.out_offset + 2 * j;
    const float x0 = x[0], x1 = x[1], cos = a.cos.row(i)[j], sin = a.sin.row(i)[j];
    out[0] = x0 * cos - x1 * sin;
    out[1] = x0 * sin + x1 * cos;
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

void rotate_heads(const Context& ctx, const RotateHeads& a) {
  if (a.copy.x.empty() || a.copy.cols == 0) return;
  launch_early(ctx, "rotate_heads", rotate_heads_kernel, dim3(static_cast<unsigned>(a.copy.x.rows)),
               dim3(kThreads), 0, a);
}

}  // namespace cachalot::cuda
