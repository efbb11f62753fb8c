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
//   kStaged; if true also      operands fit 16 bytes per thread and row:
//   wide(), fetch<kWhole>(row, slot), take<kPow2>(row, slot, x)
#pragma once

#include "kernels/cuda/fp8_panels.cuh"

namespace cachalot::cuda {

inline constexpr int kReadRows = 4;

// 68 KiB, so that three of them fit a multiprocessor. Of `value` a thread uses what is its own.
struct PanelMemory {
  float4 value[kPanel][kPanel / 4];
  float4 largest[kPanelWarps][kPanel / 4];
};

enum class Wanted { kAlong, kAcross, kTransposed };  // only `along`; `across` too; that transposed

// kPlain: the panel is whole and no scale is lifted.
template <bool kPow2, bool kPlain>
__device__ __forceinline__ void write_across(const CodesWriter& writer, const Panel& p,
                                             const TileScale (&t)[4], const PanelMemory& s) {
#pragma unroll 4
  for (int i = 0; i < kWarpRows; ++i) {
    float x[4];
    widen(s.value[p.warp * kWarpRows + i][p.lane], x);
    writer.write<kPlain>(i, codes_of<kPow2, !kPlain>(x, t[0], t[1], t[2], t[3]));
  }
}

// Words take the place of values where the warp has read all it had there: those of four rows the
// first of the four.
template <bool kPow2, bool kLifted>
__device__ __forceinline__ void transpose_panel(const Panel& p, const TileScale (&t)[4],
                                                PanelMemory& s) {
#pragma unroll 2
  for (int i = 0; i < kWarpRows; i += 4) {
    float4(*rows)[kPanel / 4] = &s.value[p.warp * kWarpRows + i];
    const float4 a = rows[0][p.lane], b = rows[1][p.lane], c = rows[2][p.lane], d = rows[3][p.lane];
    const float columns[4][4] = {
        {a.x, b.x, c.x, d.x}, {a.y, b.y, c.y, d.y}, {a.z, b.z, c.z, d.z}, {a.w, b.w, c.w, d.w}};
    std::uint32_t words[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      words[j] = codes_of<kPow2, kLifted>(columns[j], t[j], t[j], t[j], t[j]);
    }
    __syncwarp();
    put_words(rows[0], p, words);
  }
}

template <bool kWhole, class Reader>
__device__ __forceinline__ void fetch_panel(const Reader& reader, const Panel& p, PanelMemory& s) {
#pragma unroll
  for (int i = 0; i < kWarpRows; ++i) {
    reader.template fetch<kWhole>(i, &s.value[p.warp * kWarpRows + i][p.lane]);
    end_copies(i);
  }
}

template <class Source, bool kPow2, Wanted kWanted>
__global__ void __launch_bounds__(kPanelThreads, Source::blocks(kPow2, kWanted))
    quantize_panels(const __grid_constant__ JobList<Source> list, const float* tensor_amax) {
  constexpr bool kAcross = kWanted != Wanted::kAlong;
  extern __shared__ float4 shared[];
  PanelMemory& s = *reinterpret_cast<PanelMemory*>(shared);
  const Source* job;
  const Panel p = find_panel(list, job);
  const numeric::ScaleKind kind = job->kind;
  const typename Source::Reader reader(*job, p);
  float4(*slots)[kPanel / 4] = &s.value[p.warp * kWarpRows];
  constexpr bool kStaged = kAcross && Source::Reader::kStaged;
  if constexpr (kStaged) {
    if (reader.wide() && p.whole()) {
      fetch_panel<true>(reader, p, s);
    } else {
      fetch_panel<false>(reader, p, s);
    }
  }
  const RowTilesWriter along(job->along, p);
  float column[4] = {0, 0, 0, 0};
#pragma unroll 1
  for (int i = 0; i < kWarpRows; i += kReadRows) {
    float x[kReadRows][4];
    if constexpr (kStaged) {
      wait_for_copies(i);
#pragma unroll
      for (int k = 0; k < kReadRows; ++k) {
        reader.template take<kPow2>(i + k, &slots[i + k][p.lane], x[k]);
      }
    } else {
      reader.template read<kPow2>(i, x);
    }
    if constexpr (kAcross) {
#pragma unroll
      for (int k = 0; k < kReadRows; ++k) {
        if (!kStaged || !Source::Reader::kInPlace) {
          slots[i + k][p.lane] = make_float4(x[k][0], x[k][1], x[k][2], x[k][3]);
        }
        keep_largest(column, x[k]);
      }
    }
    along.write<kPow2>(x, kind, i);
  }
  if constexpr (kAcross) {
    const PanelOut o = job->across;
    share_columns(s.largest, p, column);
    if (o.codes == nullptr) return;
    TileScale t[4];
    panel_scales<kPow2>(kind, o, p, column, tensor_amax, t);
    if (kWanted == Wanted::kTransposed && o.tile == ScaleTile::kColumn) {
      if (__any_sync(0xFFFFFFFFu, lifted(t))) {
        transpose_panel<kPow2, true>(p, t, s);
      } else {
        transpose_panel<kPow2, false>(p, t, s);
      }
      __syncthreads();
      write_transposed<4>(o, p, s.value, 0);
    } else if (const CodesWriter writer(o, p); writer.whole() && !lifted(t)) {
      write_across<kPow2, true>(writer, p, t, s);
    } else {
      write_across<kPow2, false>(writer, p, t, s);
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
  const int bytes = kWanted == Wanted::kAlong ? 0 : static_cast<int>(sizeof(PanelMemory));
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
void quantize_jobs(const Context& ctx, std::vector<Source>& jobs, bool transposed,
                   const char* name) {
  int panels = 0;
  const JobList<Source> list = job_list(ctx, jobs, panels);
  if (panels == 0) return;
  bool pow2 = true, whole = false, across = false;
  for (const Source& j : jobs) {
    pow2 = pow2 && j.pow2();
    whole = whole || j.across.tile == ScaleTile::kTensor;
    across = across || j.across.codes != nullptr;
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
