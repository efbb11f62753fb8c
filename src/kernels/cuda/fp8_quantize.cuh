// The kernel that quantises panels, for operands of any origin.
//
// A row's largest is one reduction of a warp, so tiles along rows are done with while values come
// in. Tiles that span rows wait in shared memory until every warp has told what its columns'
// largest are; so one reading serves two tilings.
//
// A Source is a job: rows, cols, kind, `along` (a result of 1 x 128 tiles or none), `across` (a
// result of other tiles or none), pow2() of all its kinds, and a class Reader:
//   blocks(pow2, wanted)       of threads that are to fit a multiprocessor
//   Reader(source, panel)      what a thread needs of the operands
//   read<kPow2>(row, x)        kReadRows rows from memory; may write results of its own
//   kStaged                    panels come to shared memory as they are, kPanelBytes, and are read
//                              there twice; otherwise values are kept there as floats
//   wide(), fetch<kWhole>(half, panel), take(row, panel, x)
#pragma once

#include "kernels/cuda/fp8_panels.cuh"

namespace cachalot::cuda {

inline constexpr int kReadRows = 4;

enum class Wanted { kAlong, kAcross, kTransposed };  // only `along`; `across` too; that transposed

// Values kept as floats, for a Reader that cannot read twice.
struct KeptValues {
  static constexpr int kRowBytes = kPanel * static_cast<int>(sizeof(float));
  static constexpr int kPanelBytes = kPanel * kRowBytes;
  Panel p;

  __device__ __forceinline__ float4& at(int row, char* panel) const {
    return reinterpret_cast<float4*>(panel + (p.warp * kWarpRows + row) * kRowBytes)[p.lane];
  }
  __device__ __forceinline__ void keep(int row, char* panel, const float (&x)[4]) const {
    at(row, panel) = make_float4(x[0], x[1], x[2], x[3]);
  }
  __device__ __forceinline__ void take(int row, char* panel, float (&x)[4]) const {
    widen(at(row, panel), x);
  }
};
// kPlain: the panel is whole and no scale is lifted.
template <bool kPow2, bool kPlain, class Store>
__device__ __forceinline__ void write_across(const CodesWriter& writer, const Store& store,
                                             char* panel, const TileScale (&t)[4]) {
#pragma unroll 4
  for (int i = 0; i < kWarpRows; ++i) {
    float x[4];
    store.take(i, panel, x);
    writer.write<kPlain>(i, codes_of<kPow2, !kPlain>(x, t[0], t[1], t[2], t[3]));
  }
}

// Words take the place of what the warp has read of the panel.
template <bool kPow2, bool kLifted, class Store>
__device__ __forceinline__ void transpose_panel(const Panel& p, const Store& store, char* panel,
                                                const TileScale (&t)[4]) {
#pragma unroll 2
  for (int i = 0; i < kWarpRows; i += 4) {
    float x[4][4];
#pragma unroll
    for (int k = 0; k < 4; ++k) store.take(i + k, panel, x[k]);
    std::uint32_t words[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float column[4] = {x[0][j], x[1][j], x[2][j], x[3][j]};
      words[j] = codes_of<kPow2, kLifted>(column, t[j], t[j], t[j], t[j]);
    }
    __syncwarp();
    put_words(panel + (p.warp * kWarpRows + i) * Store::kRowBytes, p, words);
  }
}

// The second reading, after columns.put().
template <bool kPow2, bool kTransposed, class Store>
__device__ __forceinline__ void quantize_across(const PanelOut& o, const Panel& p,
                                                numeric::ScaleKind kind, const float* tensor_amax,
                                                const Store& store, ColumnScales& columns,
                                                char* panel) {
  TileScale t[4];
  bool lifted = false;
  __syncthreads();
  if (o.tile == ScaleTile::kColumn) {
    const int col = static_cast<int>(threadIdx.x);
    lifted = __syncthreads_or(col < kPanel && columns.work_out<kPow2>(col, kind, o, p)) != 0;
    columns.get(p, t);
  } else {
    const bool whole = o.tile == ScaleTile::kTensor;
    const float amax = whole ? tensor_amax[p.job] : columns.of_panel(p);
    t[0] = t[1] = t[2] = t[3] = block_scale<kPow2>(kind, amax, o, p);
    lifted = t[0].lifted();
  }
  if (kTransposed && o.transposed) {
    if (lifted) {
      transpose_panel<kPow2, true>(p, store, panel, t);
    } else {
      transpose_panel<kPow2, false>(p, store, panel, t);
    }
    __syncthreads();
    write_transposed<Store::kRowBytes>(o, p, panel);
  } else if (const CodesWriter writer(o, p); writer.whole() && !lifted) {
    write_across<kPow2, true>(writer, store, panel, t);
  } else {
    write_across<kPow2, false>(writer, store, panel, t);
  }
}

template <class Source, bool kPow2, Wanted kWanted>
__global__ void __launch_bounds__(kPanelThreads, Source::blocks(kPow2, kWanted))
    quantize_panels(const __grid_constant__ JobList<Source> list, const float* tensor_amax) {
  using Reader = typename Source::Reader;
  constexpr bool kAcross = kWanted != Wanted::kAlong, kStaged = kAcross && Reader::kStaged;
  extern __shared__ float4 shared[];
  ColumnScales& columns = *reinterpret_cast<ColumnScales*>(shared);
  char* panel = reinterpret_cast<char*>(shared) + sizeof(ColumnScales);
  const Source* job;
  const Panel p = find_panel(list, job);
  const numeric::ScaleKind kind = job->kind;
  const Reader reader(*job, p);
  if constexpr (kStaged) {
    const bool whole = reader.wide() && p.whole();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (whole) {
        reader.template fetch<true>(half, panel);
      } else {
        reader.template fetch<false>(half, panel);
      }
      end_copies();
    }
  }
  const RowTilesWriter along(job->along, p);
  const KeptValues kept{p};
  float largest[4] = {0, 0, 0, 0};
#pragma unroll 1
  for (int i = 0; i < kWarpRows; i += kReadRows) {
    float x[kReadRows][4];
    if constexpr (kStaged) {
      wait_for_copies(i);
#pragma unroll
      for (int k = 0; k < kReadRows; ++k) reader.take(i + k, panel, x[k]);
    } else {
      reader.template read<kPow2>(i, x);
    }
    if constexpr (kAcross) {
#pragma unroll
      for (int k = 0; k < kReadRows; ++k) {
        if constexpr (!kStaged) kept.keep(i + k, panel, x[k]);
        keep_largest(largest, x[k]);
      }
    }
    along.write<kPow2>(x, kind, i);
  }
  if constexpr (kAcross) {
    const PanelOut o = job->across;
    if (o.codes == nullptr) return;
    columns.put(p, largest);
    constexpr bool kTransposed = kWanted == Wanted::kTransposed;
    if constexpr (kStaged) {
      quantize_across<kPow2, kTransposed>(o, p, kind, tensor_amax, reader, columns, panel);
    } else {
      quantize_across<kPow2, kTransposed>(o, p, kind, tensor_amax, kept, columns, panel);
    }
  }
}

