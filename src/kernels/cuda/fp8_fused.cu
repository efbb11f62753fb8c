// The ops of kernels/fp8_fused.h on the GPU: what they would write as floats is quantised in
// registers.
#include "kernels/cuda/fp8_quantize.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/swiglu.cuh"

namespace cachalot::cuda {

namespace {

// --- norm: a block for a row, a warp for the tiles of 1 x 128 whose number is its own modulo the
// warps. kTiles: how many a warp keeps in registers while the next row comes in, with their weights
// if they are few; longer rows are read twice.

struct NormRows {
  int rows = 0, cols = 0;
  PanelValues<float> x, weight;
  float eps = 0;
  float* y = nullptr;  // null: not wanted
  int y_stride = 0;
  bool y_wide = false;
  float* rstd = nullptr;
  numeric::ScaleKind kind = numeric::ScaleKind::kPow2;
  PanelOut out;
};

// The lane's four values of a row's tile; zeros past the end.
__device__ __forceinline__ void read_tile(const NormRows& a, const PanelValues<float>& m, int row,
                                          int tile, int lane, float (&x)[4]) {
  const int col = tile * kPanel + 4 * lane;
  const float* from = element(m.data, row, m.stride, col);
  if (m.wide && col + 4 <= a.cols) {
    read_wide(from, x);
    return;
  }
#pragma unroll
  for (int j = 0; j < 4; ++j) x[j] = col + j < a.cols ? from[j] : 0.0f;
}

__device__ __forceinline__ float sum_of_warp(float x) {
#pragma unroll
  for (int i = 16; i > 0; i /= 2) x = __fadd_rn(x, __shfl_xor_sync(0xFFFFFFFFu, x, i));
  return x;
}

// x becomes what is written of it.
template <bool kPow2, int kTiles, int kWarps>
__device__ __forceinline__ void write_norm(const NormRows& a, int row, int first, int lane,
                                           float rstd, float (&x)[kTiles][4],
                                           const float (&w)[kTiles][4]) {
#pragma unroll
  for (int k = 0; k < kTiles; ++k) {
#pragma unroll
    for (int j = 0; j < 4; ++j) x[k][j] = __fmul_rn(__fmul_rn(x[k][j], rstd), w[k][j]);
    const int col = (first + k * kWarps) * kPanel + 4 * lane;
    if (a.y == nullptr || col >= a.cols) continue;
    float* to = element(a.y, row, a.y_stride, col);
    if (a.y_wide && col + 4 <= a.cols) {
      *reinterpret_cast<float4*>(to) = make_float4(x[k][0], x[k][1], x[k][2], x[k][3]);
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (col + j < a.cols) to[j] = x[k][j];
      }
    }
  }
  std::uint8_t* codes_of_row = element(a.out.codes, row, a.out.stride, first * kPanel + 4 * lane);
  const int left = a.cols - first * kPanel - 4 * lane;
  const bool whole = a.out.wide && (first + (kTiles - 1) * kWarps + 1) * kPanel <= a.cols;
  const auto write = [&]<bool kWhole>(int k, std::uint32_t codes) {
    std::uint8_t* to = codes_of_row + k * kWarps * kPanel;
    const int mine = left - k * kWarps * kPanel;
    if (kWhole || (a.out.wide && mine >= 4)) {
      *reinterpret_cast<std::uint32_t*>(to) = codes;
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (j < mine) to[j] = static_cast<std::uint8_t>(codes >> (8 * j));
      }
    }
  };
  const float scale = quantize_tiles<kPow2>(x, a.kind, lane, whole, write);
  const int tile = first + lane * kWarps;
  if (lane < kTiles && tile * kPanel < a.cols) {
    *element(a.out.scales, row, a.out.scale_stride, tile) = scale;
  }
}

