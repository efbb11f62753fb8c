// SwiGLU's gradients in FP8 on the GPU. Three results have tiles along columns, whose scales are
// known only when all 128 rows were seen: a block keeps the operands of its panel in shared memory,
// 96 KiB, and computes twice, rather than keeping 192 KiB of results.
#include "kernels/cuda/fp8_panels.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/swiglu.cuh"

namespace cachalot::cuda {

namespace {

enum Result { kDgate, kDup, kHidden, kResults };

// T: what dout is in.
template <class T>
struct BackwardJob {
  int rows = 0, cols = 0;
  PanelCodes gate, up;
  PanelValues<T> dout;
  const float* weight = nullptr;  // null: ones
  float* dweight = nullptr;       // null: not wanted
  float* partial = nullptr;       // [panels across, rows] of dweight
  numeric::ScaleKind kind = numeric::ScaleKind::kPow2;
  PanelOut row_tiles[2];  // dgate, dup
  PanelOut column_tiles[kResults];
};

constexpr int kDoutPitch = kPanel * static_cast<int>(sizeof(float));
struct BackwardMemory {
  float dout[kPanel][kPanel];                             // bf16 leave half of each row free
  std::uint8_t gate[kPanel][kPanel], up[kPanel][kPanel];  // codes
  ColumnScales columns[kResults];
};

// A thread's operands: rows of its warp, in shared memory.
template <class T>
class Operands {
 public:
  __device__ Operands(const BackwardJob<T>& a, const Panel& p, BackwardMemory& s)
      : dout_(a.dout, p),
        gate_(a.gate, p),
        up_(a.up, p),
        dout_rows_(reinterpret_cast<char*>(&s.dout[p.warp * kWarpRows])),
        gate_rows_(reinterpret_cast<char*>(&s.gate[p.warp * kWarpRows])),
        up_rows_(reinterpret_cast<char*>(&s.up[p.warp * kWarpRows])) {
    const bool any = a.weight != nullptr && p.lane < kWarpRows && p.lane < p.warp_rows();
    weight_ = any ? __ldg(a.weight + p.first_row() + p.lane) : 1.0f;
  }
  __device__ bool wide() const { return dout_.wide() && gate_.wide() && up_.wide(); }
  template <bool kWhole>
  __device__ __forceinline__ void fetch() const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      dout_.template fetch<kWhole>(half, dout_rows_);
      gate_.fetch<kWhole>(half, gate_rows_);
      up_.fetch<kWhole>(half, up_rows_);
      end_copies();
    }
  }
  // The three results of a row; returns the thread's part of dweight.
  __device__ __forceinline__ float results(int row, float (&dgate)[4], float (&dup)[4],
                                           float (&hidden)[4]) const {
    float d[4], gate[4], up[4];
    dout_.take(row, dout_rows_, d);
    gate_.take(row, gate_rows_, gate);
    up_.take(row, up_rows_, up);
    const float weight = __shfl_sync(0xFFFFFFFFu, weight_, row);
    float sum = 0;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const GatedBackward b = gated_backward(gate[j], up[j], __fmul_rn(d[j], weight));
      dgate[j] = b.dgate;
      dup[j] = b.dup;
      hidden[j] = __fmul_rn(b.hidden, weight);
      sum = __fmaf_rn(d[j], b.hidden, sum);
    }
    return sum;
  }

 private:
  ValuesReader<T, kDoutPitch> dout_;
  CodesReader<true> gate_, up_;
  char *dout_rows_, *gate_rows_, *up_rows_;
  float weight_;  // lane i: of row i
};

// Sums over the warp of four values: lane 8 i has that of the i-th one.
__device__ __forceinline__ float sum_of_four(const float (&x)[4], int lane) {
  const bool upper = lane >= 16, odd = (lane & 8) != 0;
  const auto halve = [](float keep, float give, int by) {
    return __fadd_rn(keep, __shfl_xor_sync(0xFFFFFFFFu, give, by));
  };
  const float a = halve(upper ? x[2] : x[0], upper ? x[0] : x[2], 16);
  const float b = halve(upper ? x[3] : x[1], upper ? x[1] : x[3], 16);
  float sum = halve(odd ? b : a, odd ? a : b, 8);
#pragma unroll
  for (int by = 4; by > 0; by /= 2) sum = halve(sum, sum, by);
  return sum;
}

