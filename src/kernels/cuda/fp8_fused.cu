// The ops of kernels/fp8_fused.h on the GPU: what they would write as floats is quantised in
// registers.
#include "kernels/cuda/fp8_panels.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/swiglu.cuh"

namespace cachalot::cuda {

namespace {

// --- norm: a block for a row, a warp for every tile of 1 x 128 whose number is its own modulo the
// warps. kTiles: how many a warp keeps in registers; longer rows are read twice.

struct NormRows {
  int rows = 0, cols = 0;
  PanelValues<float> x;
  const float* weight = nullptr;
  bool weight_wide = false;
  float eps = 0;
  float* y = nullptr;  // null: not wanted
  std::ptrdiff_t y_stride = 0;
  bool y_wide = false;
  float* rstd = nullptr;
  numeric::ScaleKind kind = numeric::ScaleKind::kPow2;
  PanelOut out;
};

__device__ __forceinline__ Panel row_tile(const NormRows& a, int row, int tile) {
  Panel p;
  p.job = 0;
  p.row = row;
  p.col = tile * kPanel;
  p.rows = 1;
  p.cols = min(kPanel, a.cols - p.col);
  p.warp = static_cast<int>(threadIdx.x) / 32;
  p.lane = static_cast<int>(threadIdx.x) % 32;
  return p;
}
__device__ __forceinline__ void read_weight(const NormRows& a, const Panel& p, float (&w)[4]) {
  Panel first = p;
  first.row = 0;
  read_row(PanelValues<float>{a.weight, 0, a.weight_wide}, first, 0, w);
}

__device__ __forceinline__ float sum_of_warp(float x) {
#pragma unroll
  for (int i = 16; i > 0; i /= 2) x = __fadd_rn(x, __shfl_xor_sync(0xFFFFFFFFu, x, i));
  return x;
}

template <bool kPow2>
__device__ __forceinline__ void write_norm(const NormRows& a, const Panel& p, float rstd,
                                           const float (&x)[4], const float (&w)[4]) {
  float y[1][4];
#pragma unroll
  for (int j = 0; j < 4; ++j) y[0][j] = __fmul_rn(__fmul_rn(x[j], rstd), w[j]);
  if (a.y != nullptr) {
    float* to = a.y + p.row * a.y_stride + p.col + 4 * p.lane;
    if (a.y_wide && p.mine() >= 4) {
      *reinterpret_cast<float4*>(to) = make_float4(y[0][0], y[0][1], y[0][2], y[0][3]);
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (j < p.mine()) to[j] = y[0][j];
      }
    }
  }
  write_row_tiles<kPow2>(y, a.kind, a.out, p, 0);
}

template <bool kPow2, int kWarps, int kTiles>
__global__ void __launch_bounds__(32 * kWarps, kTiles > 4 ? 3 : 32 / kWarps)
    norm_rows(const __grid_constant__ NormRows a) {
  __shared__ float sums[2][kWarps];
  const int tiles = (a.cols + kPanel - 1) / kPanel;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  int turn = 0;
  for (int row = static_cast<int>(blockIdx.x); row < a.rows;
       row += static_cast<int>(gridDim.x), turn ^= 1) {
    float x[kTiles][4];
    float sum = 0;
#pragma unroll
    for (int k = 0; k < kTiles; ++k) {
      const int tile = warp + k * kWarps;
      if (tile < tiles) read_row(a.x, row_tile(a, row, tile), 0, x[k]);
    }
#pragma unroll
    for (int k = 0; k < kTiles; ++k) {
      if (warp + k * kWarps >= tiles) break;
#pragma unroll
      for (int j = 0; j < 4; ++j) sum = __fmaf_rn(x[k][j], x[k][j], sum);
    }
    for (int tile = warp + kTiles * kWarps; tile < tiles; tile += kWarps) {
      float more[4];
      read_row(a.x, row_tile(a, row, tile), 0, more);
#pragma unroll
      for (int j = 0; j < 4; ++j) sum = __fmaf_rn(more[j], more[j], sum);
    }
    sum = sum_of_warp(sum);
    if (lane == 0) sums[turn][warp] = sum;
    __syncthreads();  // one a row: the other half of `sums` is for the next one
    float total = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) total = __fadd_rn(total, sums[turn][w]);
    const float rstd =
        __frcp_rn(__fsqrt_rn(__fadd_rn(__fdiv_rn(total, static_cast<float>(a.cols)), a.eps)));
    if (threadIdx.x == 0 && a.rstd != nullptr) a.rstd[row] = rstd;
#pragma unroll
    for (int k = 0; k < kTiles; ++k) {
      const int tile = warp + k * kWarps;
      if (tile >= tiles) break;
      const Panel p = row_tile(a, row, tile);
      float w[4];
      read_weight(a, p, w);
      write_norm<kPow2>(a, p, rstd, x[k], w);
    }
    for (int tile = warp + kTiles * kWarps; tile < tiles; tile += kWarps) {
      const Panel p = row_tile(a, row, tile);
      float w[4], more[4];
      read_row(a.x, p, 0, more);
      read_weight(a, p, w);
      write_norm<kPow2>(a, p, rstd, more, w);
    }
  }
}

