// SwiGLU's gradients in FP8 on the GPU. Three results have tiles along columns, whose scales are
// known only when all 128 rows were seen: a block computes its panel twice, the second time from
// operands that its cache still has, rather than keeping 192 KiB of floats.
#include "kernels/cuda/fp8_panels.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/swiglu.cuh"

namespace cachalot::cuda {

namespace {

enum Result { kDgate, kDup, kHidden, kResults };

struct BackwardJob {
  int rows = 0, cols = 0;
  PanelCodes gate, up;
  PanelValues<float> dout;
  const float* weight = nullptr;  // null: ones
  float* dweight = nullptr;       // null: not wanted
  float* partial = nullptr;       // [panels across, rows] of dweight
  numeric::ScaleKind kind = numeric::ScaleKind::kPow2;
  PanelOut row_tiles[2];            // dgate, dup
  PanelOut column_tiles[kResults];
};

// What one warp reads at once: rows' operands.
constexpr int kRowsAtOnce = 2;
struct Operands {
  float dout[kRowsAtOnce][4];
  std::uint32_t gate[kRowsAtOnce], up[kRowsAtOnce];
  float gate_scale[kRowsAtOnce], up_scale[kRowsAtOnce], weight[kRowsAtOnce];
};
__device__ __forceinline__ void read_operands(const BackwardJob& a, const Panel& p, int first,
                                              Operands& o) {
  read_values(a.dout, p, first, o.dout);
#pragma unroll
  for (int i = 0; i < kRowsAtOnce; ++i) {
    const int r = first + i;
    o.gate[i] = read_codes(a.gate, p, r);
    o.up[i] = read_codes(a.up, p, r);
    o.gate_scale[i] = read_row_scale(a.gate, p, r);
    o.up_scale[i] = read_row_scale(a.up, p, r);
    o.weight[i] = a.weight != nullptr && r < p.rows ? __ldg(a.weight + p.row + r) : 1.0f;
  }
}

// One row: the three results; returns the thread's part of dweight.
__device__ __forceinline__ float results_of(const Operands& o, int i, float (&dgate)[4],
                                            float (&dup)[4], float (&hidden)[4]) {
  float gate[4], up[4];
  multiply_out(o.gate[i], o.gate_scale[i], gate);
  multiply_out(o.up[i], o.up_scale[i], up);
  float sum = 0;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const float d = o.dout[i][j];
    const GatedBackward b = gated_backward(gate[j], up[j], __fmul_rn(d, o.weight[i]));
    dgate[j] = b.dgate;
    dup[j] = b.dup;
    hidden[j] = __fmul_rn(b.hidden, o.weight[i]);
    sum = __fmaf_rn(d, b.hidden, sum);
  }
  return sum;
}

struct BackwardMemory {
  float4 largest[kResults][kPanelWarps][kPanel / 4];
};
// Words of four codes of a column, as fp8_panels.cuh puts them: [result][row of words][column].
struct TransposedMemory {
  union {
    BackwardMemory columns;
    uint4 words[kResults][kPanel / 4][kPanel / 4];
  };
};

__device__ __forceinline__ void keep_largest(float (&m)[4], const float (&x)[4]) {
#pragma unroll
  for (int j = 0; j < 4; ++j) m[j] = larger(m[j], fabsf(x[j]));
}

// Rows' tiles and sums; columns' largest.
template <bool kPow2>
__device__ __forceinline__ void first_pass(const BackwardJob& a, const Panel& p,
                                           float (&m)[kResults][4]) {
#pragma unroll 1
  for (int i = 0; i < kWarpRows; i += kRowsAtOnce) {
    const int first = p.warp * kWarpRows + i;
    Operands o;
    read_operands(a, p, first, o);
    float dgate[kRowsAtOnce][4], dup[kRowsAtOnce][4], hidden[4], part[kRowsAtOnce];
#pragma unroll
    for (int k = 0; k < kRowsAtOnce; ++k) {
      part[k] = results_of(o, k, dgate[k], dup[k], hidden);
      keep_largest(m[kDgate], dgate[k]);
      keep_largest(m[kDup], dup[k]);
      keep_largest(m[kHidden], hidden);
    }
    write_row_tiles<kPow2>(dgate, a.kind, a.row_tiles[0], p, first);
    write_row_tiles<kPow2>(dup, a.kind, a.row_tiles[1], p, first);
    if (a.dweight == nullptr) continue;
#pragma unroll
    for (int k = 0; k < kRowsAtOnce; ++k) {
#pragma unroll
      for (int s = 16; s > 0; s /= 2) {
        part[k] = __fadd_rn(part[k], __shfl_xor_sync(0xFFFFFFFFu, part[k], s));
      }
      if (p.lane == k && first + k < p.rows) {
        a.partial[static_cast<std::ptrdiff_t>(p.col / kPanel) * a.rows + p.row + first + k] =
            part[k];
      }
    }
  }
}

template <bool kPow2, bool kTransposed>
__global__ void __launch_bounds__(kPanelThreads, kPow2 && !kTransposed ? 3 : 2)
    swiglu_backward_panels(const __grid_constant__ JobList<BackwardJob> list) {
  __shared__ std::conditional_t<kTransposed, TransposedMemory, BackwardMemory> memory;
  const BackwardJob* job;
  const Panel p = find_panel(list, job);
  const BackwardJob& a = *job;
  float m[kResults][4] = {};
  first_pass<kPow2>(a, p, m);

  BackwardMemory* shared;
  if constexpr (kTransposed) {
    shared = &memory.columns;
  } else {
    shared = &memory;
  }
#pragma unroll
  for (int e = 0; e < kResults; ++e) {
    shared->largest[e][p.warp][p.lane] = make_float4(m[e][0], m[e][1], m[e][2], m[e][3]);
  }
  __syncthreads();
  TileScale t[kResults][4];
#pragma unroll
  for (int e = 0; e < kResults; ++e) {
    float column[4] = {};
#pragma unroll
    for (int w = 0; w < kPanelWarps; ++w) {
      const float4 v = shared->largest[e][w][p.lane];
      column[0] = larger(column[0], v.x);
      column[1] = larger(column[1], v.y);
      column[2] = larger(column[2], v.z);
      column[3] = larger(column[3], v.w);
    }
    panel_scales<kPow2>(a.kind, a.column_tiles[e], p, column, nullptr, t[e]);
  }
  if constexpr (kTransposed) __syncthreads();  // the words take their place

  if constexpr (!kTransposed) {
#pragma unroll 1
    for (int i = 0; i < kWarpRows; i += kRowsAtOnce) {
      const int first = p.warp * kWarpRows + i;
      Operands o;
      read_operands(a, p, first, o);
#pragma unroll
      for (int k = 0; k < kRowsAtOnce; ++k) {
        float x[kResults][4];
        results_of(o, k, x[kDgate], x[kDup], x[kHidden]);
#pragma unroll
        for (int e = 0; e < kResults; ++e) {
          write_codes(a.column_tiles[e], p, first + k, codes_of<kPow2>(x[e], t[e]));
        }
      }
    }
  } else {
#pragma unroll 1
    for (int g = 0; g < kWarpRows / 4; ++g) {
      std::uint32_t words[kResults][4] = {};
#pragma unroll
      for (int i = 0; i < 4; i += kRowsAtOnce) {
        Operands o;
        read_operands(a, p, p.warp * kWarpRows + 4 * g + i, o);
        float x[kRowsAtOnce][kResults][4];
#pragma unroll
        for (int k = 0; k < kRowsAtOnce; ++k) {
          results_of(o, k, x[k][kDgate], x[k][kDup], x[k][kHidden]);
        }
#pragma unroll
        for (int e = 0; e < kResults; ++e) {
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            const std::uint32_t two =
                encode_e4m3x4(quotient<kPow2>(x[0][e][j], t[e][j]),
                              quotient<kPow2>(x[1][e][j], t[e][j]), 0.0f, 0.0f);
            words[e][j] |= two << (8 * i);
          }
        }
      }
#pragma unroll
      for (int e = 0; e < kResults; ++e) {
        memory.words[e][p.warp * 4 + g][p.lane ^ p.warp] =
            make_uint4(words[e][0], words[e][1], words[e][2], words[e][3]);
      }
    }
    __syncthreads();
#pragma unroll 1
    for (int e = 0; e < kResults; ++e) {
#pragma unroll 2
      for (int i = 0; i < kPanel * kPanelWarps / kPanelThreads; ++i) {
        const int at = static_cast<int>(threadIdx.x) + i * kPanelThreads;
        const int col = at / kPanelWarps, warp = at % kPanelWarps;
        const auto* rows = reinterpret_cast<const std::uint32_t*>(memory.words[e][4 * warp]);
        write_piece(a.column_tiles[e], p, col, kWarpRows * warp,
                    transposed_piece(rows, col, warp));
      }
    }
  }
}