// Rows' tiles and sums; columns' largest.
template <bool kPow2, class T>
__device__ __forceinline__ void first_pass(const BackwardJob<T>& a, const Panel& p,
                                           const Operands<T>& operands, float (&m)[kResults][4]) {
  constexpr int kRows = 4;
  const RowTilesWriter dgate_tiles(a.row_tiles[0], p), dup_tiles(a.row_tiles[1], p);
  const bool sums_wanted = a.dweight != nullptr;
  const numeric::ScaleKind kind = a.kind;
  float* partial = a.partial + static_cast<std::int64_t>(p.col / kPanel) * a.rows + p.first_row();
#pragma unroll 1
  for (int i = 0; i < kWarpRows; i += kRows) {
    wait_for_copies(i);
    float dgate[kRows][4], dup[kRows][4], sums[kRows];
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
      float hidden[4];
      sums[k] = operands.results(i + k, dgate[k], dup[k], hidden);
      keep_largest(m[kDgate], dgate[k]);
      keep_largest(m[kDup], dup[k]);
      keep_largest(m[kHidden], hidden);
    }
    dgate_tiles.write<kPow2>(dgate, kind, i);
    dup_tiles.write<kPow2>(dup, kind, i);
    if (sums_wanted) {
      const float sum = sum_of_four(sums, p.lane);
      const int row = i + p.lane / 8;
      if (p.lane % 8 == 0 && row < p.warp_rows()) partial[row] = sum;
    }
  }
}

// kPlain: the panel is whole and no scale is lifted.
template <bool kPow2, bool kPlain, class T>
__device__ __forceinline__ void write_columns(const CodesWriter (&writers)[kResults],
                                              const Operands<T>& operands,
                                              const TileScale (&t)[kResults][4]) {
#pragma unroll 2
  for (int i = 0; i < kWarpRows; ++i) {
    float x[kResults][4];
    operands.results(i, x[kDgate], x[kDup], x[kHidden]);
#pragma unroll
    for (int e = 0; e < kResults; ++e) {
      writers[e].write<kPlain>(i,
                               codes_of<kPow2, !kPlain>(x[e], t[e][0], t[e][1], t[e][2], t[e][3]));
    }
  }
}

// Words of four rows take the place of three of their operands' rows.
template <bool kPow2, bool kLifted, class T>
__device__ __forceinline__ void transpose_columns(const Panel& p, const Operands<T>& operands,
                                                  const TileScale (&t)[kResults][4],
                                                  BackwardMemory& s) {
#pragma unroll 1
  for (int i = 0; i < kWarpRows; i += 4) {
    std::uint32_t words[kResults][4] = {};
#pragma unroll
    for (int k = 0; k < 4; k += 2) {
      float x[2][kResults][4];
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        operands.results(i + k + n, x[n][kDgate], x[n][kDup], x[n][kHidden]);
      }
#pragma unroll
      for (int e = 0; e < kResults; ++e) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const std::uint32_t two = encode_e4m3x2(quotient<kPow2, kLifted>(x[0][e][j], t[e][j]),
                                                  quotient<kPow2, kLifted>(x[1][e][j], t[e][j]));
          words[e][j] |= two << (8 * k);
        }
      }
    }
    __syncwarp();
#pragma unroll
    for (int e = 0; e < kResults; ++e)
      put_words(reinterpret_cast<char*>(s.dout[p.warp * kWarpRows + i + e]), p, words[e]);
  }
}

template <class T, bool kPow2, bool kTransposed>
__global__ void __launch_bounds__(kPanelThreads, 2)
    swiglu_backward_panels(const __grid_constant__ JobList<BackwardJob<T>> list) {
  extern __shared__ float4 shared[];
  BackwardMemory& s = *reinterpret_cast<BackwardMemory*>(shared);
  const BackwardJob<T>* job;
  const Panel p = find_panel(list, job);
  const BackwardJob<T>& a = *job;
  const Operands<T> operands(a, p, s);
  if (operands.wide() && p.whole()) {
    operands.template fetch<true>();
  } else {
    operands.template fetch<false>();
  }
  float m[kResults][4] = {};
  first_pass<kPow2, T>(a, p, operands, m);
#pragma unroll
  for (int e = 0; e < kResults; ++e) s.columns[e].put(p, m[e]);
  __syncthreads();
  bool lifted = false;
#pragma unroll
  for (int i = static_cast<int>(threadIdx.x); i < kResults * kPanel; i += kPanelThreads) {
    const int e = i / kPanel;
    lifted |= s.columns[e].work_out<kPow2>(i % kPanel, a.kind, a.column_tiles[e], p);
  }
  const bool any = __syncthreads_or(lifted) != 0;
  TileScale t[kResults][4];
#pragma unroll
  for (int e = 0; e < kResults; ++e) s.columns[e].get(p, t[e]);
  if constexpr (!kTransposed) {
    const CodesWriter writers[kResults] = {
        {a.column_tiles[kDgate], p}, {a.column_tiles[kDup], p}, {a.column_tiles[kHidden], p}};
    if (!any && writers[kDgate].whole() && writers[kDup].whole() && writers[kHidden].whole()) {
      write_columns<kPow2, true>(writers, operands, t);
    } else {
      write_columns<kPow2, false>(writers, operands, t);
    }
  } else {
    if (any) {
      transpose_columns<kPow2, true>(p, operands, t, s);
    } else {
      transpose_columns<kPow2, false>(p, operands, t, s);
    }
    __syncthreads();
#pragma unroll 1
    for (int e = 0; e < kResults; ++e) {
      write_transposed<kDoutPitch>(a.column_tiles[e], p, reinterpret_cast<const char*>(s.dout[e]));
    }
  }
}