template <bool kPow2, int kWarps, int kTiles>
__global__ void __launch_bounds__(32 * kWarps, kTiles > 4 ? 2 : 20 / kWarps)
    norm_rows(const __grid_constant__ NormRows a) {
  __shared__ float sums[2][kWarps];
  const int tiles = (a.cols + kPanel - 1) / kPanel;
  const int warp = static_cast<int>(threadIdx.x / 32), lane = static_cast<int>(threadIdx.x % 32);
  constexpr bool kKeepWeight = kTiles <= 4;
  float weight[kTiles][4], next[kTiles][4];
  const int begin = static_cast<int>(blockIdx.x), step = static_cast<int>(gridDim.x);
#pragma unroll
  for (int k = 0; k < kTiles; ++k) {
    if (kKeepWeight) read_tile(a, a.weight, 0, warp + k * kWarps, lane, weight[k]);
    read_tile(a, a.x, begin, warp + k * kWarps, lane, next[k]);
  }
  int turn = 0;
  for (int row = begin; row < a.rows; row += step, turn ^= 1) {
    float x[kTiles][4];
    float sum = 0;
#pragma unroll
    for (int k = 0; k < kTiles; ++k) {
#pragma unroll
      for (int j = 0; j < 4; ++j) x[k][j] = next[k][j];
      if (row + step < a.rows) {
        read_tile(a, a.x, row + step, warp + k * kWarps, lane, next[k]);
      }
    }
#pragma unroll
    for (int k = 0; k < kTiles; ++k) {
#pragma unroll
      for (int j = 0; j < 4; ++j) sum = __fmaf_rn(x[k][j], x[k][j], sum);
    }
    for (int tile = warp + kTiles * kWarps; tile < tiles; tile += kWarps) {
      float more[4];
      read_tile(a, a.x, row, tile, lane, more);
#pragma unroll
      for (int j = 0; j < 4; ++j) sum = __fmaf_rn(more[j], more[j], sum);
    }
    sum = sum_of_warp(sum);
    float total = sum;
    if constexpr (kWarps > 1) {
      if (lane == 0) sums[turn][warp] = sum;
      __syncthreads();  // one a row: the other half of `sums` is for the next one
      total = 0;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) total = __fadd_rn(total, sums[turn][w]);
    }
    const float rstd =
        __frcp_rn(__fsqrt_rn(__fadd_rn(__fdiv_rn(total, static_cast<float>(a.cols)), a.eps)));
    if (threadIdx.x == 0 && a.rstd != nullptr) a.rstd[row] = rstd;
    if constexpr (!kKeepWeight) {
#pragma unroll
      for (int k = 0; k < kTiles; ++k) {
        read_tile(a, a.weight, 0, warp + k * kWarps, lane, weight[k]);
      }
    }
    write_norm<kPow2, kTiles, kWarps>(a, row, warp, lane, rstd, x, weight);
    for (int tile = warp + kTiles * kWarps; tile < tiles; tile += kWarps) {
      float more[1][4], w[1][4];
      read_tile(a, a.x, row, tile, lane, more[0]);
      read_tile(a, a.weight, 0, tile, lane, w[0]);
      write_norm<kPow2, 1, kWarps>(a, row, tile, lane, rstd, more, w);
    }
  }
}

template <int kWarps, int kTiles>
void launch_norm(const Context& ctx, const NormRows& a) {
  const int resident = device_of(ctx).processors() * (kTiles > 4 ? 2 : 20 / kWarps);
  const int turns = ceil_div(a.rows, resident);  // of every block, as even as can be
  const int blocks = ceil_div(a.rows, turns);
  if (is_pow2(a.kind)) {
    norm_rows<true, kWarps, kTiles><<<blocks, 32 * kWarps, 0, stream_of(ctx)>>>(a);
  } else {
    norm_rows<false, kWarps, kTiles><<<blocks, 32 * kWarps, 0, stream_of(ctx)>>>(a);
  }
  check_launch("rms_norm_fp8");
}

// --- SwiGLU

template <int kRows>
__device__ __forceinline__ void gate_rows(float (&x)[kRows][4], const float (&up)[kRows][4]) {
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) x[i][j] = gated(x[i][j], up[i][j]);
  }
}

template <class T>
struct SwigluOfValues {
  int rows = 0, cols = 0;
  PanelValues<T> gate, up;
  numeric::ScaleKind kind = numeric::ScaleKind::kPow2, keep_kind = numeric::ScaleKind::kPow2;
  PanelOut keep_gate, keep_up;
  PanelOut along, across;

  static constexpr bool kTransposes = false;
  static constexpr int blocks(bool, Wanted) { return 2; }
  bool pow2() const {
    return is_pow2(kind) &&
           ((keep_gate.codes == nullptr && keep_up.codes == nullptr) || is_pow2(keep_kind));
  }

  class Reader {
   public:
    static constexpr bool kStaged = false;
    __device__ Reader(const SwigluOfValues& a, const Panel& p)
        : gate_(a.gate, p),
          up_(a.up, p),
          keep_gate_(a.keep_gate, p),
          keep_up_(a.keep_up, p),
          keep_kind_(a.keep_kind) {}
    template <bool kPow2>
    __device__ __forceinline__ void read(int row, float (&x)[kReadRows][4]) const {
      float u[kReadRows][4];
      gate_.read(row, x);
      up_.read(row, u);
      keep_gate_.template write<kPow2>(x, keep_kind_, row);
      keep_up_.template write<kPow2>(u, keep_kind_, row);
      gate_rows(x, u);
    }

