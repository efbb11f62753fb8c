// What the kernels bound by memory share: vectors of a row, launches over rows, sums of a block.
//
// A row is read in packs of V elements, 16 bytes at least where it lies so; else element by
// element (V = 1), which is slow but right for any stride and any address.
#pragma once

#include <algorithm>
#include <bit>

#include "kernels/cuda/launch_early.cuh"
#include "tensor/mat.h"

namespace cachalot::cuda {

template <int V>
struct Floats {
  float v[V];
};

__device__ inline float widen(std::uint16_t bits) {
  return __uint_as_float(static_cast<unsigned>(bits) << 16);
}
__device__ inline unsigned narrow2(float low, float high) {  // two bf16, nearest, ties to even
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return static_cast<unsigned>(__bfloat16_as_ushort(pair.x)) |
         static_cast<unsigned>(__bfloat16_as_ushort(pair.y)) << 16;
}

// One pack as floats, whatever it is in memory. `p` is aligned to the pack, at most to 16 bytes.
template <int V>
__device__ Floats<V> load(const float* p) {
  Floats<V> x;
  if constexpr (V == 1) {
    x.v[0] = *p;
  } else if constexpr (V == 2) {
    const float2 w = *reinterpret_cast<const float2*>(p);
    x.v[0] = w.x, x.v[1] = w.y;
  } else {
#pragma unroll
    for (int i = 0; i < V; i += 4) {
      const float4 w = *reinterpret_cast<const float4*>(p + i);
      x.v[i] = w.x, x.v[i + 1] = w.y, x.v[i + 2] = w.z, x.v[i + 3] = w.w;
    }
  }
  return x;
}
// A pack as it lies in memory: half the registers while it is on its way.
template <int V>
struct Halves {
  static_assert(V == 4 || V == 8);
  unsigned w[V / 2];
};
template <int V>
__device__ auto load_raw(const Bf16* p) {
  if constexpr (V == 1) {
    return Floats<1>{{widen(p->bits)}};
  } else if constexpr (V == 8) {
    const uint4 q = *reinterpret_cast<const uint4*>(p);
    return Halves<8>{{q.x, q.y, q.z, q.w}};
  } else {
    const uint2 q = *reinterpret_cast<const uint2*>(p);
    return Halves<4>{{q.x, q.y}};
  }
}
template <int V>
__device__ Floats<V> widen(const Halves<V>& h) {
  Floats<V> x;
#pragma unroll
  for (int i = 0; i < V / 2; ++i) {
    x.v[2 * i] = __uint_as_float(h.w[i] << 16);
    x.v[2 * i + 1] = __uint_as_float(h.w[i] & 0xFFFF0000U);
  }
  return x;
}
template <int V>
__device__ Floats<V> widen(const Floats<V>& x) {
  return x;
}
template <int V>
__device__ Floats<V> load(const Bf16* p) {
  return widen(load_raw<V>(p));
}
template <int V>
__device__ Floats<V> load_raw(const float* p) {
  return load<V>(p);
}
template <int V>
__device__ void store(float* p, const Floats<V>& x) {
  if constexpr (V == 1) {
    *p = x.v[0];
  } else if constexpr (V == 2) {
    *reinterpret_cast<float2*>(p) = make_float2(x.v[0], x.v[1]);
  } else {
#pragma unroll
    for (int i = 0; i < V; i += 4) {
      *reinterpret_cast<float4*>(p + i) = make_float4(x.v[i], x.v[i + 1], x.v[i + 2], x.v[i + 3]);
    }
  }
}
template <int V>
__device__ void store(Bf16* p, const Floats<V>& x) {
  if constexpr (V == 1) {
    p->bits = __bfloat16_as_ushort(__float2bfloat16_rn(x.v[0]));
  } else if constexpr (V == 8) {
    *reinterpret_cast<uint4*>(p) = make_uint4(narrow2(x.v[0], x.v[1]), narrow2(x.v[2], x.v[3]),
                                              narrow2(x.v[4], x.v[5]), narrow2(x.v[6], x.v[7]));
  } else {
    static_assert(V == 4);
    *reinterpret_cast<uint2*>(p) = make_uint2(narrow2(x.v[0], x.v[1]), narrow2(x.v[2], x.v[3]));
  }
}

// Whether every row can be read in packs of V.
template <int V, class T>
bool in_packs(const T* data, std::ptrdiff_t stride, int cols) {
  constexpr std::ptrdiff_t kElements = std::min<std::ptrdiff_t>(V, 16 / sizeof(T));
  return cols % V == 0 && stride % kElements == 0 &&
         reinterpret_cast<std::uintptr_t>(data) % (kElements * sizeof(T)) == 0;
}
template <int V, class T>
bool in_packs(MatView<T> m) {
  return in_packs<V>(m.data, m.rows > 1 ? m.stride : 0, m.cols);
}

// A thread per pack: `x` threads along a row, so that few of the last block's are idle, and as many
// rows as make up 256.
struct RowGrid {
  dim3 block;
  unsigned blocks;  // col_blocks of them share their rows
  int col_blocks;
};
inline RowGrid row_grid(int rows, int packs) {
  constexpr int kThreads = 256;
  const int col_blocks = ceil_div(packs, kThreads);
  const int share = ceil_div(packs, col_blocks);
  const int x = share > 16 ? ceil_div(share, 32) * 32
                           : static_cast<int>(std::bit_ceil(static_cast<unsigned>(share)));
  const int y = std::max(1, kThreads / x);
  return {dim3(static_cast<unsigned>(x), static_cast<unsigned>(y)),
          static_cast<unsigned>(ceil_div(rows, y)) * static_cast<unsigned>(col_blocks), col_blocks};
}
template <class F>
__global__ void __launch_bounds__(256) row_kernel(F f, int rows, int packs, int col_blocks) {
  after_those_before();
  const int row = static_cast<int>(blockIdx.x / col_blocks * blockDim.y + threadIdx.y);
  const int pack = static_cast<int>(blockIdx.x % col_blocks * blockDim.x + threadIdx.x);
  if (row < rows && pack < packs) f(row, pack);
}
// f(row, pack) for each of rows x packs.
template <class F>
void for_packs(const Context& ctx, const char* name, int rows, int packs, const F& f) {
  if (rows == 0 || packs == 0) return;
  const RowGrid g = row_grid(rows, packs);
  launch_early(ctx, name, row_kernel<F>, dim3(g.blocks), g.block, 0, f, rows, packs, g.col_blocks);
}

// A block per row where rows have sums: threads in whole warps, as many as the row keeps busy.
inline int row_threads(int packs, int most = 256) {
  const int turns = std::max(1, ceil_div(packs, most));
  return std::clamp(ceil_div(ceil_div(packs, turns), 32) * 32, 32, most);
}

template <class T>
__device__ T warp_sum(T x) {  // in every lane
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(0xFFFFFFFFU, x, offset);
  return x;
}
// The sum over the block, in every thread; a fixed order. `room` holds 32 values and is free again
// after the block's next barrier.
template <class T>
__device__ T block_sum(T x, T* room) {
  x = warp_sum(x);
  if (blockDim.x == 32) return x;
  if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = x;
  __syncthreads();
  const int lane = threadIdx.x % 32;
  return warp_sum(lane < blockDim.x / 32 ? room[lane] : T{0});
}

}  // namespace cachalot::cuda
