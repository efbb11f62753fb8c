// Rows of the latent cache, written and read: one warp per row.
#include <bit>
#include <cstdint>
#include <cstring>
#include <vector>

#include "kernels/cuda/latent_plan.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/row_ops.cuh"
#include "kernels/latent_rows.h"

namespace cachalot::cuda {

namespace {

constexpr int kWarps = 8;  // of a thread block

// NaN as the host rounds it: the payload's upper bits, made quiet.
__device__ std::uint16_t bf16_bits(float x) {
  const std::uint32_t u = __float_as_uint(x);
  if ((u & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<std::uint16_t>((u >> 16) | 0x40u);
  return static_cast<std::uint16_t>((u + 0x7FFFu + ((u >> 16) & 1u)) >> 16);
}

__device__ float float_of(std::uint16_t bf16) {
  return __uint_as_float(static_cast<std::uint32_t>(bf16) << 16);
}

// x / scale, of magnitude at most 448, as the nearest E4M3 number that is no subnormal. Subnormals
// become 0 or 2^-6 by the size of their own rounded code: above 4 of its units.
__device__ std::uint8_t normal_e4m3(float x) {
  const std::uint32_t u = __float_as_uint(x);
  const auto sign = static_cast<std::uint8_t>(u >> 24 & 0x80u);
  const std::uint32_t size = u & 0x7FFFFFFFu;
  if (size > 0x7F800000u) return sign | 0x7Fu;
  if (__uint_as_float(size) < 0x1p-6f) {
    const int units = __float2int_rn(__uint_as_float(size) * 0x1p9f);
    return sign | (units > 4 ? 0x08u : 0u);
  }
  const std::uint32_t rounded = size + 0x7FFFFu + (size >> 20 & 1u);  // to 3 bits of fraction
  const std::uint32_t code = (rounded >> 20) - (120u << 3);
  return sign | static_cast<std::uint8_t>(code < 0x7Eu ? code : 0x7Eu);
}

__device__ float decode_e4m3(std::uint8_t code) {
  const std::uint32_t size = code & 0x7Fu, sign = static_cast<std::uint32_t>(code & 0x80u) << 24;
  if (size == 0x7Fu) return __uint_as_float(sign | 0x7FC00000u);
  if (size < 8) return __uint_as_float(sign | __float_as_uint(static_cast<float>(size) * 0x1p-9f));
  return __uint_as_float(sign | ((size << 20) + (120u << 23)));
}

// amax / 448 rounded up to a power of two; 1 for zero: numeric::block_scale(kPow2).
__device__ float pow2_scale(float amax) {
  if (amax == 0) return 1;
  const float scale = __fdiv_rn(amax, 448.0f);
  const std::uint32_t u = __float_as_uint(scale);
  if (u >= 0x7F800000u) return scale;
  if ((u & 0x7F800000u) == 0) return 0;  // far below the least scale
  return (u & 0x7FFFFFu) == 0 ? scale : __uint_as_float((u & 0x7F800000u) + 0x800000u);
}

struct StoreJob {
  const float *c_kv, *k_rope;
  std::ptrdiff_t c_kv_stride, k_rope_stride;
  std::byte* row;
  std::ptrdiff_t row_bytes;
  int rows, latent, rope, format;
  int first_row;  // of all jobs' rows
};

// The tiles of a row are shared out among `warps` warps.
__device__ void store_fp8(int latent, const float* c_kv, std::byte* row, int warp, int warps) {
  const int lane = threadIdx.x % 32;
  const std::ptrdiff_t scales_at = (latent + 3) / 4 * 4;
  for (int t = warp; t * kLatentTile < latent; t += warps) {
    const int begin = t * kLatentTile, end = min(begin + kLatentTile, latent);
    std::uint32_t largest = 0;  // of bit patterns, so that NaN is the largest
    for (int c = begin + lane; c < end; c += 32) {
      largest = max(largest, __float_as_uint(c_kv[c]) & 0x7FFFFFFFu);
    }
    largest = __reduce_max_sync(0xFFFFFFFFu, largest);
    float scale = pow2_scale(__uint_as_float(largest));
    const bool nothing = scale < kLatentMinScale;
    const bool broken = !nothing && !(scale <= kLatentMaxScale);
    for (int c = begin + lane; c < end; c += 32) {
      const std::uint8_t code = nothing ? 0 : normal_e4m3(broken ? 0 : __fdiv_rn(c_kv[c], scale));
      row[c] = static_cast<std::byte>(code);
    }
    if (nothing) scale = 1;
    if (broken) scale = __uint_as_float(0x7FC00000u);
    if (lane == 0) *reinterpret_cast<float*>(row + scales_at + 4 * t) = scale;
  }
}

// Row i of a job, by the threads of `warps` warps, of which this is number `warp`.
__device__ void store_row(const StoreJob& a, int i, std::ptrdiff_t shift, int warp, int warps) {
  const float* c_kv = a.c_kv + i * a.c_kv_stride;
  const float* k_rope = a.k_rope + i * a.k_rope_stride;
  std::byte* to = a.row + shift + i * a.row_bytes;
  const int thread = 32 * warp + threadIdx.x % 32, threads = 32 * warps;
  const auto store_bf16 = [&](const float* from, int n, std::byte* out) {
    for (int c = thread; c < n; c += threads) {
      *reinterpret_cast<std::uint16_t*>(out + 2 * c) = bf16_bits(from[c]);
    }
  };
  switch (static_cast<LatentFormat>(a.format)) {
    case LatentFormat::kF32: {
      auto* out = reinterpret_cast<float*>(to);
      for (int c = thread; c < a.latent; c += threads) out[c] = c_kv[c];
      for (int c = thread; c < a.rope; c += threads) out[a.latent + c] = k_rope[c];
      break;
    }
    case LatentFormat::kBF16:
      store_bf16(c_kv, a.latent, to);
      store_bf16(k_rope, a.rope, to + 2 * a.latent);
      break;
    case LatentFormat::kFp8: {
      store_fp8(a.latent, c_kv, to, warp, warps);
      const int scales_at = (a.latent + 3) / 4 * 4;
      const int tiles = (a.latent + kLatentTile - 1) / kLatentTile;
      store_bf16(k_rope, a.rope, to + scales_at + 4 * tiles);
      break;
    }
  }
}

// The last job that begins at or before `row`.
__device__ int job_of_row(const StoreJob* jobs, int job_count, int row) {
  int low = 0, high = job_count;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (jobs[middle].first_row <= row ? low : high) = middle;
  }
  return low;
}

// `shift`: bytes from a job's row to where it is stored.
__global__ void store_rows(const StoreJob* jobs, int job_count, int rows, std::ptrdiff_t shift) {
  after_those_before();
  const int row = blockIdx.x * kWarps + threadIdx.x / 32;
  if (row >= rows) return;
  const StoreJob a = jobs[job_of_row(jobs, job_count, row)];
  store_row(a, row - a.first_row, shift, 0, 1);
}

constexpr int kNormThreads = 256;

// x of `cols` -> its norm in y, by all threads of the block.
__device__ void norm_row(const float* x, const float* weight, int cols, float eps, float* y,
                         float* room) {
  float sum = 0;
  for (int c = static_cast<int>(threadIdx.x); c < cols; c += kNormThreads) sum += x[c] * x[c];
  const float rstd = 1.0F / sqrtf(block_sum(sum, room) / static_cast<float>(cols) + eps);
  for (int c = static_cast<int>(threadIdx.x); c < cols; c += kNormThreads) {
    y[c] = x[c] * rstd * weight[c];
  }
}

// A block per row.
__global__ void __launch_bounds__(kNormThreads)
    norm_latents(const LatentNorms a, const StoreJob* jobs, int job_count, std::ptrdiff_t shift) {
  __shared__ float room[2][32];
  after_those_before();
  const int row = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
  const int latent = a.c_kv.cols, pairs = a.cos.cols;
  float* kv = a.kv_a.row(row);
  if (a.q_a.rows > 0) {
    norm_row(a.q_a.row(row), a.q_weight.data(), a.q_a.cols, a.eps, a.q_an.row(row), room[0]);
  }
  norm_row(kv, a.kv_weight.data(), latent, a.eps, a.c_kv.row(row), room[1]);
  for (int i = thread; i < pairs; i += kNormThreads) {
    float* x = kv + latent + 2 * i;
    const float x0 = x[0], x1 = x[1], cos = a.cos.row(row)[i], sin = a.sin.row(row)[i];
    x[0] = x0 * cos - x1 * sin;
    x[1] = x0 * sin + x1 * cos;
  }
  __syncthreads();  // the row as it is stored
  const StoreJob job = jobs[job_of_row(jobs, job_count, row)];
  store_row(job, row - job.first_row, shift, thread / 32, kNormThreads / 32);
}

__global__ void load_rows(const std::byte* const* blocks, std::ptrdiff_t offset,
                          LatentLayout layout, std::ptrdiff_t row_bytes, int begin,
                          MatView<float> out) {
  const int row = blockIdx.x * kWarps + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= out.rows) return;
  const std::byte* from = blocks[row / kLatentBlock] + offset + row % kLatentBlock * row_bytes;
  float* to = out.data + row * out.stride;
  const int scales_at = (layout.latent + 3) / 4 * 4;
  const int rope_at = scales_at + 4 * ((layout.latent + kLatentTile - 1) / kLatentTile);
  for (int i = lane; i < out.cols; i += 32) {
    const int c = begin + i;
    if (layout.format == LatentFormat::kF32) {
      to[i] = reinterpret_cast<const float*>(from)[c];
    } else if (layout.format == LatentFormat::kBF16) {
      to[i] = float_of(reinterpret_cast<const std::uint16_t*>(from)[c]);
    } else if (c < layout.latent) {
      const float scale = reinterpret_cast<const float*>(from + scales_at)[c / kLatentTile];
      to[i] = decode_e4m3(static_cast<std::uint8_t>(from[c])) * scale;
    } else {
      to[i] = float_of(reinterpret_cast<const std::uint16_t*>(from + rope_at)[c - layout.latent]);
    }
  }
}

}  // namespace

namespace {

std::vector<StoreJob> jobs_of(std::span<const StoreLatent> stores, int& rows) {
  std::vector<StoreJob> list;
  list.reserve(stores.size());
  rows = 0;
  for (const StoreLatent& a : stores) {
    if (a.c_kv.rows == 0) continue;
    list.push_back({a.c_kv.data, a.k_rope.data, a.c_kv.stride, a.k_rope.stride, a.row,
                    a.layout.row_bytes(), a.c_kv.rows, a.layout.latent, a.layout.rope,
                    static_cast<int>(a.layout.format), rows});
    rows += a.c_kv.rows;
  }
  return list;
}

void store(const Context& ctx, const StoreJob* on_device, int jobs, int rows,
           std::ptrdiff_t shift) {
  if (rows == 0) return;
  launch_early(ctx, "store_latent", store_rows, dim3(static_cast<unsigned>(ceil_div(rows, kWarps))),
               dim3(32 * kWarps), 0, on_device, jobs, rows, shift);
}

}  // namespace

void store_latent(const Context& ctx, std::span<const StoreLatent> stores) {
  int rows = 0;
  const std::vector<StoreJob> list = jobs_of(stores, rows);
  if (rows == 0) return;
  store(ctx, stage(ctx, std::span<const StoreJob>(list)), static_cast<int>(list.size()), rows, 0);
}

std::vector<std::int64_t> append_stores(std::span<const StoreLatent> stores,
                                        std::vector<std::byte>& bytes) {
  int rows = 0;
  const std::vector<StoreJob> list = jobs_of(stores, rows);
  // Sequences whose rows straddle two blocks have two jobs: room for as many.
  const std::size_t room = std::bit_ceil(std::max<std::size_t>(list.size(), 1));
  StoreJob none{};
  none.first_row = rows;  // no row looks beyond the last job
  std::vector<StoreJob> padded = list;
  padded.resize(room, none);
  bytes.resize(room * sizeof(StoreJob));
  std::memcpy(bytes.data(), padded.data(), bytes.size());
  return {static_cast<std::int64_t>(room), rows};
}

void store_planned(const Context& ctx, const PlannedLatents& plan, std::ptrdiff_t shift) {
  store(ctx, reinterpret_cast<const StoreJob*>(plan.memory.data()), static_cast<int>(plan.shape[0]),
        static_cast<int>(plan.shape[1]), shift);
}

void norm_planned(const Context& ctx, const PlannedLatents& plan, std::ptrdiff_t shift,
                  const LatentNorms& a) {
  if (a.kv_a.rows == 0) return;
  launch_early(ctx, "norms of latents", norm_latents, dim3(static_cast<unsigned>(a.kv_a.rows)),
               dim3(kNormThreads), 0, a, reinterpret_cast<const StoreJob*>(plan.memory.data()),
               static_cast<int>(plan.shape[0]), shift);
}

void load_latent(const Context& ctx, const LatentRows& rows, int begin, MatView<float> out) {
  if (out.empty()) return;
  const auto blocks = rows.blocks.first(static_cast<std::size_t>(ceil_div(out.rows, kLatentBlock)));
  const std::byte* const* on_device = stage(ctx, blocks);
  load_rows<<<ceil_div(out.rows, kWarps), 32 * kWarps, 0, stream_of(ctx)>>>(
      on_device, rows.offset, rows.layout, rows.layout.row_bytes(), begin, out);
  check_launch("load_latent");
}

}  // namespace cachalot::cuda
