// How the sums of a tile leave the registers of a product's warpgroup: to the matrix at once,
// through shared memory by the copy engine, or as pieces that others add up.
//
// A thread has rows r and r + 8 of its warp's 16 and, for each 16 columns, 4 side by side
// (tensor_map.cuh: map_interleaved_codes).
#pragma once

#include <cuda_bf16.h>

#include "kernels/cuda/gemm_fp8_shape.cuh"
#include "kernels/cuda/ptx.cuh"

namespace cachalot::cuda::fp8_product {

__device__ __forceinline__ std::uint32_t pack_bf16(float low, float high) {
  const __nv_bfloat162 two = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&two);
}

// Where a tile's numbers go. `whole`: all of the tile exists, and its rows are aligned for stores
// of 4 numbers.
struct Output {
  float* c;
  Bf16* c_bf16;
  std::int64_t stride;
  int rows, cols;
  bool accumulate, whole;
};
__device__ __forceinline__ Output output_of(const Problem& p, const Item& item, int tile_rows,
                                            int tile_cols) {
  const int rows = p.rows(), cols = p.n;
  return {p.out,
          p.out_bf16,
          p.out_stride,
          rows,
          cols,
          p.accumulate,
          p.vectors && item.row + tile_rows <= rows && item.col + tile_cols <= cols};
}

// The 4 numbers at column 16 i of those this thread has in row `lower`: 0, or 1 for 8 rows below.
template <int kSums>
__device__ __forceinline__ float4 four(const float (&sum)[kSums], int i, int lower) {
  const int at = 8 * i + 2 * lower;
  return make_float4(sum[at], sum[at + 1], sum[at + 4], sum[at + 5]);
}

// Columns col + 16 i + {0, 1, 2, 3} of rows `row` and row + 8.
template <bool kWhole, bool kAccumulate, int kSums>
__device__ __forceinline__ void store_floats(const Output& out, const float (&sum)[kSums], int row,
                                             int col) {
  constexpr int kBatch = kSums / 8 < 4 ? kSums / 8 : 4;  // loads in flight
#pragma unroll
  for (int lower = 0; lower < 2; ++lower) {
    float* const to = out.c + (row + 8 * lower) * out.stride + col;
    const int exist = row + 8 * lower < out.rows ? out.cols - col : 0;  // of the row, from here on
#pragma unroll
    for (int first = 0; first < kSums / 8; first += kBatch) {
      float4 old[kBatch];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        const int at = 16 * (first + i);
        old[i] = make_float4(0, 0, 0, 0);
        if constexpr (kAccumulate && kWhole) {
          old[i] = *reinterpret_cast<const float4*>(to + at);
        } else if constexpr (kAccumulate) {
          if (at < exist) old[i].x = to[at];
          if (at + 1 < exist) old[i].y = to[at + 1];
          if (at + 2 < exist) old[i].z = to[at + 2];
          if (at + 3 < exist) old[i].w = to[at + 3];
        }
      }
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        const int at = 16 * (first + i);
        float4 value = four(sum, first + i, lower);
        if constexpr (kAccumulate) {
          value = make_float4(old[i].x + value.x, old[i].y + value.y, old[i].z + value.z,
                              old[i].w + value.w);
        }
        if constexpr (kWhole) {
          __stcs(reinterpret_cast<float4*>(to + at), value);
        } else {
          if (at < exist) to[at] = value.x;
          if (at + 1 < exist) to[at + 1] = value.y;
          if (at + 2 < exist) to[at + 2] = value.z;
          if (at + 3 < exist) to[at + 3] = value.w;
        }
      }
    }
  }
}

template <bool kWhole, int kSums>
__device__ __forceinline__ void store_bf16(const Output& out, const float (&sum)[kSums], int row,
                                           int col) {
#pragma unroll
  for (int lower = 0; lower < 2; ++lower) {
    Bf16* const to = out.c_bf16 + (row + 8 * lower) * out.stride + col;
    const int exist = row + 8 * lower < out.rows ? out.cols - col : 0;
#pragma unroll
    for (int i = 0; i < kSums / 8; ++i) {
      const float4 v = four(sum, i, lower);
      const uint2 words = make_uint2(pack_bf16(v.x, v.y), pack_bf16(v.z, v.w));
      const int at = 16 * i;
      if constexpr (kWhole) {
        *reinterpret_cast<uint2*>(to + at) = words;
      } else {
        if (at < exist) to[at].bits = static_cast<std::uint16_t>(words.x);
        if (at + 1 < exist) to[at + 1].bits = static_cast<std::uint16_t>(words.x >> 16);
        if (at + 2 < exist) to[at + 2].bits = static_cast<std::uint16_t>(words.y);
        if (at + 3 < exist) to[at + 3].bits = static_cast<std::uint16_t>(words.y >> 16);
      }
    }
  }
}

