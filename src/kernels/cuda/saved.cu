// Storage formats on the GPU: kernels/saved.h.
//
// A warp has one tile of 1 x 128 of a row at a time, a lane four neighbouring values of it; rows'
// tiles are numbered through the matrix.
#include "kernels/cuda/fp8_panels.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/saved.cuh"

namespace cachalot::cuda {

namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps;

// --- bf16

struct Plain {
  int rows, cols;
  const void* from;
  void* to;
  std::ptrdiff_t from_stride, to_stride;
  bool wide;  // eight at once
};

// The warp's row and the thread's first column of `width` ones; false past the end.
template <int kWidth>
__device__ __forceinline__ bool find(int rows, int cols, std::ptrdiff_t& row, int& col) {
  const auto across = static_cast<std::uint32_t>((cols + 32 * kWidth - 1) / (32 * kWidth));
  const std::uint32_t at = blockIdx.x * kWarps + threadIdx.x / 32;
  row = at / across;
  col = static_cast<int>(at % across) * 32 * kWidth + static_cast<int>(threadIdx.x % 32) * kWidth;
  return row < rows;
}
int blocks_of(int rows, int cols, int width) {
  return ceil_div(static_cast<std::int64_t>(rows) * ceil_div(cols, 32 * width), kWarps);
}

__global__ void __launch_bounds__(kThreads) store_halves(const Plain a) {
  std::ptrdiff_t row;
  int col;
  if (!find<8>(a.rows, a.cols, row, col)) return;
  const float* from = static_cast<const float*>(a.from) + row * a.from_stride + col;
  Bf16* to = static_cast<Bf16*>(a.to) + row * a.to_stride + col;
  if (a.wide && col + 8 <= a.cols) {
    const float4 x = __ldg(reinterpret_cast<const float4*>(from));
    const float4 y = __ldg(reinterpret_cast<const float4*>(from) + 1);
    *reinterpret_cast<uint4*>(to) =
        make_uint4(bf16_bits(x.x) | bf16_bits(x.y) << 16, bf16_bits(x.z) | bf16_bits(x.w) << 16,
                   bf16_bits(y.x) | bf16_bits(y.y) << 16, bf16_bits(y.z) | bf16_bits(y.w) << 16);
    return;
  }
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    if (col + j < a.cols) to[j].bits = static_cast<std::uint16_t>(bf16_bits(from[j]));
  }
}

__global__ void __launch_bounds__(kThreads) load_halves(const Plain a) {
  std::ptrdiff_t row;
  int col;
  if (!find<8>(a.rows, a.cols, row, col)) return;
  const Bf16* from = static_cast<const Bf16*>(a.from) + row * a.from_stride + col;
  float* to = static_cast<float*>(a.to) + row * a.to_stride + col;
  if (a.wide && col + 8 <= a.cols) {
    const uint4 u = __ldg(reinterpret_cast<const uint4*>(from));
    const auto low = [](std::uint32_t w) { return __uint_as_float(w << 16); };
    const auto high = [](std::uint32_t w) { return __uint_as_float(w & 0xFFFF0000u); };
    auto* out = reinterpret_cast<float4*>(to);
    out[0] = make_float4(low(u.x), high(u.x), low(u.y), high(u.y));
    out[1] = make_float4(low(u.z), high(u.z), low(u.w), high(u.w));
    return;
  }
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    if (col + j < a.cols) to[j] = widen(from[j]);
  }
}

// --- E5M6: eight values of a lane are three words; a warp's 384 bytes go through shared memory, so
// that memory sees whole pieces of 16.

constexpr int kPackedWords = 96;

struct Packed {
  int rows, cols, tiles;
  MatView<float> x;
  std::uint8_t* packed;  // [rows, row_bytes]
  std::uint8_t* scales;  // [rows, tiles]
  std::int64_t row_bytes;
  bool x_wide, packed_wide;
};

template <bool kStore>
__device__ __forceinline__ void move_packed(const Packed& a, std::ptrdiff_t row, int first,
                                            std::uint32_t* words) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const std::int64_t begin = static_cast<std::int64_t>(first) / 2 * 3;
  const int bytes = static_cast<int>(min(std::int64_t{4 * kPackedWords}, a.row_bytes - begin));
  std::uint8_t* at = a.packed + row * a.row_bytes + begin;
  if (a.packed_wide && bytes == 4 * kPackedWords) {
    if (lane < kPackedWords / 4) {
      auto* outside = reinterpret_cast<uint4*>(at) + lane;
      auto* inside = reinterpret_cast<uint4*>(words) + lane;
      if constexpr (kStore) {
        *outside = *inside;
      } else {
        *inside = __ldg(outside);
      }
    }
    return;
  }
  auto* inside = reinterpret_cast<std::uint8_t*>(words);
  for (int i = lane; i < bytes; i += 32) {
    if constexpr (kStore) {
      at[i] = inside[i];
    } else {
      inside[i] = at[i];
    }
  }
}

