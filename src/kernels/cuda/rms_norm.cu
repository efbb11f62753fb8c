// RMSNorm and its gradient: every row is read once and lies in registers in between.
#include "kernels/cuda/ops.h"
#include "kernels/cuda/row_ops.cuh"

namespace cachalot::cuda {

namespace {

constexpr int kV = 4;          // elements of a pack
constexpr int kThreads = 256;  // of a block, at most
constexpr int kMostPacks = 8;  // of a thread: rows up to 8192 columns stay in registers

// A block per row, Packs packs per thread.
template <int Packs>
__global__ void __launch_bounds__(kThreads)
    rms_norm_kernel(MatView<const float> x, const float* weight, float eps, MatView<float> y,
                    float* rstds) {
  after_those_before();
  __shared__ float room[32];
  const int row = static_cast<int>(blockIdx.x), packs = x.cols / kV;
  const int first = static_cast<int>(threadIdx.x), step = static_cast<int>(blockDim.x);
  Floats<kV> in[Packs];
  float sum = 0;
#pragma unroll
  for (int k = 0; k < Packs; ++k) {
    const int p = first + k * step;
    in[k] = p < packs ? load<kV>(x.row(row) + kV * p) : Floats<kV>{};
  }
#pragma unroll
  for (int k = 0; k < Packs; ++k) {
#pragma unroll
    for (int i = 0; i < kV; ++i) sum += in[k].v[i] * in[k].v[i];
  }
  const float rstd = 1.0F / sqrtf(block_sum(sum, room) / static_cast<float>(x.cols) + eps);
  if (rstds != nullptr && first == 0) rstds[row] = rstd;
#pragma unroll
  for (int k = 0; k < Packs; ++k) {
    const int p = first + k * step;
    if (p >= packs) break;
    const auto w = load<kV>(weight + kV * p);
#pragma unroll
    for (int i = 0; i < kV; ++i) in[k].v[i] = in[k].v[i] * rstd * w.v[i];
    store<kV>(y.row(row) + kV * p, in[k]);
  }
}

__global__ void __launch_bounds__(kThreads)
    rms_norm_any_kernel(MatView<const float> x, const float* weight, float eps, MatView<float> y,
                        float* rstds) {
  after_those_before();
  __shared__ float room[32];
  const int row = static_cast<int>(blockIdx.x);
  const int first = static_cast<int>(threadIdx.x), step = static_cast<int>(blockDim.x);
  float sum = 0;
  for (int j = first; j < x.cols; j += step) sum += x.row(row)[j] * x.row(row)[j];
  const float rstd = 1.0F / sqrtf(block_sum(sum, room) / static_cast<float>(x.cols) + eps);
  if (rstds != nullptr && first == 0) rstds[row] = rstd;
  for (int j = first; j < x.cols; j += step) y.row(row)[j] = x.row(row)[j] * rstd * weight[j];
}

struct Backward {
  MatView<const float> x;
  const float* weight;
  const float* rstd;
  MatView<const float> dy;
  MatView<float> dx;
  bool add_dx;
  float* partial;  // [blocks, D] each block's part of dweight, or null
  int block_rows;
};

// A block's part of dweight, in registers where they suffice; else in shared memory, where each
// thread has its own elements all the same.
template <int Packs>
struct WeightPart {
  static constexpr bool kShared = Packs > 4;
  Floats<kV> own[kShared ? 1 : Packs] = {};
  float4* shared;  // [packs of a row]

