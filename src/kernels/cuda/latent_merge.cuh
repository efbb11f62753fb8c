// What pieces of a row's context left, brought together: for the fast kernels, whose partials lie
// as their threads have them.
#pragma once

#include "kernels/cuda/latent_few.cuh"
#include "kernels/cuda/latent_few_codes.cuh"
#include "kernels/cuda/latent_many.cuh"
#include "kernels/cuda/latent_many_codes.cuh"

namespace cachalot::cuda {

// A line of a partial: 32 threads with four sums each, of two rows and two columns.
struct FragmentLine {
  int row[2], column[2];
};
// Rows of the product are rows: of the four sums, the two of a row follow each other.
__device__ inline FragmentLine fragment_line(ManyHeads, int line, int lane) {
  const int row = line % 4 * 16 + lane / 4, column = line / 4 * 8 + lane % 4 * 2;
  return {{row, row + 8}, {column, column + 1}};
}
// Rows of the product are columns: the two of a column follow each other.
template <int kN>
__device__ inline FragmentLine fragment_line(FewHeads<kN>, int line, int lane) {
  const int row = line / 4 % (kN / 8) * 8 + lane % 4 * 2;
  const int column = line / 4 / (kN / 8) * 64 + line % 4 * 16 + lane / 4;
  return {{row, row + 1}, {column, column + 8}};
}
template <int kN>
__device__ inline FragmentLine fragment_line(FewCodes<kN>, int line, int lane) {
  const int row = line / 4 % (kN / 8) * 8 + lane % 4 * 2;
  const int column = line % 4 * 128 + spread_eight(lane / 4) * 16 + line / 4 / (kN / 8) * 2;
  return {{row, row + 1}, {column, column + 1}};
}

__device__ inline FragmentLine fragment_line(ManyCodes, int line, int lane) {
  const int row = line / 16 % 8 * 8 + lane % 4 * 2;
  const int column = line / 128 * 256 + line % 4 * 64 + lane / 4 * 8 + line / 4 % 4 * 2;
  return {{row, row + 1}, {column, column + 1}};
}

constexpr int kMergeSeries = 16, kMergeWarps = 16;

// Sums of some pieces, under references of their own.
struct MergedSums {
  float x[4], sum[2], reference[2];

  template <bool kRowFirst>
  __device__ void add(const MergedSums& other) {
    float own[2], its[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float next = fmaxf(reference[i], other.reference[i]);
      own[i] = between(reference[i], next);
      its[i] = between(other.reference[i], next);
      sum[i] = __fmaf_rn(sum[i], own[i], other.sum[i] * its[i]);
      reference[i] = next;
    }
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int i = kRowFirst ? e / 2 : e % 2;
      x[e] = __fmaf_rn(x[e], own[i], other.x[e] * its[i]);
    }
  }
};

// Eights of chunks (of each lane: sums of different tokens) go to 16 series in turn, each adds in
// order; then the series in order. Those past the last may be left out. A block has some lines of a
// group, and a warp for each series of a line. All of a factor's powers of two are exact.
template <class F>
__global__ void __launch_bounds__(32 * kMergeWarps)
    merge_lines(DevicePlan plan, int series_count, const float* partial_out,
                const float2* partial_rows) {
  constexpr int kRows = F::kRows, kLanes = F::kLanes;
  constexpr bool kMany = std::is_same_v<F, ManyHeads>;  // a row's sums follow each other
  allow_next_kernel();
  const RowGroup& g = plan.groups[blockIdx.x];
  if (g.pieces == 1 && kLanes == 1) return;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int lines = static_cast<int>(blockDim.x) / 32 / series_count;
  const int series = warp / lines;
  const int line = static_cast<int>(blockIdx.y) * lines + warp % lines;
  const FragmentLine at = fragment_line(F{}, line, lane);
  const int tasks = (g.chunks + kChunksTogether - 1) / kChunksTogether * kLanes;
  const bool there = at.row[0] < g.rows || at.row[1] < g.rows;
  wait_for_those_before();  // the partials are there

  MergedSums total{{0, 0, 0, 0}, {0, 0}, {-INFINITY, -INFINITY}};
  for (int task = series; task < tasks; task += kMergeSeries) {
    const int eight = g.first_eight + task / kLanes;
    const int begin = plan.eights[eight], count = plan.eights[eight + 1] - begin;
    const std::int64_t first =
        (g.partial + begin) * kLanes + task % kLanes;  // then every kLanes-th
    float2 rows[kChunksTogether][2];
    float4 x[kChunksTogether];
#pragma unroll
    for (int p = 0; p < kChunksTogether; ++p) {
      rows[p][0] = rows[p][1] = {-INFINITY, 0};
      x[p] = {0, 0, 0, 0};
      if (p >= count || !there) continue;
      const std::int64_t partial = (first + p * kLanes) * kRows;
      x[p] =
          reinterpret_cast<const float4*>(partial_out + partial * kLatentWidth)[line * 32 + lane];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        if (at.row[i] < g.rows) rows[p][i] = partial_rows[partial + at.row[i]];
      }
    }
    MergedSums sums{{0, 0, 0, 0}, {0, 0}, {-INFINITY, -INFINITY}};
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int p = 0; p < kChunksTogether; ++p) {
        sums.reference[i] = fmaxf(sums.reference[i], rows[p][i].x);
      }
    }
#pragma unroll
    for (int p = 0; p < kChunksTogether; ++p) {
      float weight[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        weight[i] = between(rows[p][i].x, sums.reference[i]);
        sums.sum[i] = __fmaf_rn(rows[p][i].y, weight[i], sums.sum[i]);
      }
      const float of[4] = {x[p].x, x[p].y, x[p].z, x[p].w};
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        sums.x[e] = __fmaf_rn(of[e], weight[kMany ? e / 2 : e % 2], sums.x[e]);
      }
    }
    total.add<kMany>(sums);
  }
  __shared__ MergedSums parts[kMergeWarps][32];
  if (series_count > 1) {
    parts[warp][lane] = total;
    __syncthreads();
    if (series > 0) return;
    for (int s = 1; s < min(series_count, tasks); ++s)
      total.add<kMany>(parts[s * lines + warp][lane]);
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    if (at.row[i] >= g.rows) continue;
    const int flat = g.first_row + at.row[i];
    float* to = g.out + flat / g.heads * g.out_stride + flat % g.heads * kLatentWidth;
    const float by = 1 / total.sum[i];
    if constexpr (kMany) {
      *reinterpret_cast<float2*>(to + at.column[0]) = {__fmul_rn(total.x[2 * i], by),
                                                       __fmul_rn(total.x[2 * i + 1], by)};
    } else {
      to[at.column[0]] = __fmul_rn(total.x[i], by);
      to[at.column[1]] = __fmul_rn(total.x[2 + i], by);
    }
  }
}

}  // namespace cachalot::cuda
