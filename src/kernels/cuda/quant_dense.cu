// Products of many rows with quantised weights: the weights become bf16 in scratch, a few hundred
// megabytes at a time, and the plain product does the rest.
#include "kernels/cuda/ops.h"
#include "kernels/cuda/quant_parts.cuh"
#include "kernels/cuda/rows_kernel.cuh"

namespace cachalot::cuda {

namespace {

constexpr int kThreads = 256, kChunk = kThreads * 32;  // weights of a block

struct Job {
  const std::uint8_t* codes;
  const void* scales;
  __nv_bfloat16* to;
  std::int64_t stride, scale_stride, to_stride;
  int rows, cols, group_shift, first_row, bits;
  int first, chunks_per_row, rows_per_chunk;
  bool e4m3, vectors;
};

using Jobs = JobList<Job, 16>;

__device__ float weight_scale(const Job& job, int row, int col) {
  const std::int64_t group = col >> job.group_shift;
  if (job.e4m3) {
    return static_cast<const float*>(
        job.scales)[(job.first_row + row) / 128 * job.scale_stride + group];
  }
  return __bfloat162float(
      static_cast<const __nv_bfloat16*>(job.scales)[row * job.scale_stride + group]);
}

// A NaN code is made of magnitude bits alone.
__device__ bool any_nan(std::uint32_t codes) {
  return (((codes & 0x7F7F7F7Fu) + 0x01010101u) & 0x80808080u) != 0;
}

// Eight weights a thread at a time.
__global__ void __launch_bounds__(kThreads) dequantise_kernel(const __grid_constant__ Jobs jobs) {
  const Job job = jobs_of(jobs)[job_of_block(jobs, static_cast<int>(blockIdx.x))];
  const int chunk = static_cast<int>(blockIdx.x) - job.first;
  const int row0 = chunk / job.chunks_per_row * job.rows_per_chunk;
  const int col0 = chunk % job.chunks_per_row * kChunk;
  const int width = min(job.cols - col0, kChunk);
  const int rows = min(job.rows - row0, job.rows_per_chunk);
  const int vectors = (width + 7) / 8;
  for (int i = static_cast<int>(threadIdx.x); i < rows * vectors; i += kThreads) {
    const int row = row0 + i / vectors, col = col0 + i % vectors * 8;
    const std::uint8_t* line = job.codes + row * job.stride;
    const std::int64_t at = std::int64_t{col} * job.bits / 8;
    std::uint32_t w[4];
    if (job.bits == 8) {
      uint2 v;
      if (job.vectors && col + 8 <= job.cols) {
        v = *reinterpret_cast<const uint2*>(line + at);
      } else {
        v = read_carefully<uint2>(line, at, job.cols);
      }
      if (job.e4m3) {
        decode_e4m3(v.x, w);
        decode_e4m3(v.y, w + 2);
        if (any_nan(v.x) || any_nan(v.y)) {
#pragma unroll
          for (int j = 0; j < 8; ++j) {
            const std::uint32_t code = (j < 4 ? v.x : v.y) >> (j % 4 * 8) & 0x7Fu;
            if (code == 0x7Fu) w[j / 2] |= 0x7FC0u << (j % 2 * 16);
          }
        }
      } else {
        decode_int8(v.x, w);
        decode_int8(v.y, w + 2);
      }
    } else {
      unsigned v;
      if (job.vectors && col + 8 <= job.cols) {
        v = *reinterpret_cast<const unsigned*>(line + at);
      } else {
        v = read_carefully<unsigned>(line, at, (job.cols + 1) / 2);
      }
      decode_int4(v, w);
    }
    const float scale = weight_scale(job, row, col);
    uint4 out;
    out.x = pack_bf16(low_bf16(w[0]) * scale, high_bf16(w[0]) * scale);
    out.y = pack_bf16(low_bf16(w[1]) * scale, high_bf16(w[1]) * scale);
    out.z = pack_bf16(low_bf16(w[2]) * scale, high_bf16(w[2]) * scale);
    out.w = pack_bf16(low_bf16(w[3]) * scale, high_bf16(w[3]) * scale);
    *reinterpret_cast<uint4*>(job.to + row * job.to_stride + col) = out;
  }
}

Job job_of(const QuantView& w, __nv_bfloat16* to, int first) {
  Job job{};
  job.codes = w.codes;
  job.scales = w.scales;
  job.to = to;
  job.stride = w.stride;
  job.scale_stride = w.scale_stride;
  job.to_stride = (w.cols + 7) / 8 * 8;
  job.rows = w.rows;
  job.cols = w.cols;
  job.group_shift = w.group == 32 ? 5 : w.group == 64 ? 6 : 7;
  job.first_row = w.first_row;
  job.bits = w.bits();
  job.e4m3 = w.code == QuantCode::kE4m3;
  job.vectors = in_vectors(w.codes, w.stride, 1);
  job.first = first;
  job.chunks_per_row = ceil_div(w.cols, kChunk);
  job.rows_per_chunk = w.cols >= kChunk ? 1 : kChunk / (w.cols < 8 ? 8 : w.cols);
  return job;
}

}  // namespace

void quant_dense(const Context& ctx, std::span<const QuantLinear> problems) {
  constexpr std::size_t kMost = std::size_t{512} << 20;  // bytes of scratch, one matrix at least
  std::size_t done = 0;
  while (done < problems.size()) {
    std::size_t end = done, bytes = 0;
    std::vector<std::size_t> at;
    while (end < problems.size()) {
      const QuantView& w = problems[end].w;
      const std::size_t more = static_cast<std::size_t>(w.rows) *
                               static_cast<std::size_t>((w.cols + 7) / 8 * 8) * sizeof(Bf16);
      if (end > done && bytes + more > kMost) break;
      at.push_back(bytes);
      bytes += (more + 255) / 256 * 256;
      ++end;
    }
    char* scratch = static_cast<char*>(device_of(ctx).scratch(kScratchB, bytes));
    std::vector<Job> jobs;
    std::vector<Gemm> products;
    int blocks = 0;
    for (std::size_t i = done; i < end; ++i) {
      const QuantLinear& a = problems[i];
      auto* to = reinterpret_cast<__nv_bfloat16*>(scratch + at[i - done]);
      const Job job = job_of(a.w, to, blocks);
      blocks += ceil_div(job.rows, job.rows_per_chunk) * job.chunks_per_row;
      jobs.push_back(job);
      const MatRef w(to, DType::kBF16, a.w.rows, a.w.cols, job.to_stride);
      products.push_back(linear(a.x, w, a.y, a.accumulate));
    }
    dequantise_kernel<<<static_cast<unsigned>(blocks), kThreads, 0, stream_of(ctx)>>>(
        job_list<16>(ctx, jobs, blocks));
    check_launch("dequantise_kernel");
    cuda::gemm(ctx, Precision::kBF16, products);
    done = end;
  }
}

}  // namespace cachalot::cuda