template <int kSums>
__device__ __forceinline__ void store(const Output& out, const float (&sum)[kSums], int row,
                                      int col) {
  if (out.c_bf16 != nullptr) {
    if (out.whole) {
      store_bf16<true>(out, sum, row, col);
    } else {
      store_bf16<false>(out, sum, row, col);
    }
  } else if (out.accumulate) {
    if (out.whole) {
      store_floats<true, true>(out, sum, row, col);
    } else {
      store_floats<false, true>(out, sum, row, col);
    }
  } else {
    if (out.whole) {
      store_floats<true, false>(out, sum, row, col);
    } else {
      store_floats<false, false>(out, sum, row, col);
    }
  }
}

template <int kSums>
__device__ __forceinline__ void clear(float (&sum)[kSums]) {
#pragma unroll
  for (int i = 0; i < kSums; ++i) sum[i] = 0;
}

// Leaves this warpgroup's piece of a tile. Where all others have left theirs: true, and `sum` is
// the sum of all, in the order of K.
template <class S>
__device__ bool combine(const typename S::Tiles& tiles, float4* partials, const Item& item,
                        typename S::Shared& shared, int rank, int group, int thread,
                        float (&sum)[S::kParts][S::kSums]) {
  const int first = tiles.first_worker(item.cut), last = tiles.last_worker(item.cut);
  if (first == last) return true;
  constexpr int kVectors = S::kSums / 4;
  const auto piece = [&](int worker) {
    const int slot = tiles.slot(worker, item.cut) * S::kCluster + rank;
    return partials +
           static_cast<std::int64_t>(slot * S::kGroups + group) * (S::kParts * kVectors * 128) +
           thread;
  };
  float4* const mine = piece(static_cast<int>(blockIdx.x) / S::kCluster);
#pragma unroll
  for (int part = 0; part < S::kParts; ++part) {
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      const float* v = &sum[part][4 * i];
      __stcg(mine + (part * kVectors + i) * 128, make_float4(v[0], v[1], v[2], v[3]));
    }
  }
  __threadfence();
  ptx::named_sync(1 + group, 128);
  if (thread == 0) {
    unsigned int* const counter = &counters[(item.cut * S::kCluster + rank) * S::kGroups + group];
    const unsigned int before = atomicAdd(counter, 1u);
    shared.arrived[group] = static_cast<int>(before);
    if (static_cast<int>(before) == last - first) *counter = 0;
  }
  ptx::named_sync(1 + group, 128);
  if (shared.arrived[group] != last - first) return false;
  __threadfence();
#pragma unroll
  for (int part = 0; part < S::kParts; ++part) {
    clear(sum[part]);
    for (int worker = first; worker <= last; ++worker) {
      const float4* const from = piece(worker) + part * kVectors * 128;
#pragma unroll
      for (int i = 0; i < kVectors; ++i) {
        const float4 v = __ldcg(from + i * 128);
        sum[part][4 * i] += v.x;
        sum[part][4 * i + 1] += v.y;
        sum[part][4 * i + 2] += v.z;
        sum[part][4 * i + 3] += v.w;
      }
    }
  }
  return true;
}

// Blocks of a cluster that have each a part of K: `mine` is the sum, in the order of K, of the
// columns that this block writes.
template <class S>
__device__ __forceinline__ void exchange(typename S::Shared& shared, int rank, int group,
                                         int thread, const float (&sum)[S::kSums],
                                         float (&mine)[S::kSums / S::kDeep]) {
  constexpr int kVectors = S::kSums / S::kDeep / 4;
  const auto slot = [&](int from, int i) { return ((from * S::kGroups) + group) * kVectors + i; };
#pragma unroll
  for (int to = 0; to < S::kDeep; ++to) {
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      const float* v = &sum[(to * kVectors + i) * 4];
      ptx::store_at(ptx::shared_address(&shared.exchanged[slot(rank, i)][thread]), to,
                    make_float4(v[0], v[1], v[2], v[3]));
    }
  }
  __syncwarp();
  const std::uint32_t barrier = ptx::shared_address(&shared.all_exchanged);
  if (thread % 32 < S::kDeep) ptx::barrier_arrive_release(barrier, thread % 32);
  ptx::barrier_wait_cluster(barrier, 0);