template <int kWarps, int kTiles>
void launch_norm(const Context& ctx, const NormRows& a) {
  const int blocks = std::min(a.rows, device_of(ctx).processors() * (64 / kWarps) * 4);
  if (is_pow2(a.kind)) {
    norm_rows<true, kWarps, kTiles><<<blocks, 32 * kWarps, 0, stream_of(ctx)>>>(a);
  } else {
    norm_rows<false, kWarps, kTiles><<<blocks, 32 * kWarps, 0, stream_of(ctx)>>>(a);
  }
  check_launch("rms_norm_fp8");
}

// --- SwiGLU

struct SwigluOfFloats {
  int rows = 0, cols = 0;
  PanelValues<float> gate, up;
  numeric::ScaleKind kind = numeric::ScaleKind::kPow2, keep_kind = numeric::ScaleKind::kPow2;
  PanelOut out[2];
  PanelOut keep_gate, keep_up;

  bool pow2() const {
    return is_pow2(kind) && ((keep_gate.codes == nullptr && keep_up.codes == nullptr) || is_pow2(keep_kind));
  }
  template <bool kPow2>
  __device__ __forceinline__ void read(const Panel& p, int first, float (&x)[kReadRows][4]) const {
    float u[kReadRows][4];
    read_values(gate, p, first, x);
    read_values(up, p, first, u);
    if (keep_gate.codes != nullptr) write_row_tiles<kPow2>(x, keep_kind, keep_gate, p, first);
    if (keep_up.codes != nullptr) write_row_tiles<kPow2>(u, keep_kind, keep_up, p, first);
#pragma unroll
    for (int i = 0; i < kReadRows; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) x[i][j] = gated(x[i][j], u[i][j]);
    }
  }
};

struct SwigluOfCodes {
  int rows = 0, cols = 0;
  PanelCodes gate, up;
  numeric::ScaleKind kind = numeric::ScaleKind::kPow2;
  PanelOut out[2];

  bool pow2() const { return is_pow2(kind); }
  template <bool kPow2>
  __device__ __forceinline__ void read(const Panel& p, int first, float (&x)[kReadRows][4]) const {
    float u[kReadRows][4];
    read_values(gate, p, first, x);
    read_values(up, p, first, u);
#pragma unroll
    for (int i = 0; i < kReadRows; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) x[i][j] = gated(x[i][j], u[i][j]);
    }
  }
};

}  // namespace

void rms_norm_fp8(const Context& ctx, const RmsNormFp8& a) {
  const RmsNorm<float>& n = a.norm;
  if (n.x.empty()) return;
  NormRows r;
  r.rows = n.x.rows;
  r.cols = n.x.cols;
  r.x = panel_values(n.x);
  r.weight = n.weight.data();
  r.weight_wide = aligned(r.weight, 0, 16);
  r.eps = n.eps;
  if (n.y.rows > 0) {
    r.y = n.y.data;
    r.y_stride = n.y.stride;
    r.y_wide = aligned(n.y.data, n.y.stride, 16);
  }
  r.rstd = n.rstd.empty() ? nullptr : n.rstd.data();
  r.kind = a.kind;
  r.out = panel_out(a.out);
  const int tiles = ceil_div(r.cols, kPanel);
  if (tiles <= 4) return launch_norm<1, 4>(ctx, r);
  if (tiles <= 16) return launch_norm<4, 4>(ctx, r);
  launch_norm<8, 8>(ctx, r);
}

void swiglu_fp8(const Context& ctx, std::span<const SwigluFp8> jobs) {
  std::vector<SwigluOfFloats> floats;
  std::vector<SwigluOfCodes> codes;
  for (const SwigluFp8& a : jobs) {
    if (a.gate.rows == 0 && a.kept_gate.rows > 0) {
      codes.push_back({a.out.rows, a.out.cols, panel_codes(a.kept_gate), panel_codes(a.kept_up),
                       a.kind, {panel_out(a.out), panel_out(a.also)}});
    } else {
      floats.push_back({a.out.rows, a.out.cols, panel_values(a.gate), panel_values(a.up), a.kind,
                        a.keep_kind, {panel_out(a.out), panel_out(a.also)},
                        panel_out(a.keep_gate), panel_out(a.keep_up)});
    }
  }
  quantize_jobs(ctx, floats, false, "swiglu_fp8");
  quantize_jobs(ctx, codes, false, "swiglu_fp8");
}

}  // namespace cachalot::cuda
