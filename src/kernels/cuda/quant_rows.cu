// Products of few rows with quantised weights: rows_kernel.cuh over their codes; and activations in
// int8, whose codes and scales are made first.
#include <algorithm>
#include <array>

#include "kernels/cuda/quant_parts.cuh"
#include "kernels/cuda/rows_kernel.cuh"

namespace cachalot::cuda {

namespace {

constexpr int kTile = 128;

struct CodesJob {
  const void* x;
  __nv_bfloat16* codes;
  float* scales;
  std::int64_t x_stride, codes_stride, scale_stride;
  int m, k;
  int first, tiles;
  bool x_float;
};

using CodesJobs = JobList<CodesJob, 16>;

// A warp per tile of 1 x 128: numeric::quantize_int8_tile, codes as bf16 numbers.
__global__ void codes_kernel(const __grid_constant__ CodesJobs jobs) {
  constexpr float kTiny = 0x1p-100f;
  const CodesJob job = jobs_of(jobs)[job_of_block(jobs, static_cast<int>(blockIdx.x))];
  const int tile = static_cast<int>(blockIdx.x) - job.first;
  const int row = tile / job.tiles, t = tile % job.tiles;
  const int lane = static_cast<int>(threadIdx.x);
  float v[4], amax = 0;
  bool finite = true;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int col = t * kTile + i * 32 + lane;
    const std::int64_t at = row * job.x_stride + col;
    v[i] = col >= job.k  ? 0.0f
           : job.x_float ? static_cast<const float*>(job.x)[at]
                         : __bfloat162float(static_cast<const __nv_bfloat16*>(job.x)[at]);
    finite = finite && isfinite(v[i]);
    amax = fmaxf(amax, fabsf(v[i]));
  }
#pragma unroll
  for (int d = 16; d > 0; d /= 2) amax = fmaxf(amax, __shfl_xor_sync(0xFFFFFFFFu, amax, d));
  finite = __all_sync(0xFFFFFFFFu, finite);
  const bool zeros = !finite || amax < kTiny;
  const float inverse = zeros ? 0.0f : __fdiv_rn(127.0f, amax);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int col = t * kTile + i * 32 + lane;
    const float code = zeros ? 0.0f : rintf(__fmul_rn(v[i], inverse));
    job.codes[row * job.codes_stride + col] = __float2bfloat16_rn(code);  // padded with zeros
  }
  if (lane == 0) {
    job.scales[row * job.scale_stride + t] = !finite ? __uint_as_float(0x7FC00000u)
                                             : zeros ? 0.0f
                                                     : __fdiv_rn(amax, 127.0f);
  }
}

// Codes and scales of every x, in scratch; the jobs read them instead.
void quantise_x(const Context& ctx, std::span<const QuantLinear> problems,
                std::span<RowsJob> jobs) {
  std::vector<CodesJob> list;
  std::vector<std::size_t> at;
  std::size_t bytes = 0;
  int blocks = 0;
  for (const QuantLinear& a : problems) {
    const int tiles = ceil_div(a.k(), kTile);
    list.push_back({a.x.data, nullptr, nullptr, a.x.stride, std::int64_t{tiles} * kTile, tiles,
                    a.m(), a.k(), blocks, tiles, a.x.dtype == DType::kF32});
    blocks += a.m() * tiles;
    at.push_back(bytes);
    bytes += (static_cast<std::size_t>(a.m()) * static_cast<std::size_t>(tiles) *
                  (kTile * sizeof(Bf16) + sizeof(float)) +
              255) /
             256 * 256;
  }
  if (blocks == 0) return;
  char* scratch = static_cast<char*>(device_of(ctx).scratch(kScratchA, bytes));
  for (std::size_t i = 0; i < list.size(); ++i) {
    CodesJob& c = list[i];
    c.codes = reinterpret_cast<__nv_bfloat16*>(scratch + at[i]);
    c.scales = reinterpret_cast<float*>(c.codes + std::int64_t{c.m} * c.codes_stride);
    jobs[i].x = c.codes;
    jobs[i].x_stride = c.codes_stride;
    jobs[i].x_vectors = true;
    jobs[i].x_scales = c.scales;
    jobs[i].x_scale_stride = c.scale_stride;
  }
  codes_kernel<<<static_cast<unsigned>(blocks), 32, 0, stream_of(ctx)>>>(
      job_list<16>(ctx, list, blocks));
  check_launch("codes_kernel");
}

RowsJob job_of(const QuantLinear& a, const MatRef& x) {
  RowsJob job{};
  job.x = x.data;
  job.x_stride = x.stride;
  job.w = a.w.codes;
  job.w_stride = a.w.stride;
  job.scales = a.w.scales;
  job.scale_stride = a.w.scale_stride;
  job.y = a.y.data;
  job.y_stride = a.y.stride;
  job.m = a.m();
  job.n = a.n();
  job.k = a.k();
  job.group = a.w.group;
  job.first_row = a.w.first_row;
  job.w_vectors = in_vectors(a.w.codes, a.w.stride, 1);
  job.x_vectors = in_vectors(x.data, x.stride, size_of(x.dtype));
  job.accumulate = a.accumulate;
  return job;
}

}  // namespace

void quant_rows(const Context& ctx, QuantActivations activations,
                std::span<const QuantLinear> problems) {
  if (problems.empty()) return;
  const bool codes = activations == QuantActivations::kInt8;
  std::vector<MatRef> xs;
  int most = 0;
  for (const QuantLinear& a : problems) {
    xs.push_back(a.x);
    most = std::max(most, a.m());
  }
  if (most > 8 && !codes) {
    std::vector<MatRef*> floats;
    for (MatRef& x : xs) floats.push_back(&x);
    convert_operands(ctx, DType::kBF16, floats);
  }
  std::vector<RowsJob> all;
  for (std::size_t i = 0; i < problems.size(); ++i) all.push_back(job_of(problems[i], xs[i]));
  if (codes) quantise_x(ctx, problems, all);
  for (const bool x_float : {false, true}) {
    const auto launch = [&]<class W>(QuantCode code, int least_group, int most_group) {
      std::vector<RowsJob> jobs;
      for (std::size_t i = 0; i < all.size(); ++i) {
        const QuantLinear& a = problems[i];
        const bool is_float = !codes && xs[i].dtype == DType::kF32;
        if (a.w.code == code && a.w.group >= least_group && a.w.group <= most_group &&
            is_float == x_float) {
          jobs.push_back(all[i]);
        }
      }
      launch_rows<W>(ctx, jobs, x_float);
    };
    launch.operator()<E4m3Rows>(QuantCode::kE4m3, 128, 128);
    launch.operator()<Int8Rows>(QuantCode::kInt8, 64, 128);
    launch.operator()<Int8ShortRows>(QuantCode::kInt8, 32, 32);
    launch.operator()<Int4Rows128>(QuantCode::kInt4, 128, 128);
    launch.operator()<Int4Rows64>(QuantCode::kInt4, 64, 64);
    launch.operator()<Int4Rows32>(QuantCode::kInt4, 32, 32);
  }
}

}  // namespace cachalot::cuda