// dweight of rows from its parts, panel by panel. Blocks are numbered through all jobs by rows.
template <class T>
__global__ void __launch_bounds__(kPanelThreads)
    sum_dweight(const __grid_constant__ JobList<BackwardJob<T>> list) {
  const BackwardJob<T>* job;
  const Panel p = find_panel(list, job);
  const BackwardJob<T>& a = *job;
  const int r = static_cast<int>(threadIdx.x);
  if (a.dweight == nullptr || p.col != 0 || r >= p.rows) return;
  float sum = 0;
  for (int i = 0; i < (a.cols + kPanel - 1) / kPanel; ++i) {
    sum = __fadd_rn(sum, a.partial[static_cast<std::ptrdiff_t>(i) * a.rows + p.row + r]);
  }
  a.dweight[p.row + r] = sum;
}

template <class T, bool kPow2, bool kTransposed>
void launch(const Context& ctx, const JobList<BackwardJob<T>>& list, int panels) {
  const auto kernel = swiglu_backward_panels<T, kPow2, kTransposed>;
  constexpr int kBytes = static_cast<int>(sizeof(BackwardMemory));
  static const cudaError_t allowed =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  check(allowed, "swiglu_backward_fp8");
  kernel<<<panels, kPanelThreads, kBytes, stream_of(ctx)>>>(list);
  check_launch("swiglu_backward_fp8");
}

// Of jobs with columns of one layout.
template <class T>
void run(const Context& ctx, std::vector<BackwardJob<T>>& list) {
  bool pow2 = true;
  std::size_t partials = 0;
  const auto parts_of = [](const BackwardJob<T>& j) {
    return static_cast<std::size_t>(j.rows) * static_cast<std::size_t>(ceil_div(j.cols, kPanel));
  };
  for (const BackwardJob<T>& j : list) {
    pow2 = pow2 && is_pow2(j.kind);
    if (j.dweight != nullptr) partials += parts_of(j);
  }
  if (partials > 0) {
    auto* at = static_cast<float*>(device_of(ctx).scratch(kScratchSums, partials * sizeof(float)));
    for (BackwardJob<T>& j : list) {
      if (j.dweight == nullptr) continue;
      j.partial = at;
      at += parts_of(j);
    }
  }
  int panels = 0;
  const JobList<BackwardJob<T>> all = job_list(ctx, list, panels);
  if (panels == 0) return;
  if (list[0].column_tiles[kHidden].transposed) {
    pow2 ? launch<T, true, true>(ctx, all, panels) : launch<T, false, true>(ctx, all, panels);
  } else {
    pow2 ? launch<T, true, false>(ctx, all, panels) : launch<T, false, false>(ctx, all, panels);
  }
  if (partials > 0) {
    sum_dweight<T><<<panels, kPanelThreads, 0, stream_of(ctx)>>>(all);
    check_launch("swiglu_backward_fp8");
  }
}

template <class T>
BackwardJob<T> job_of(const SwigluBackwardFp8& a, MatView<const T> dout) {
  BackwardJob<T> j;
  j.rows = a.dout.rows;
  j.cols = a.dout.cols;
  j.gate = panel_codes(a.gate);
  j.up = panel_codes(a.up);
  j.dout = panel_values(dout);
  j.weight = a.weight.empty() ? nullptr : a.weight.data();
  j.dweight = a.dweight.empty() ? nullptr : a.dweight.data();
  j.kind = a.kind;
  j.row_tiles[0] = panel_out(a.dgate);
  j.row_tiles[1] = panel_out(a.dup);
  j.column_tiles[kDgate] = panel_out(a.dgate_columns);
  j.column_tiles[kDup] = panel_out(a.dup_columns);
  j.column_tiles[kHidden] = panel_out(a.hidden_columns);
  return j;
}

}  // namespace

void swiglu_backward_fp8(const Context& ctx, std::span<const SwigluBackwardFp8> jobs) {
  // By layout of the columns: rows of codes, transposed.
  std::vector<BackwardJob<float>> floats[2];
  std::vector<BackwardJob<Bf16>> halves[2];
  for (const SwigluBackwardFp8& a : jobs) {
    const int layout = a.hidden_columns.transposed ? 1 : 0;
    if (a.dout_bf16.rows > 0) {
      halves[layout].push_back(job_of(a, a.dout_bf16));
    } else {
      floats[layout].push_back(job_of(a, a.dout));
    }
  }
  for (auto& list : floats) run(ctx, list);
  for (auto& list : halves) run(ctx, list);
}

}  // namespace cachalot::cuda