// dweight of rows from its parts, panel by panel. Blocks are numbered through all jobs by rows.
__global__ void __launch_bounds__(kPanelThreads)
    sum_dweight(const __grid_constant__ JobList<BackwardJob> list) {
  const BackwardJob* job;
  const Panel p = find_panel(list, job);
  const BackwardJob& a = *job;
  const int r = static_cast<int>(threadIdx.x);
  if (a.dweight == nullptr || p.col != 0 || r >= p.rows) return;
  float sum = 0;
  for (int i = 0; i < (a.cols + kPanel - 1) / kPanel; ++i) {
    sum = __fadd_rn(sum, a.partial[static_cast<std::ptrdiff_t>(i) * a.rows + p.row + r]);
  }
  a.dweight[p.row + r] = sum;
}

template <bool kPow2, bool kTransposed>
void launch(const Context& ctx, const JobList<BackwardJob>& list, int panels) {
  swiglu_backward_panels<kPow2, kTransposed>
      <<<panels, kPanelThreads, 0, stream_of(ctx)>>>(list);
  check_launch("swiglu_backward_fp8");
}

}  // namespace

void swiglu_backward_fp8(const Context& ctx, std::span<const SwigluBackwardFp8> jobs) {
  swiglu_backward_fp8_transposed(ctx, jobs, {});
}

