// Few rows of A against weights [N, K] in float precision (the gate of a decoding pass; everything,
// where a model runs in floats): each block takes some columns and some rows, its threads all of K.
//
// Order of a sum: a thread's every 512th group of four, lanes by a tree, warps in order; the same
// for every shape, so that a row has the same bits however many there are.
#include <algorithm>
#include <vector>

#include "kernels/cuda/gemm_parts.cuh"

namespace cachalot::cuda {

namespace {

constexpr int kThreads = 128, kWarps = kThreads / 32;

struct DotsJob {
  const void *a, *b;
  float* c;
  std::int64_t a_stride, b_stride, c_stride;
  int m, n, k;
  int first;        // block
  int row_blocks;   // side by side for the same columns
  bool a_float, b_float, a_vectors, b_vectors, accumulate;
};

// Elements [at, at + 4) of a row, zeros behind its end.
__device__ float4 four(const void* base, std::int64_t at, int valid, bool is_float, bool vectors) {
  if (vectors && valid >= 4) {
    if (is_float) return *reinterpret_cast<const float4*>(static_cast<const float*>(base) + at);
    const uint2 p = *reinterpret_cast<const uint2*>(static_cast<const std::uint16_t*>(base) + at);
    return {low_bf16(p.x), high_bf16(p.x), low_bf16(p.y), high_bf16(p.y)};
  }
  float v[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    v[i] = i >= valid ? 0.0f
           : is_float ? static_cast<const float*>(base)[at + i]
                      : low_bf16(static_cast<const std::uint16_t*>(base)[at + i]);
  }
  return {v[0], v[1], v[2], v[3]};
}

template <int kRows, int kCols>
__global__ void __launch_bounds__(kThreads) dots_kernel(const DotsJob* jobs, int count) {
  __shared__ float sums[kWarps][kRows * kCols];
  const DotsJob job = jobs[job_of_block(jobs, count, static_cast<int>(blockIdx.x))];
  const int block = static_cast<int>(blockIdx.x) - job.first;
  const int row0 = block % job.row_blocks * kRows, col0 = block / job.row_blocks * kCols;
  const int rows = min(kRows, job.m - row0), cols = min(kCols, job.n - col0);
  float sum[kRows][kCols] = {};
  for (int k = 4 * static_cast<int>(threadIdx.x); k < job.k; k += 4 * kThreads) {
    const int valid = job.k - k;
    float4 b[kCols];
#pragma unroll
    for (int j = 0; j < kCols; ++j) {
      const int col = col0 + min(j, cols - 1);
      b[j] = four(job.b, col * job.b_stride + k, valid, job.b_float, job.b_vectors);
    }
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      if (i >= rows) break;
      const float4 a =
          four(job.a, (row0 + i) * job.a_stride + k, valid, job.a_float, job.a_vectors);
#pragma unroll
      for (int j = 0; j < kCols; ++j) {
        sum[i][j] = fmaf(a.x, b[j].x, sum[i][j]);
        sum[i][j] = fmaf(a.y, b[j].y, sum[i][j]);
        sum[i][j] = fmaf(a.z, b[j].z, sum[i][j]);
        sum[i][j] = fmaf(a.w, b[j].w, sum[i][j]);
      }
    }
  }
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    if (i >= rows) break;
#pragma unroll
    for (int j = 0; j < kCols; ++j) {
      float x = sum[i][j];
#pragma unroll
      for (int d = 16; d > 0; d /= 2) x += __shfl_xor_sync(0xFFFFFFFFu, x, d);
      if (lane == 0) sums[warp][i * kCols + j] = x;
    }
  }
  __syncthreads();
  for (int at = static_cast<int>(threadIdx.x); at < kRows * kCols; at += kThreads) {
    const int i = at / kCols, j = at % kCols;
    if (i >= rows || j >= cols) continue;
    float x = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) x += sums[w][at];
    float& c = job.c[(row0 + i) * job.c_stride + col0 + j];
    c = job.accumulate ? c + x : x;
  }
}

template <int kRows, int kCols>
void launch(const Context& ctx, std::vector<DotsJob>& jobs) {
  if (jobs.empty()) return;
  int blocks = 0;
  for (DotsJob& j : jobs) {
    j.first = blocks;
    j.row_blocks = ceil_div(j.m, kRows);
    blocks += j.row_blocks * ceil_div(j.n, kCols);
  }
  const DotsJob* list = stage(ctx, std::span<const DotsJob>(jobs));
  dots_kernel<kRows, kCols><<<static_cast<unsigned>(blocks), kThreads, 0, stream_of(ctx)>>>(
      list, static_cast<int>(jobs.size()));
  check_launch("gemm_dots");
}

}  // namespace

bool few_dots(Precision precision, const Gemm& g) noexcept {
  return precision == Precision::kF32 && !g.trans_a && g.trans_b && g.c_bf16.rows == 0 &&
         g.k() > 0 && (g.m() <= 16 || (g.m() <= 128 && g.n() <= 512));
}

void gemm_dots(const Context& ctx, std::span<const Gemm> problems) {
  std::vector<DotsJob> jobs[2];  // of one row; of more
  for (const Gemm& g : problems) {
    DotsJob job{};
    job.a = g.a.data;
    job.b = g.b.data;
    job.c = g.c.data;
    job.a_stride = g.a.stride;
    job.b_stride = g.b.stride;
    job.c_stride = g.c.stride;
    job.m = g.m();
    job.n = g.n();
    job.k = g.k();
    job.a_float = g.a.dtype == DType::kF32;
    job.b_float = g.b.dtype == DType::kF32;
    job.a_vectors = in_vectors(g.a.data, g.a.stride, size_of(g.a.dtype));
    job.b_vectors = in_vectors(g.b.data, g.b.stride, size_of(g.b.dtype));
    job.accumulate = g.accumulate;
    jobs[g.m() > 1].push_back(job);
  }
  launch<1, 1>(ctx, jobs[0]);
  launch<8, 4>(ctx, jobs[1]);
}

}  // namespace cachalot::cuda