  __device__ Floats<kV> get(int k, int p) const {
    if constexpr (!kShared) return own[k];
    return load<kV>(reinterpret_cast<const float*>(shared + p));
  }
  __device__ void set(int k, int p, const Floats<kV>& x) {
    if constexpr (kShared) {
      store<kV>(reinterpret_cast<float*>(shared + p), x);
    } else {
      own[k] = x;
    }
  }
};

__device__ void prefetch_row(const float* row, int p) {  // a thread per line of 128 bytes
  if (p % 8 == 0) asm volatile("prefetch.global.L2 [%0];" ::"l"(row + kV * p));
}

// A block takes block_rows rows, one after the other.
template <int Packs>
__global__ void __launch_bounds__(kThreads, Packs > 4 ? 2 : 1)
    rms_norm_backward_kernel(const Backward a) {
  __shared__ float room[2][32];  // two: a row's sum may be read while the next one's is written
  const int cols = a.x.cols, packs = cols / kV;
  const int first = static_cast<int>(threadIdx.x), step = static_cast<int>(blockDim.x);
  const int begin = static_cast<int>(blockIdx.x) * a.block_rows;
  const int end = min(begin + a.block_rows, a.x.rows);
  extern __shared__ float4 part_memory[];
  WeightPart<Packs> dweight;
  dweight.shared = part_memory;
#pragma unroll
  for (int k = 0; k < Packs; ++k) {
    const int p = first + k * step;
    if (p < packs) dweight.set(k, p, {});
  }
  for (int row = begin; row < end; ++row) {
    Floats<kV> x[Packs], g[Packs];
    const float rstd = a.rstd[row];
    float dot = 0;
#pragma unroll
    for (int k = 0; k < Packs; ++k) {
      const int p = first + k * step;
      x[k] = p < packs ? load<kV>(a.x.row(row) + kV * p) : Floats<kV>{};
      g[k] = p < packs ? load<kV>(a.dy.row(row) + kV * p) : Floats<kV>{};
    }
    // Wanted after this row's sum: it need not wait for memory then.
#pragma unroll
    for (int k = 0; k < Packs; ++k) {
      const int p = first + k * step;
      if (a.add_dx && p < packs) prefetch_row(a.dx.row(row), p);
    }
#pragma unroll
    for (int k = 0; k < Packs; ++k) {
      const int p = first + k * step;
      if (p >= packs) break;
      const auto w = load<kV>(a.weight + kV * p);
      auto dw = dweight.get(k, p);
#pragma unroll
      for (int i = 0; i < kV; ++i) {
        x[k].v[i] *= rstd;
        dw.v[i] += g[k].v[i] * x[k].v[i];
        g[k].v[i] *= w.v[i];
        dot += g[k].v[i] * x[k].v[i];
      }
      dweight.set(k, p, dw);
    }
    const float mean = block_sum(dot, room[row % 2]) / static_cast<float>(cols);
#pragma unroll
    for (int k = 0; k < Packs; ++k) {
      const int p = first + k * step;
      if (p >= packs) break;
      float* to = a.dx.row(row) + kV * p;
      const auto old = a.add_dx ? load<kV>(to) : Floats<kV>{};
      Floats<kV> out;
#pragma unroll
      for (int i = 0; i < kV; ++i) {
        out.v[i] = old.v[i] + rstd * (g[k].v[i] - x[k].v[i] * mean);
      }
      store<kV>(to, out);
    }
  }
  if (a.partial == nullptr) return;
#pragma unroll
  for (int k = 0; k < Packs; ++k) {
    const int p = first + k * step;
    if (p >= packs) break;
    store<kV>(a.partial + std::int64_t{cols} * blockIdx.x + kV * p, dweight.get(k, p));
  }
}

__global__ void __launch_bounds__(kThreads) rms_norm_backward_any_kernel(const Backward a) {
  __shared__ float room[2][32];
  const int cols = a.x.cols;
  const int first = static_cast<int>(threadIdx.x), step = static_cast<int>(blockDim.x);
  const int begin = static_cast<int>(blockIdx.x) * a.block_rows;
  const int end = min(begin + a.block_rows, a.x.rows);
  float* partial = a.partial == nullptr ? nullptr : a.partial + std::int64_t{cols} * blockIdx.x;
  for (int row = begin; row < end; ++row) {
    const float* x = a.x.row(row);
    const float* dy = a.dy.row(row);
    float* dx = a.dx.row(row);
    const float rstd = a.rstd[row];
    float dot = 0;
    for (int j = first; j < cols; j += step) {
      const float xhat = x[j] * rstd;
      dot += dy[j] * a.weight[j] * xhat;
      if (partial != nullptr) partial[j] = (row == begin ? 0.0F : partial[j]) + dy[j] * xhat;
    }
    const float mean = block_sum(dot, room[row % 2]) / static_cast<float>(cols);
    for (int j = first; j < cols; j += step) {
      const float d = rstd * (dy[j] * a.weight[j] - x[j] * rstd * mean);
      dx[j] = a.add_dx ? dx[j] + d : d;
    }
  }
}

// dweight += the blocks' parts: 32 columns per block, 32 threads per column.
__global__ void __launch_bounds__(1024)
    add_partials_kernel(const float* partial, int parts, int cols, float* dweight) {
  __shared__ double sums[32][33];
  const int j = static_cast<int>(blockIdx.x) * 32 + static_cast<int>(threadIdx.x);
  double sum = 0;
  if (j < cols) {
#pragma unroll 8
    for (int i = static_cast<int>(threadIdx.y); i < parts; i += 32) {
      sum += static_cast<double>(partial[std::int64_t{i} * cols + j]);
    }
  }
  sums[threadIdx.x][threadIdx.y] = sum;
  __syncthreads();
  sum = warp_sum(sums[threadIdx.y][threadIdx.x]);  // a warp has the 32 sums of one column
  const int column = static_cast<int>(blockIdx.x) * 32 + static_cast<int>(threadIdx.y);
  if (threadIdx.x == 0 && column < cols) {
    dweight[column] = static_cast<float>(static_cast<double>(dweight[column]) + sum);
  }
}

// The kernel for rows of this many packs per thread, or null: kernels[i] has 2^i.
template <class K>
K by_packs(int packs, K one, K two, K four, K eight) {
  if (packs <= 1) return one;
  if (packs <= 2) return two;
  if (packs <= 4) return four;
  return packs <= kMostPacks ? eight : nullptr;
}

}  // namespace

void rms_norm(const Context& ctx, const RmsNorm<float>& a) {
  const int rows = a.x.rows, packs = a.x.cols / kV;
  if (rows == 0) return;
  float* rstd = a.rstd.empty() ? nullptr : a.rstd.data();
  auto kernel = by_packs(ceil_div(packs, kThreads), rms_norm_kernel<1>, rms_norm_kernel<2>,
                         rms_norm_kernel<4>, rms_norm_kernel<8>);
  if (kernel != nullptr && in_packs<kV>(a.x) && in_packs<kV>(a.y) &&
      in_packs<kV>(a.weight.data(), 0, a.x.cols)) {
    launch_early(ctx, "rms_norm", kernel, dim3(static_cast<unsigned>(rows)),
                 dim3(static_cast<unsigned>(row_threads(packs))), 0, a.x, a.weight.data(), a.eps,
                 a.y, rstd);
  } else {
    launch_early(ctx, "rms_norm", rms_norm_any_kernel, dim3(static_cast<unsigned>(rows)),
                 dim3(static_cast<unsigned>(row_threads(a.x.cols))), 0, a.x, a.weight.data(), a.eps,
                 a.y, rstd);
  }
}

void rms_norm_backward(const Context& ctx, const RmsNormBackward<float>& a) {
  const int rows = a.x.rows, cols = a.x.cols, packs = cols / kV;
  if (rows == 0) return;
  // Enough blocks to fill the device twice over; their parts are a sixteenth of a row's reads.
  const int block_rows = std::clamp(ceil_div(rows, 2048), 4, 64);
  const int blocks = ceil_div(rows, block_rows);
  float* partial = nullptr;
  if (!a.dweight.empty()) {
    partial = static_cast<float*>(device_of(ctx).scratch(
        kScratchSums, static_cast<std::size_t>(blocks) * static_cast<std::size_t>(cols) * 4));
  }
  const Backward args{a.x,  a.weight.data(), a.rstd.data(), a.dy,
                      a.dx, a.add_dx,        partial,       block_rows};
  auto kernel =
      by_packs(ceil_div(packs, kThreads), rms_norm_backward_kernel<1>, rms_norm_backward_kernel<2>,
               rms_norm_backward_kernel<4>, rms_norm_backward_kernel<8>);
  if (kernel != nullptr && in_packs<kV>(a.x) && in_packs<kV>(a.dy) && in_packs<kV>(a.dx) &&
      in_packs<kV>(a.weight.data(), 0, cols)) {
    const std::size_t shared = packs > 4 * kThreads ? static_cast<std::size_t>(cols) * 4 : 0;
    kernel<<<blocks, row_threads(packs), shared, stream_of(ctx)>>>(args);
  } else {
    rms_norm_backward_any_kernel<<<blocks, row_threads(cols), 0, stream_of(ctx)>>>(args);
  }
  check_launch("rms_norm_backward");
  if (partial == nullptr) return;
  add_partials_kernel<<<ceil_div(cols, 32), dim3(32, 32), 0, stream_of(ctx)>>>(
      partial, blocks, cols, a.dweight.data());
  check_launch("rms_norm_backward's weights");
}

}  // namespace cachalot::cuda
