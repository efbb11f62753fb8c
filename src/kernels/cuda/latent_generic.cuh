// Latent attention of any width, format and precision, in float; and the merging of chunks.
#pragma once

#include "kernels/cuda/latent_device.cuh"
#include "kernels/cuda/latent_plan.h"

namespace cachalot::cuda {

struct GenericShape {
  LatentLayout layout;
  int row_bytes, rope_at;
  bool bf16;         // operands and weights rounded
  int rows, tokens;  // of a tile
  int stride;        // floats of a token in shared memory: odd
  bool operator==(const GenericShape&) const = default;
  std::size_t bytes() const {
    return sizeof(float) * (static_cast<std::size_t>(rows) * layout.width() +
                            static_cast<std::size_t>(tokens) * stride +
                            static_cast<std::size_t>(rows) * (layout.latent + tokens + 3));
  }
};

__device__ inline float round_bf16(float x) { return __bfloat162float(__float2bfloat16_rn(x)); }

__device__ inline float latent_value(const GenericShape& s, const std::byte* row, int c) {
  if (s.layout.format == LatentFormat::kF32) {
    const float x = reinterpret_cast<const float*>(row)[c];
    return s.bf16 ? round_bf16(x) : x;
  }
  if (s.layout.format == LatentFormat::kBF16) {
    return __bfloat162float(reinterpret_cast<const __nv_bfloat16*>(row)[c]);
  }
  if (c >= s.layout.latent) {
    const auto* rope = reinterpret_cast<const __nv_bfloat16*>(row + s.rope_at);
    return __bfloat162float(rope[c - s.layout.latent]);
  }
  const auto code = static_cast<std::uint32_t>(row[c]);
  const std::uint32_t size = (code & 0x7Fu) == 0 ? 0 : ((code & 0x7Fu) << 20) + (120u << 23);
  const auto* scales = reinterpret_cast<const float*>(row + (s.layout.latent + 3) / 4 * 4);
  return __uint_as_float(size | (code & 0x80u) << 24) * scales[c / kLatentTile];
}

// One piece, a chunk, per block of threads.
__global__ void __launch_bounds__(256)
    attend_any(GenericShape s, DevicePlan plan, float* partial_out, float2* partial_rows) {
  extern __shared__ float memory[];
  const int latent = s.layout.latent, width = latent + s.layout.rope;
  float* const query = memory;
  float* const cache = query + s.rows * width;
  float* const out = cache + s.tokens * s.stride;
  float* const weights = out + s.rows * latent;
  float* const maxima = weights + s.rows * s.tokens;
  float* const sums = maxima + s.rows;
  float* const corrections = sums + s.rows;
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const int warp = thread / 32, lane = thread % 32, warps = threads / 32;

  wait_for_those_before();
  allow_next_kernel();
  const int number = plan.begins[blockIdx.x];
  if (number == plan.begins[blockIdx.x + 1]) return;
  const Piece piece = plan.pieces[number];
  const RowGroup& g = plan.groups[piece.group];
  const std::byte* const* blocks = plan.blocks + g.first_block;
  for (int i = thread; i < g.rows * width; i += threads) {
    const int flat = g.first_row + i / width;
    const float x = g.q[flat / g.heads * g.q_stride +
                        static_cast<std::int64_t>(flat % g.heads) * width + i % width];
    query[i] = s.bf16 ? round_bf16(x) : x;
  }
  for (int i = thread; i < g.rows * latent; i += threads) out[i] = 0;
  for (int i = thread; i < g.rows; i += threads) {
    maxima[i] = -INFINITY;
    sums[i] = 0;
  }
  const int end = g.end(piece.first_chunk);
  for (int pos = g.lengths.begin(piece.first_chunk); pos < end; pos += s.tokens) {
    const int tokens = min(s.tokens, end - pos);
    __syncthreads();
    for (int t = warp; t < tokens; t += warps) {
      const std::byte* row = blocks[(pos + t) / kLatentBlock] + plan.shift +
                             static_cast<std::int64_t>((pos + t) % kLatentBlock) * s.row_bytes;
      for (int c = lane; c < width; c += 32) cache[t * s.stride + c] = latent_value(s, row, c);
    }
    __syncthreads();
    for (int i = thread; i < g.rows * tokens; i += threads) {
      const float* q = query + i / tokens * width;
      const float* k = cache + i % tokens * s.stride;
      float sum[4] = {};
      int c = 0;
      for (; c + 4 <= width; c += 4) {
#pragma unroll
        for (int j = 0; j < 4; ++j) sum[j] = __fmaf_rn(q[c + j], k[c + j], sum[j]);
      }
      for (; c < width; ++c) sum[0] = __fmaf_rn(q[c], k[c], sum[0]);
      weights[i / tokens * s.tokens + i % tokens] =
          __fmul_rn((sum[0] + sum[1]) + (sum[2] + sum[3]), g.scale_log2);
    }
    __syncthreads();
    for (int r = warp; r < g.rows; r += warps) {
      float* const w = weights + r * s.tokens;
      const int seen = min(tokens, g.seen(r) - pos);
      float most = maxima[r];
      for (int t = lane; t < seen; t += 32) most = fmaxf(most, w[t]);
      for (int i = 1; i < 32; i *= 2) most = fmaxf(most, __shfl_xor_sync(0xFFFFFFFFu, most, i));
      most = ceilf(most);  // factors between chunks are exact
      const float zero_at = most == -INFINITY ? 0 : most;
      const float correction = exp2f(maxima[r] - zero_at);
      float sum = 0;
      for (int t = lane; t < tokens; t += 32) {
        float p = t < seen ? exp2f(w[t] - zero_at) : 0;
        if (s.bf16) p = round_bf16(p);
        sum += p;
        w[t] = p;
      }
      for (int i = 1; i < 32; i *= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, i);
      __syncwarp();
      if (lane == 0) {
        maxima[r] = most;
        sums[r] = __fmaf_rn(sums[r], correction, sum);
        corrections[r] = correction;
      }
    }
    __syncthreads();
    for (int i = thread; i < g.rows * latent; i += threads) {
      const int r = i / latent, c = i % latent;
      const int seen = min(tokens, g.seen(r) - pos);  // an unseen row's NaN stays its own
      float sum = __fmul_rn(out[i], corrections[r]);
      for (int t = 0; t < seen; ++t) {
        sum = __fmaf_rn(weights[r * s.tokens + t], cache[t * s.stride + c], sum);
      }
      out[i] = sum;
    }
  }
  __syncthreads();
  const bool only = g.pieces == 1;
  const std::int64_t partial = static_cast<std::int64_t>(piece.partial) * s.rows;
  for (int i = thread; i < g.rows * latent; i += threads) {
    const int r = i / latent, c = i % latent, flat = g.first_row + r;
    if (only) {
      g.out[flat / g.heads * g.out_stride + static_cast<std::int64_t>(flat % g.heads) * latent +
            c] = __fmaf_rn(out[i], 1 / sums[r], 0.0f);
    } else {
      partial_out[(partial + r) * latent + c] = out[i];
    }
  }
  if (only) return;
  for (int r = thread; r < g.rows; r += threads) partial_rows[partial + r] = {maxima[r], sums[r]};
}

constexpr int kAnySeries = 8, kAnyThreads = 128;  // threads of a series, with 4 columns each

// Pieces of a row -> its result: 512 columns of a row per block of threads. The eights of its
// chunks go to eight series in turn (those past the last eight may be left out), each sums in
// order; then the series in order.
__global__ void __launch_bounds__(kAnySeries* kAnyThreads)
    merge_any(DevicePlan plan, int rows_per_group, int latent, const float* partial_out,
              const float2* partial_rows) {
  allow_next_kernel();
  const RowGroup& g = plan.groups[blockIdx.x];
  const int row = static_cast<int>(blockIdx.y), pieces = g.pieces;
  if (pieces == 1 || row >= g.rows) return;
  const int thread = static_cast<int>(threadIdx.x), series = thread / kAnyThreads;
  const int count = static_cast<int>(blockDim.x) / kAnyThreads;
  const int column = static_cast<int>(blockIdx.z) * 4 * kAnyThreads + thread % kAnyThreads * 4;
  const int eights = (g.chunks + kChunksTogether - 1) / kChunksTogether;
  const std::int64_t first = static_cast<std::int64_t>(g.partial) * rows_per_group + row;
  const bool whole = latent % 4 == 0 && column < latent;
  wait_for_those_before();  // the partials are there

  float most = -INFINITY;
  for (int p = thread % 32; p < pieces; p += 32) {
    most = fmaxf(most, partial_rows[first + static_cast<std::int64_t>(p) * rows_per_group].x);
  }
  for (int i = 1; i < 32; i *= 2) most = fmaxf(most, __shfl_xor_sync(0xFFFFFFFFu, most, i));
  const float zero_at = most == -INFINITY ? 0 : most;  // all NaN
  float total[5] = {};                                 // of columns, and of weights
  for (int e = series; e < eights; e += kAnySeries) {
    const int begin = plan.eights[g.first_eight + e], end = plan.eights[g.first_eight + e + 1];
    float sum[5] = {};
#pragma unroll 4
    for (int p = begin; p < end; ++p) {
      const std::int64_t at = first + static_cast<std::int64_t>(p) * rows_per_group;
      const float2 of = partial_rows[at];
      const float weight = exp2_of(of.x - zero_at);
      const float* from = partial_out + at * latent + column;
      float4 x = {0, 0, 0, 0};
      if (whole) {
        x = *reinterpret_cast<const float4*>(from);
      } else {
        if (column < latent) x.x = from[0];
        if (column + 1 < latent) x.y = from[1];
        if (column + 2 < latent) x.z = from[2];
        if (column + 3 < latent) x.w = from[3];
      }
      sum[0] = __fmaf_rn(x.x, weight, sum[0]);
      sum[1] = __fmaf_rn(x.y, weight, sum[1]);
      sum[2] = __fmaf_rn(x.z, weight, sum[2]);
      sum[3] = __fmaf_rn(x.w, weight, sum[3]);
      sum[4] = __fmaf_rn(of.y, weight, sum[4]);
    }
    for (int i = 0; i < 5; ++i) total[i] += sum[i];
  }
  __shared__ float parts[kAnySeries][5][kAnyThreads];
  if (count > 1) {
    for (int i = 0; i < 5; ++i) parts[series][i][thread % kAnyThreads] = total[i];
    __syncthreads();
    if (series > 0) return;
    for (int s = 1; s < count; ++s) {
      for (int i = 0; i < 5; ++i) total[i] += parts[s][i][thread];
    }
  }
  const int flat = g.first_row + row;
  float* to = g.out + flat / g.heads * g.out_stride +
              static_cast<std::int64_t>(flat % g.heads) * latent + column;
  const float by = 1 / total[4];
  for (int i = 0; i < 4; ++i) {
    if (column + i < latent) to[i] = __fmul_rn(total[i], by);
  }
}

}  // namespace cachalot::cuda