__global__ void __launch_bounds__(kThreads) store_packed(const Packed a) {
  __shared__ uint4 shared[kWarps][kPackedWords / 4];
  std::ptrdiff_t row;
  int col;
  if (!find<8>(a.rows, a.cols, row, col)) return;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const float* from = a.x.data + row * a.x.stride + col;
  float x[8];
  if (a.x_wide && col + 8 <= a.cols) {
    float low[4], high[4];
    read_wide(from, low);
    read_wide(from + 4, high);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      x[j] = low[j];
      x[4 + j] = high[j];
    }
  } else {
#pragma unroll
    for (int j = 0; j < 8; ++j) x[j] = col + j < a.cols ? from[j] : 0.0f;
  }
  std::uint32_t largest = 0;
#pragma unroll
  for (int j = 0; j < 8; ++j) largest = max(largest, __float_as_uint(x[j]) & 0x7FFFFFFFu);
#pragma unroll
  for (int s = 8; s > 0; s /= 2) {  // half a warp has a tile
    largest = max(largest, __shfl_xor_sync(0xFFFFFFFFu, largest, s));
  }
  const std::uint32_t scale = e5m6_scale_of(largest);
  if (lane % 16 == 0 && col < a.cols) {
    a.scales[row * a.tiles + col / kE5M6Tile] = static_cast<std::uint8_t>(scale);
  }
  std::uint32_t codes[8];
#pragma unroll
  for (int j = 0; j < 8; ++j) codes[j] = col + j < a.cols ? e5m6_code_of(x[j], scale) : 0u;
  auto* words = reinterpret_cast<std::uint32_t*>(shared[threadIdx.x / 32]);
  words[3 * lane] = codes[0] | codes[1] << 12 | codes[2] << 24;
  words[3 * lane + 1] = codes[2] >> 8 | codes[3] << 4 | codes[4] << 16 | codes[5] << 28;
  words[3 * lane + 2] = codes[5] >> 4 | codes[6] << 8 | codes[7] << 20;
  __syncwarp();
  move_packed<true>(a, row, col - 8 * lane, words);
}

__global__ void __launch_bounds__(kThreads) load_packed(const Packed a) {
  __shared__ uint4 shared[kWarps][kPackedWords / 4];
  std::ptrdiff_t row;
  int col;
  if (!find<8>(a.rows, a.cols, row, col)) return;
  const int lane = static_cast<int>(threadIdx.x % 32);
  auto* words = reinterpret_cast<std::uint32_t*>(shared[threadIdx.x / 32]);
  move_packed<false>(a, row, col - 8 * lane, words);
  __syncwarp();
  if (col >= a.cols) return;
  const std::uint32_t scale = __ldg(a.scales + row * a.tiles + col / kE5M6Tile);
  const std::uint32_t w[3] = {words[3 * lane], words[3 * lane + 1], words[3 * lane + 2]};
  const std::uint32_t codes[8] = {w[0],      w[0] >> 12, w[0] >> 24 | w[1] << 8,
                                  w[1] >> 4, w[1] >> 16, w[1] >> 28 | w[2] << 4,
                                  w[2] >> 8, w[2] >> 20};
  float x[8];
#pragma unroll
  for (int j = 0; j < 8; ++j) x[j] = e5m6_value_of(codes[j], scale);
  float* to = a.x.data + row * a.x.stride + col;
  if (a.x_wide && col + 8 <= a.cols) {
    reinterpret_cast<float4*>(to)[0] = make_float4(x[0], x[1], x[2], x[3]);
    reinterpret_cast<float4*>(to)[1] = make_float4(x[4], x[5], x[6], x[7]);
    return;
  }
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    if (col + j < a.cols) to[j] = x[j];
  }
}

// --- payloads

template <numeric::Payload kPayload>
__device__ __forceinline__ void round_trip(float (&x)[4]) {
  using numeric::Payload;
  if constexpr (kPayload == Payload::kBf16) {
#pragma unroll
    for (int j = 0; j < 4; ++j) x[j] = __uint_as_float(bf16_bits(x[j]) << 16);
  } else if constexpr (kPayload == Payload::kE4m3) {
    const TileScale t = tile_scale<true>(numeric::ScaleKind::kPow2, largest_in_warp(largest_of(x)));
    const std::uint32_t codes = codes_of<true, true>(x, t, t, t, t);
    multiply_out(codes, t.scale, x);
  } else if constexpr (kPayload == Payload::kE5m2) {
    through_e5m2(x, largest_in_warp(largest_of(x)));
  } else {
    std::uint32_t largest = 0, least = 0x7F800000u;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const std::uint32_t u = __float_as_uint(x[j]) & 0x7FFFFFFFu;
      largest = max(largest, u);
      if (u != 0) least = min(least, u);
    }
    largest = __reduce_max_sync(0xFFFFFFFFu, largest);
    least = __reduce_min_sync(0xFFFFFFFFu, least);
    through_logfmt(x, least, largest, numeric::logfmt_bits(kPayload));
  }
}