void swiglu_backward_fp8_transposed(const Context& ctx, std::span<const SwigluBackwardFp8> jobs,
                                    std::span<const SwigluBackwardColumns> columns) {
  const bool transposed = !columns.empty();
  bool pow2 = true;
  std::size_t partials = 0;
  std::vector<BackwardJob> list;
  list.reserve(jobs.size());
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    const SwigluBackwardFp8& a = jobs[i];
    BackwardJob j;
    j.rows = a.dout.rows;
    j.cols = a.dout.cols;
    j.gate = panel_codes(a.gate);
    j.up = panel_codes(a.up);
    j.dout = panel_values(a.dout);
    j.weight = a.weight.empty() ? nullptr : a.weight.data();
    j.dweight = a.dweight.empty() ? nullptr : a.dweight.data();
    j.kind = a.kind;
    j.row_tiles[0] = panel_out(a.dgate);
    j.row_tiles[1] = panel_out(a.dup);
    const Fp8Out out[kResults] = {a.dgate_columns, a.dup_columns, a.hidden_columns};
    for (int e = 0; e < kResults; ++e) {
      if (!transposed) {
        j.column_tiles[e] = panel_out(out[e]);
        continue;
      }
      const SwigluBackwardColumns& c = columns[i];
      j.column_tiles[e] = panel_out(out[e], e == kDgate ? c.dgate : e == kDup ? c.dup : c.hidden);
    }
    pow2 = pow2 && is_pow2(a.kind);
    if (j.dweight != nullptr) {
      partials += static_cast<std::size_t>(j.rows) *
                  static_cast<std::size_t>(ceil_div(j.cols, kPanel));
    }
    list.push_back(j);
  }
  if (partials > 0) {
    auto* at = static_cast<float*>(device_of(ctx).scratch(kScratchSums, partials * sizeof(float)));
    for (BackwardJob& j : list) {
      if (j.dweight == nullptr) continue;
      j.partial = at;
      at += static_cast<std::size_t>(j.rows) * static_cast<std::size_t>(ceil_div(j.cols, kPanel));
    }
  }
  int panels = 0;
  const JobList<BackwardJob> all = job_list(ctx, list, panels);
  if (panels == 0) return;
  if (transposed) {
    pow2 ? launch<true, true>(ctx, all, panels) : launch<false, true>(ctx, all, panels);
  } else {
    pow2 ? launch<true, false>(ctx, all, panels) : launch<false, false>(ctx, all, panels);
  }
  if (partials > 0) {
    sum_dweight<<<panels, kPanelThreads, 0, stream_of(ctx)>>>(all);
    check_launch("swiglu_backward_fp8");
  }
}

}  // namespace cachalot::cuda