   private:
    ValuesReader<T> gate_, up_;
    RowTilesWriter keep_gate_, keep_up_;
    numeric::ScaleKind keep_kind_;
  };
};

template <class T>
SwigluOfValues<T> of_values(const SwigluFp8& a, MatView<const T> gate, MatView<const T> up) {
  return {a.out.rows, a.out.cols,  panel_values(gate),     panel_values(up),
          a.kind,     a.keep_kind, panel_out(a.keep_gate), panel_out(a.keep_up),
          {},         {}};
}

struct SwigluOfCodes {
  int rows = 0, cols = 0;
  PanelCodes gate, up;
  numeric::ScaleKind kind = numeric::ScaleKind::kPow2;
  PanelOut along, across;

  static constexpr bool kTransposes = false;
  static constexpr int blocks(bool, Wanted) { return 2; }
  bool pow2() const { return is_pow2(kind); }

  class Reader {
   public:
    static constexpr bool kStaged = true;
    static constexpr int kRowBytes = kPanel, kPanelBytes = 2 * kPanel * kRowBytes;
    __device__ Reader(const SwigluOfCodes& a, const Panel& p)
        : gate_(a.gate, p), up_(a.up, p), begin_(p.warp * kWarpRows * kRowBytes) {}
    template <bool kPow2>
    __device__ __forceinline__ void read(int row, float (&x)[kReadRows][4]) const {
      float u[kReadRows][4];
      gate_.read(row, x);
      up_.read(row, u);
      gate_rows(x, u);
    }
    __device__ bool wide() const { return gate_.wide() && up_.wide(); }
    template <bool kWhole>
    __device__ __forceinline__ void fetch(int half, char* panel) const {
      gate_.fetch<kWhole>(half, panel + begin_);
      up_.fetch<kWhole>(half, panel + kPanelBytes / 2 + begin_);
    }
    __device__ __forceinline__ void take(int row, const char* panel, float (&x)[4]) const {
      float u[4];
      gate_.take(row, panel + begin_, x);
      up_.take(row, panel + kPanelBytes / 2 + begin_, u);
#pragma unroll
      for (int j = 0; j < 4; ++j) x[j] = gated(x[j], u[j]);
    }

   private:
    CodesReader<> gate_, up_;
    int begin_;  // of the warp's rows
  };
};

}  // namespace

void rms_norm_fp8(const Context& ctx, const RmsNormFp8& a) {
  const RmsNorm<float>& n = a.norm;
  if (n.x.empty()) return;
  NormRows r;
  r.rows = n.x.rows;
  r.cols = n.x.cols;
  r.x = panel_values(n.x);
  r.weight = {n.weight.data(), 0, aligned(n.weight.data(), 0, 16)};
  r.eps = n.eps;
  if (n.y.rows > 0) {
    r.y = n.y.data;
    r.y_stride = short_stride(n.y.stride);
    r.y_wide = aligned(n.y.data, n.y.stride, 16);
  }
  r.rstd = n.rstd.empty() ? nullptr : n.rstd.data();
  r.kind = a.kind;
  r.out = panel_out(a.out);
  const int tiles = ceil_div(r.cols, kPanel);
  if (tiles <= 4) return launch_norm<1, 4>(ctx, r);
  if (tiles <= 16) return launch_norm<4, 4>(ctx, r);
  if (tiles <= 32) return launch_norm<8, 4>(ctx, r);
  launch_norm<8, 7>(ctx, r);
}

void swiglu_fp8(const Context& ctx, std::span<const SwigluFp8> jobs) {
  std::vector<SwigluOfValues<float>> floats;
  std::vector<SwigluOfValues<Bf16>> halves;
  std::vector<SwigluOfCodes> codes;
  for (const SwigluFp8& a : jobs) {
    const PanelOut out = panel_out(a.out), also = panel_out(a.also);
    if (a.gate.rows == 0 && a.kept_gate.rows > 0) {
      add_results(codes,
                  {a.out.rows,
                   a.out.cols,
                   panel_codes(a.kept_gate),
                   panel_codes(a.kept_up),
                   a.kind,
                   {},
                   {}},
                  out, also);
    } else if (a.gate_bf16.rows > 0) {
      add_results(halves, of_values(a, a.gate_bf16, a.up_bf16), out, also);
    } else {
      add_results(floats, of_values(a, a.gate, a.up), out, also);
    }
  }
  quantize_jobs(ctx, floats, "swiglu_fp8");
  quantize_jobs(ctx, halves, "swiglu_fp8");
  quantize_jobs(ctx, codes, "swiglu_fp8");
}

}  // namespace cachalot::cuda