template <numeric::Payload kPayload>
__global__ void __launch_bounds__(kThreads) payload_tiles(MatView<float> a, bool wide) {
  std::ptrdiff_t row;
  int col;
  if (!find<4>(a.rows, a.cols, row, col)) return;
  float* at = a.data + row * a.stride + col;
  float x[4];
  const bool all = wide && col + 4 <= a.cols;
  if (all) {
    const float4 v = *reinterpret_cast<const float4*>(at);
    x[0] = v.x;
    x[1] = v.y;
    x[2] = v.z;
    x[3] = v.w;
  } else {
#pragma unroll
    for (int j = 0; j < 4; ++j) x[j] = col + j < a.cols ? at[j] : 0.0f;
  }
  round_trip<kPayload>(x);
  if (all) {
    *reinterpret_cast<float4*>(at) = make_float4(x[0], x[1], x[2], x[3]);
    return;
  }
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    if (col + j < a.cols) at[j] = x[j];
  }
}

Packed packed(MatView<float> x, std::uint8_t* codes, std::uint8_t* scales) {
  const int row_bytes = e5m6_row_bytes(x.cols);
  return {x.rows,
          x.cols,
          e5m6_tiles(x.cols),
          x,
          codes,
          scales,
          row_bytes,
          aligned(x.data, x.stride, 16),
          aligned(codes, row_bytes, 16)};
}

}  // namespace

void store_bf16(const Context& ctx, MatView<const float> x, MatView<Bf16> out) {
  if (x.empty()) return;
  const bool wide = aligned(x.data, x.stride, 16) && aligned(out.data, out.stride, 16);
  store_halves<<<blocks_of(x.rows, x.cols, 8), kThreads, 0, stream_of(ctx)>>>(
      {x.rows, x.cols, x.data, out.data, x.stride, out.stride, wide});
  check_launch("store_bf16");
}

void load_bf16(const Context& ctx, MatView<const Bf16> x, MatView<float> out) {
  if (x.empty()) return;
  const bool wide = aligned(x.data, x.stride, 16) && aligned(out.data, out.stride, 16);
  load_halves<<<blocks_of(x.rows, x.cols, 8), kThreads, 0, stream_of(ctx)>>>(
      {x.rows, x.cols, x.data, out.data, x.stride, out.stride, wide});
  check_launch("load_bf16");
}

void store_e5m6(const Context& ctx, MatView<const float> x, E5m6Mat& out) {
  if (x.empty()) return;
  // One description serves both ways: here x is read only.
  const MatView<float> values{const_cast<float*>(x.data), x.rows, x.cols, x.stride};
  store_packed<<<blocks_of(x.rows, x.cols, 8), kThreads, 0, stream_of(ctx)>>>(
      packed(values, out.row(0), out.scale_row(0)));
  check_launch("store_e5m6");
}

void load_e5m6(const Context& ctx, const E5m6Mat& x, MatView<float> out) {
  if (out.empty()) return;
  load_packed<<<blocks_of(out.rows, out.cols, 8), kThreads, 0, stream_of(ctx)>>>(
      packed(out, const_cast<std::uint8_t*>(x.row(0)), const_cast<std::uint8_t*>(x.scale_row(0))));
  check_launch("load_e5m6");
}

void payload_round_trip(const Context& ctx, numeric::Payload payload, MatView<float> x) {
  using numeric::Payload;
  if (x.empty()) return;
  const bool wide = aligned(x.data, x.stride, 16);
  const auto launch = [&](auto* kernel) {
    kernel<<<blocks_of(x.rows, x.cols, 4), kThreads, 0, stream_of(ctx)>>>(x, wide);
    check_launch("payload_round_trip");
  };
  switch (payload) {
    case Payload::kBf16:
      return launch(payload_tiles<Payload::kBf16>);
    case Payload::kE4m3:
      return launch(payload_tiles<Payload::kE4m3>);
    case Payload::kE5m2:
      return launch(payload_tiles<Payload::kE5m2>);
    case Payload::kLogFmt8:
      return launch(payload_tiles<Payload::kLogFmt8>);
    case Payload::kLogFmt10:
      return launch(payload_tiles<Payload::kLogFmt10>);
  }
}

}  // namespace cachalot::cuda