// Largest magnitudes of whole matrices; the order of maxima does not matter.
template <class Source>
__global__ void __launch_bounds__(kPanelThreads)
    largest_of_panels(const __grid_constant__ JobList<Source> list, std::uint32_t* amax) {
  const Source* job;
  const Panel p = find_panel(list, job);
  const typename Source::Reader reader(*job, p);
  float m = 0;
#pragma unroll 1
  for (int i = 0; i < kWarpRows; i += kReadRows) {
    float x[kReadRows][4];
    reader.template read<true>(i, x);
#pragma unroll
    for (int k = 0; k < kReadRows; ++k) m = larger(m, largest_of(x[k]));
  }
  m = largest_in_warp(m);
  if (p.lane == 0) atomicMax(amax + p.job, __float_as_uint(m));
}

template <class Source, bool kPow2, Wanted kWanted>
void launch_panels(const Context& ctx, const JobList<Source>& list, int panels,
                   const float* tensor_amax, const char* name) {
  const auto kernel = quantize_panels<Source, kPow2, kWanted>;
  using Store = std::conditional_t<Source::Reader::kStaged, typename Source::Reader, KeptValues>;
  const int bytes =
      kWanted == Wanted::kAlong ? 0 : static_cast<int>(sizeof(ColumnScales)) + Store::kPanelBytes;
  static const cudaError_t allowed =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  check(allowed, name);
  kernel<<<panels, kPanelThreads, bytes, stream_of(ctx)>>>(list, tensor_amax);
  check_launch(name);
}

// `job` with results a and b, where two of the same sort make two jobs.
template <class Source>
void add_results(std::vector<Source>& jobs, Source job, const PanelOut& a, const PanelOut& b) {
  const auto sort = [](const PanelOut& o) { return o.tile == ScaleTile::kRow; };
  const auto set = [&](const PanelOut& o) {
    if (o.codes != nullptr) (sort(o) ? job.along : job.across) = o;
  };
  set(a);
  if (a.codes != nullptr && b.codes != nullptr && sort(a) == sort(b)) {
    jobs.push_back(job);
    job.along = job.across = {};
  }
  set(b);
  jobs.push_back(job);
}

template <class Source>
void quantize_jobs(const Context& ctx, std::vector<Source>& jobs, const char* name) {
  int panels = 0;
  const JobList<Source> list = job_list(ctx, jobs, panels);
  if (panels == 0) return;
  bool pow2 = true, whole = false, across = false, transposed = false;
  for (const Source& j : jobs) {
    pow2 = pow2 && j.pow2();
    whole = whole || j.across.tile == ScaleTile::kTensor;
    across = across || j.across.codes != nullptr;
    transposed = transposed || j.across.transposed;
  }
  std::uint32_t* amax = nullptr;
  if (whole) {
    const std::size_t bytes = jobs.size() * sizeof(float);
    amax = static_cast<std::uint32_t*>(device_of(ctx).scratch(kScratchSums, bytes));
    check(cudaMemsetAsync(amax, 0, bytes, stream_of(ctx)), name);
    largest_of_panels<<<panels, kPanelThreads, 0, stream_of(ctx)>>>(list, amax);
    check_launch(name);
  }
  const auto launch = [&]<bool kPow2>() {
    const auto* m = reinterpret_cast<const float*>(amax);
    if (!across) return launch_panels<Source, kPow2, Wanted::kAlong>(ctx, list, panels, m, name);
    if constexpr (Source::kTransposes) {
      if (transposed) {
        return launch_panels<Source, kPow2, Wanted::kTransposed>(ctx, list, panels, m, name);
      }
    }
    return launch_panels<Source, kPow2, Wanted::kAcross>(ctx, list, panels, m, name);
  };
  if (pow2) {
    launch.template operator()<true>();
  } else {
    launch.template operator()<false>();
  }
}

}  // namespace cachalot::cuda
