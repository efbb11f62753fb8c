// Few rows of A against weights [N, K] in float precision (the router of a decoding step): bound by
// reading the weights. A block has two rows of them, its threads share K.
#include <algorithm>

#include "kernels/cuda/gemm_parts.cuh"
#include "kernels/cuda/launch_early.cuh"

namespace cachalot::cuda {

namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32, kOut = 2, kTokens = 8;

struct Job {
  const void *x, *w;
  float* y;
  std::int64_t x_stride, w_stride, y_stride;
  int m, n, k;
  int first, token_tiles;
  bool accumulate;
};
using Jobs = JobList<Job, 16>;

template <class T>
__device__ inline float4 four(const void* row, int vector) {
  if constexpr (sizeof(T) == 4) {
    return __ldg(static_cast<const float4*>(row) + vector);
  } else {
    const uint2 v = __ldg(static_cast<const uint2*>(row) + vector);
    return {low_bf16(v.x), high_bf16(v.x), low_bf16(v.y), high_bf16(v.y)};
  }
}

template <class X, class W>
__global__ void __launch_bounds__(kThreads) rows_float_kernel(const __grid_constant__ Jobs jobs) {
  after_those_before();
  const Job& job = jobs_of(jobs)[job_of_block(jobs, static_cast<int>(blockIdx.x))];
  const int block = static_cast<int>(blockIdx.x) - job.first;
  const int out0 = block / job.token_tiles * kOut, token0 = block % job.token_tiles * kTokens;
  const X* x[kTokens];  // past the last: that one again, for results that nobody stores
  const W* w[kOut];
#pragma unroll
  for (int t = 0; t < kTokens; ++t) {
    x[t] = static_cast<const X*>(job.x) + min(token0 + t, job.m - 1) * job.x_stride;
  }
#pragma unroll
  for (int o = 0; o < kOut; ++o) {
    w[o] = static_cast<const W*>(job.w) + min(out0 + o, job.n - 1) * job.w_stride;
  }
  float sum[kOut][kTokens] = {};
#pragma unroll 2
  for (int v = static_cast<int>(threadIdx.x); v < job.k / 4; v += kThreads) {
    float4 a[kOut];
#pragma unroll
    for (int o = 0; o < kOut; ++o) a[o] = four<W>(w[o], v);
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      const float4 b = four<X>(x[t], v);
#pragma unroll
      for (int o = 0; o < kOut; ++o) {
        float s = sum[o][t];
        s = fmaf(a[o].x, b.x, s);
        s = fmaf(a[o].y, b.y, s);
        s = fmaf(a[o].z, b.z, s);
        sum[o][t] = fmaf(a[o].w, b.w, s);
      }
    }
  }
  __shared__ float sums[kOut * kTokens][kWarps];
#pragma unroll
  for (int o = 0; o < kOut; ++o) {
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      float s = sum[o][t];
#pragma unroll
      for (int d = 16; d > 0; d /= 2) s += __shfl_xor_sync(0xFFFFFFFFu, s, d);
      if (threadIdx.x % 32 == 0) sums[o * kTokens + t][threadIdx.x / 32] = s;
    }
  }
  __syncthreads();
  const int i = static_cast<int>(threadIdx.x), o = i / kTokens, t = i % kTokens;
  if (o >= kOut || out0 + o >= job.n || token0 + t >= job.m) return;
  float total = 0;
#pragma unroll
  for (int warp = 0; warp < kWarps; ++warp) total += sums[i][warp];
  float& y = job.y[(token0 + t) * job.y_stride + out0 + o];
  y = job.accumulate ? y + total : total;
}

}  // namespace

bool few_float_rows(const Gemm& g) noexcept {
  const auto whole = [](const MatRef& m) { return in_vectors(m.data, m.stride, size_of(m.dtype)); };
  // Many rows of few outputs: the router of a batch, for which other kernels have few tiles.
  const bool few = g.m() <= 16 || (g.m() <= 128 && g.n() <= 512);
  return !g.trans_a && g.trans_b && few && g.c_bf16.rows == 0 && g.k() % 4 == 0 && g.k() >= 1024 &&
         whole(g.a) && whole(g.b);
}

void gemm_rows_float(const Context& ctx, std::span<const Gemm> problems) {
  std::vector<Job> jobs;
  for (const DType x : {DType::kF32, DType::kBF16}) {
    for (const DType w : {DType::kF32, DType::kBF16}) {
      jobs.clear();
      int blocks = 0;
      for (const Gemm& g : problems) {
        if (g.a.dtype != x || g.b.dtype != w) continue;
        const int token_tiles = ceil_div(g.m(), kTokens);
        jobs.push_back({g.a.data, g.b.data, g.c.data, g.a.stride, g.b.stride, g.c.stride, g.m(),
                        g.n(), g.k(), blocks, token_tiles, g.accumulate});
        blocks += ceil_div(g.n(), kOut) * token_tiles;
      }
      if (blocks == 0) continue;
      using Bf = __nv_bfloat16;
      const auto kernel =
          x == DType::kF32
              ? (w == DType::kF32 ? rows_float_kernel<float, float> : rows_float_kernel<float, Bf>)
              : (w == DType::kF32 ? rows_float_kernel<Bf, float> : rows_float_kernel<Bf, Bf>);
      launch_early(ctx, "rows_float_kernel", kernel, dim3(static_cast<unsigned>(blocks)),
                   dim3(kThreads), 0, job_list<16>(ctx, jobs, blocks));
    }
  }
}

}  // namespace cachalot::cuda