#pragma unroll
  for (int i = 0; i < S::kSums / S::kDeep; ++i) mine[i] = 0;
#pragma unroll
  for (int from = 0; from < S::kDeep; ++from) {
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      const float4 v = shared.exchanged[slot(from, i)][thread];
      mine[4 * i] += v.x;
      mine[4 * i + 1] += v.y;
      mine[4 * i + 2] += v.z;
      mine[4 * i + 3] += v.w;
    }
  }
}

// Hands a warpgroup's sums to the copy engine, as many boxes at a time as there is room for. kHalf:
// as bf16.
template <class S, bool kHalf>
__device__ __forceinline__ void stage_out(std::uint8_t* staged, const Problem& p, const Output& out,
                                          const float (&sum)[S::kParts][S::kSums], const Item& item,
                                          int group, int thread) {
  constexpr int kBoxBytes = 64 * 128, kWide = kHalf ? 64 : 32;  // columns of a box
  constexpr int kBoxes = S::kCols / kWide;                      // of a part
  constexpr int kRoom = S::kStagedBoxes;
  const int lane = thread % 32, quad = lane % 4;
  const int row = 16 * (thread / 32) + lane / 4;  // and 8 below: the same modulo 8
  // Odd rows have 16 columns in another order, so that what goes at once meets no bank twice.
  constexpr int kSwap = kHalf ? 2 : 1;
  const bool odd = row % 2 != 0;
  const int first_piece = (kHalf ? quad / 2 : quad) ^ (row % 8) ^ (odd ? 4 : 0);
#pragma unroll
  for (int first = 0; first < S::kParts * kBoxes; first += kRoom) {
    if (thread == 0) ptx::tma_store_wait_read();  // those before
    ptx::named_sync(1 + group, 128);
#pragma unroll
    for (int at = first; at < first + kRoom && at < S::kParts * kBoxes; ++at) {
      const auto& from = sum[at / kBoxes];
      const int box = at % kBoxes;
#pragma unroll
      for (int lower = 0; lower < 2; ++lower) {
        std::uint8_t* const to = staged + (at - first) * kBoxBytes + (row + 8 * lower) * 128;
#pragma unroll
        for (int i = 0; i < kWide / 16; ++i) {
          const float4 even = four(from, box * (kWide / 16) + i, lower);
          const float4 other = four(from, box * (kWide / 16) + (i ^ kSwap), lower);
          const int piece = first_piece ^ (i * (kHalf ? 2 : 4));
          if constexpr (kHalf) {
            const uint2 a = make_uint2(pack_bf16(even.x, even.y), pack_bf16(even.z, even.w));
            const uint2 b = make_uint2(pack_bf16(other.x, other.y), pack_bf16(other.z, other.w));
            *reinterpret_cast<uint2*>(to + piece * 16 + quad % 2 * 8) =
                make_uint2(odd ? b.x : a.x, odd ? b.y : a.y);
          } else {
            *reinterpret_cast<float4*>(to + piece * 16) =
                make_float4(odd ? other.x : even.x, odd ? other.y : even.y, odd ? other.z : even.z,
                            odd ? other.w : even.w);
          }
        }
      }
    }
    ptx::fence_shared_for_async();
    ptx::named_sync(1 + group, 128);
    if (thread == 0) {
      for (int at = first; at < first + kRoom && at < S::kParts * kBoxes; ++at) {
        const int x = item.col + at % kBoxes * kWide;
        const int y = item.row + 64 * (S::kParts * group + at / kBoxes);
        if (x >= p.n || y >= p.m) continue;
        const std::uint32_t from = ptx::shared_address(staged + (at - first) * kBoxBytes);
        if (out.accumulate) {
          ptx::tma_add(&p.c, from, x, y);
        } else {
          ptx::tma_store(&p.c, from, x, y);
        }
      }
      ptx::tma_store_commit();
    }
  }
}

}  // namespace cachalot::cuda::fp8_product
