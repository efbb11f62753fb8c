// Quantising a matrix panel by panel: 128 x 128 values, which hold whole tiles of every kind, are
// one block's of threads, so that one reading serves two tilings.
//
// A warp has 16 rows of its panel, a lane 4 neighbouring columns of them. A row's largest is one
// reduction of a warp, so tiles along rows are done with while values are read. Tiles that span
// rows wait in shared memory until every warp has told what its columns' largest are.
//
// Jobs are lists of matrices; panels are numbered through all of them, so that one launch does all.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/cuda/fp8.cuh"

namespace cachalot::cuda {

inline constexpr int kPanel = 128, kPanelWarps = 8, kPanelThreads = 32 * kPanelWarps;
inline constexpr int kWarpRows = kPanel / kPanelWarps;

template <class T>
bool aligned(const T* p, std::ptrdiff_t stride, std::size_t bytes) {
  return reinterpret_cast<std::uintptr_t>(p) % bytes == 0 &&
         static_cast<std::size_t>(stride) * sizeof(T) % bytes == 0;
}

// --- operands as kernels see them

struct PanelOut {
  std::uint8_t* codes = nullptr;  // null: not wanted
  std::ptrdiff_t stride = 0;
  float* scales = nullptr;
  std::ptrdiff_t scale_stride = 0;
  ScaleTile tile = ScaleTile::kRow;
  bool wide = false;    // codes may be written in words; transposed: in 16 bytes
  int padded_rows = 0;  // transposed
};
inline PanelOut panel_out(const Fp8Out& o) {
  if (o.empty()) return {};
  return {o.codes,        o.stride, o.scales,
          o.scale_stride, o.tile,   aligned(o.codes, o.stride, 4), 0};
}
inline PanelOut panel_out(const Fp8Out& o, const TransposedCodes& t) {
  if (o.empty()) return {};
  return {t.codes,        t.stride, o.scales,
          o.scale_stride, o.tile,   aligned(t.codes, t.stride, 16), t.padded_rows};
}

struct PanelCodes {
  const std::uint8_t* codes = nullptr;
  std::ptrdiff_t stride = 0;
  const float* scales = nullptr;
  std::ptrdiff_t scale_stride = 0;
  ScaleTile tile = ScaleTile::kRow;
  bool wide = false;
};
inline PanelCodes panel_codes(const Fp8View& x) {
  return {x.codes, x.stride, x.scales, x.scale_stride, x.tile, aligned(x.codes, x.stride, 4)};
}

template <class T>
struct PanelValues {
  const T* data = nullptr;
  std::ptrdiff_t stride = 0;
  bool wide = false;  // four at once
};
template <class T>
PanelValues<T> panel_values(MatView<const T> x) {
  return {x.data, x.stride, aligned(x.data, x.stride, 4 * sizeof(T))};
}

// --- lists of jobs

// kernels/: what a job is made of. `rows` and `cols` are the matrix's.
template <class Job>
struct JobList {
  Job one;  // the only one, or:
  const Job* jobs = nullptr;
  const int* first = nullptr;  // [count] number of each job's first panel
  int count = 1;
};

// Leaves out jobs without panels. `panels` becomes the number of all.
template <class Job>
JobList<Job> job_list(const Context& ctx, std::vector<Job>& jobs, int& panels) {
  std::erase_if(jobs, [](const Job& j) { return j.rows == 0 || j.cols == 0; });
  JobList<Job> list;
  panels = 0;
  if (jobs.empty()) return list;
  list.count = static_cast<int>(jobs.size());
  list.one = jobs[0];
  std::vector<int> first;
  for (const Job& j : jobs) {
    first.push_back(panels);
    panels += ceil_div(j.rows, kPanel) * ceil_div(j.cols, kPanel);
  }
  if (jobs.size() == 1) return list;
  const std::size_t after = (first.size() * sizeof(int) + 15) / 16 * 16;
  std::vector<char> bytes(after + jobs.size() * sizeof(Job));
  std::memcpy(bytes.data(), first.data(), first.size() * sizeof(int));
  std::memcpy(bytes.data() + after, jobs.data(), jobs.size() * sizeof(Job));
  const char* on_device = stage(ctx, std::span<const char>(bytes));
  list.first = reinterpret_cast<const int*>(on_device);
  list.jobs = reinterpret_cast<const Job*>(on_device + after);
  return list;
}

struct Panel {
  int job;
  int row, col;    // where it begins
  int rows, cols;  // what the matrix has of it
  int warp, lane;
  __device__ int mine() const { return cols - 4 * lane; }  // columns from the thread's first on
};

// The block's job and place. All threads take part.
template <class Job>
__device__ __forceinline__ Panel find_panel(const JobList<Job>& list, const Job*& job) {
  int index = 0, begin = 0;
  job = &list.one;
  if (list.count > 1) {
    for (int i = 0; i < list.count; i += kPanelThreads) {
      const int at = i + static_cast<int>(threadIdx.x);
      index += __syncthreads_count(at < list.count &&
                                   list.first[at] <= static_cast<int>(blockIdx.x));
    }
    --index;
    begin = list.first[index];
    job = list.jobs + index;
  }
  const int across = (job->cols + kPanel - 1) / kPanel;
  const int place = static_cast<int>(blockIdx.x) - begin;
  Panel p;
  p.job = index;
  p.row = place / across * kPanel;
  p.col = place % across * kPanel;
  p.rows = min(kPanel, job->rows - p.row);
  p.cols = min(kPanel, job->cols - p.col);
  p.warp = static_cast<int>(threadIdx.x) / 32;
  p.lane = static_cast<int>(threadIdx.x) % 32;
  return p;
}

// --- reading

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(Bf16 x) {
  return __uint_as_float(std::uint32_t{x.bits} << 16);
}
__device__ __forceinline__ void read_wide(const float* from, float (&x)[4]) {
  const float4 v = __ldg(reinterpret_cast<const float4*>(from));
  x[0] = v.x;
  x[1] = v.y;
  x[2] = v.z;
  x[3] = v.w;
}
__device__ __forceinline__ void read_wide(const Bf16* from, float (&x)[4]) {
  const uint2 v = __ldg(reinterpret_cast<const uint2*>(from));
  x[0] = __uint_as_float(v.x << 16);
  x[1] = __uint_as_float(v.x & 0xFFFF0000u);
  x[2] = __uint_as_float(v.y << 16);
  x[3] = __uint_as_float(v.y & 0xFFFF0000u);
}

// The thread's columns of row r of the panel; zeros where the matrix has none.
template <class T>
__device__ __forceinline__ void read_row(const PanelValues<T>& m, const Panel& p, int r,
                                         float (&x)[4]) {
  const T* from = m.data + (p.row + r) * m.stride + p.col + 4 * p.lane;
  if (m.wide && r < p.rows && p.mine() >= 4) {
    read_wide(from, x);
    return;
  }
#pragma unroll
  for (int j = 0; j < 4; ++j) x[j] = r < p.rows && j < p.mine() ? widen(from[j]) : 0.0f;
}

template <int kRows, class T>
__device__ __forceinline__ void read_values(const PanelValues<T>& m, const Panel& p, int first,
                                            float (&x)[kRows][4]) {
  if (m.wide && first + kRows <= p.rows && p.mine() >= 4) {  // no branch between the loads
    const T* from = m.data + (p.row + first) * m.stride + p.col + 4 * p.lane;
#pragma unroll
    for (int i = 0; i < kRows; ++i) read_wide(from + i * m.stride, x[i]);
    return;
  }
#pragma unroll
  for (int i = 0; i < kRows; ++i) read_row(m, p, first + i, x[i]);
}

__device__ __forceinline__ std::uint32_t read_codes(const PanelCodes& m, const Panel& p, int r) {
  const std::uint8_t* from = m.codes + (p.row + r) * m.stride + p.col + 4 * p.lane;
  if (m.wide && r < p.rows && p.mine() >= 4) {
    return __ldg(reinterpret_cast<const std::uint32_t*>(from));
  }
  std::uint32_t codes = 0;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    if (r < p.rows && j < p.mine()) codes |= std::uint32_t{from[j]} << (8 * j);
  }
  return codes;
}

// The scale of row r of 1 x 128 tiles; 1 past the end.
__device__ __forceinline__ float read_row_scale(const PanelCodes& m, const Panel& p, int r) {
  if (r >= p.rows) return 1.0f;
  return __ldg(m.scales + (p.row + r) * m.scale_stride + p.col / kPanel);
}
__device__ __forceinline__ void multiply_out(std::uint32_t codes, float scale, float (&x)[4]) {
  decode_e4m3x4(codes, x);
#pragma unroll
  for (int j = 0; j < 4; ++j) x[j] = __fmul_rn(x[j], scale);
}

// kRows rows from row `first` on, of tiles of any kind.
template <int kRows>
__device__ __forceinline__ void read_values(const PanelCodes& m, const Panel& p, int first,
                                            float (&x)[kRows][4]) {
  std::uint32_t codes[kRows];
#pragma unroll
  for (int i = 0; i < kRows; ++i) codes[i] = read_codes(m, p, first + i);
  if (m.tile == ScaleTile::kRow) {
    float scale[kRows];
#pragma unroll
    for (int i = 0; i < kRows; ++i) scale[i] = read_row_scale(m, p, first + i);
#pragma unroll
    for (int i = 0; i < kRows; ++i) multiply_out(codes[i], scale[i], x[i]);
    return;
  }
  float scale[4];
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const std::ptrdiff_t line = m.tile == ScaleTile::kTensor ? 0 : p.row / kPanel * m.scale_stride;
    const int at = m.tile == ScaleTile::kColumn  ? p.col + 4 * p.lane + min(j, max(p.mine(), 1) - 1)
                   : m.tile == ScaleTile::kBlock ? p.col / kPanel
                                                 : 0;
    scale[j] = p.mine() > 0 ? __ldg(m.scales + line + at) : 1.0f;
  }
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    decode_e4m3x4(codes[i], x[i]);
#pragma unroll
    for (int j = 0; j < 4; ++j) x[i][j] = __fmul_rn(x[i][j], scale[j]);
  }
}

// --- writing

__device__ __forceinline__ void write_codes(const PanelOut& o, const Panel& p, int r,
                                            std::uint32_t codes) {
  if (r >= p.rows) return;
  std::uint8_t* to = o.codes + (p.row + r) * o.stride + p.col + 4 * p.lane;
  if (o.wide && p.mine() >= 4) {
    *reinterpret_cast<std::uint32_t*>(to) = codes;
    return;
  }
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    if (j < p.mine()) to[j] = static_cast<std::uint8_t>(codes >> (8 * j));
  }
}

template <bool kPow2>
__device__ __forceinline__ std::uint32_t codes_of(const float (&x)[4], const TileScale& t) {
  return encode_e4m3x4(quotient<kPow2>(x[0], t), quotient<kPow2>(x[1], t), quotient<kPow2>(x[2], t),
                       quotient<kPow2>(x[3], t));
}
template <bool kPow2>
__device__ __forceinline__ std::uint32_t codes_of(const float (&x)[4], const TileScale (&t)[4]) {
  return encode_e4m3x4(quotient<kPow2>(x[0], t[0]), quotient<kPow2>(x[1], t[1]),
                       quotient<kPow2>(x[2], t[2]), quotient<kPow2>(x[3], t[3]));
}

// Tiles of 1 x 128 of the warp's rows [first, first + kRows) of the panel, kRows <= 32.
template <bool kPow2, int kRows>
__device__ __forceinline__ void write_row_tiles(const float (&x)[kRows][4],
                                                numeric::ScaleKind kind, const PanelOut& o,
                                                const Panel& p, int first) {
  float scale = 0;  // lane i: of row i
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const TileScale t = tile_scale<kPow2>(kind, largest_in_warp(largest_of(x[i])));
    if (p.lane == i) scale = t.scale;
    write_codes(o, p, first + i, codes_of<kPow2>(x[i], t));
  }
  if (p.lane < kRows && first + p.lane < p.rows) {
    o.scales[(p.row + first + p.lane) * o.scale_stride + p.col / kPanel] = scale;
  }
}

// --- one panel

// What a block remembers of its panel: 68 KiB, so that three of them fit a multiprocessor. A thread
// reads back only the values that it wrote itself.
struct PanelMemory {
  float4 value[kPanel][kPanel / 4];
  float4 largest[kPanelWarps][kPanel / 4];  // of each warp's part of the columns

  __device__ float4& at(const Panel& p, int i) { return value[p.warp * kWarpRows + i][p.lane]; }
};

// Before the barrier: what the warp knows of its columns. After it: the whole columns' largest.
__device__ __forceinline__ void share_columns(PanelMemory& s, const Panel& p, float (&m)[4]) {
  s.largest[p.warp][p.lane] = make_float4(m[0], m[1], m[2], m[3]);
  __syncthreads();
#pragma unroll
  for (int w = 0; w < kPanelWarps; ++w) {
    const float4 v = s.largest[w][p.lane];
    m[0] = larger(m[0], v.x);
    m[1] = larger(m[1], v.y);
    m[2] = larger(m[2], v.z);
    m[3] = larger(m[3], v.w);
  }
}
__device__ __forceinline__ float largest_in_panel(const float (&column)[4]) {
  return largest_in_warp(largest_of(column));
}

// Scales of the thread's columns, which one warp writes; of blocks and matrices all the same one.
template <bool kPow2>
__device__ __forceinline__ void panel_scales(numeric::ScaleKind kind, const PanelOut& o,
                                             const Panel& p, const float (&column)[4],
                                             const float* tensor_amax, TileScale (&t)[4]) {
  if (o.tile == ScaleTile::kColumn) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      t[j] = tile_scale<kPow2>(kind, column[j]);
      if (p.warp == 0 && j < p.mine()) {
        o.scales[p.row / kPanel * o.scale_stride + p.col + 4 * p.lane + j] = t[j].scale;
      }
    }
    return;
  }
  const bool whole = o.tile == ScaleTile::kTensor;
  t[0] = tile_scale<kPow2>(kind, whole ? tensor_amax[p.job] : largest_in_panel(column));
  t[1] = t[2] = t[3] = t[0];
  if (threadIdx.x == 0 && (!whole || (p.row == 0 && p.col == 0))) {
    o.scales[whole ? 0 : p.row / kPanel * o.scale_stride + p.col / kPanel] = t[0].scale;
  }
}

template <bool kPow2>
__device__ __forceinline__ void write_panel(const PanelOut& o, const Panel& p,
                                            const TileScale (&t)[4], PanelMemory& s) {
#pragma unroll 4
  for (int i = 0; i < kWarpRows; ++i) {
    const float4 v = s.at(p, i);
    const float x[4] = {v.x, v.y, v.z, v.w};
    write_codes(o, p, p.warp * kWarpRows + i, codes_of<kPow2>(x, t));
  }
}

// Transposing takes the place of the values. Four rows of a thread's columns become four words,
// written where the warp has read all it had there: group g of the warp's rows to its row g, a
// lane's words to slot lane ^ warp, so that eight warps' words of a column lie in different banks.
template <bool kPow2>
__device__ __forceinline__ void transpose_codes(const Panel& p, const TileScale (&t)[4],
                                                PanelMemory& s) {
#pragma unroll
  for (int g = 0; g < kWarpRows / 4; ++g) {
    const float4 a = s.at(p, 4 * g), b = s.at(p, 4 * g + 1), c = s.at(p, 4 * g + 2),
                 d = s.at(p, 4 * g + 3);
    const float column[4][4] = {
        {a.x, b.x, c.x, d.x}, {a.y, b.y, c.y, d.y}, {a.z, b.z, c.z, d.z}, {a.w, b.w, c.w, d.w}};
    uint4 words;
    words.x = codes_of<kPow2>(column[0], t[0]);
    words.y = codes_of<kPow2>(column[1], t[1]);
    words.z = codes_of<kPow2>(column[2], t[2]);
    words.w = codes_of<kPow2>(column[3], t[3]);
    __syncwarp();
    *reinterpret_cast<uint4*>(&s.value[p.warp * kWarpRows + g][p.lane ^ p.warp]) = words;
  }
}

// 16 rows of a column as they were put there. `rows`: kWarpRows rows of one warp, in words.
__device__ __forceinline__ uint4 transposed_piece(const std::uint32_t* rows, int col, int warp) {
  const std::uint32_t* from = rows + 4 * (col / 4 ^ warp) + col % 4;
  return make_uint4(from[0], from[kPanel], from[2 * kPanel], from[3 * kPanel]);
}
__device__ __forceinline__ void write_piece(const PanelOut& o, const Panel& p, int col, int row,
                                            const uint4& v) {
  const int limit = min(kPanel, o.padded_rows - p.row);
  if (col >= p.cols || row >= limit) return;
  std::uint8_t* to = o.codes + (p.col + col) * o.stride + p.row + row;
  if (o.wide && row + 16 <= limit) {
    *reinterpret_cast<uint4*>(to) = v;
    return;
  }
  const std::uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (int k = 0; k < 16; ++k) {
    if (row + k < limit) to[k] = static_cast<std::uint8_t>(words[k / 4] >> (k % 4 * 8));
  }
}
// After a barrier.
__device__ __forceinline__ void write_transposed(const PanelOut& o, const Panel& p,
                                                 const PanelMemory& s) {
#pragma unroll 2
  for (int i = 0; i < kPanel * kPanelWarps / kPanelThreads; ++i) {
    const int at = static_cast<int>(threadIdx.x) + i * kPanelThreads;
    const int col = at / kPanelWarps, warp = at % kPanelWarps;
    const auto* rows = reinterpret_cast<const std::uint32_t*>(s.value[warp * kWarpRows]);
    write_piece(o, p, col, kWarpRows * warp, transposed_piece(rows, col, warp));
  }
}

// --- the kernels. A Source is a job's operands: rows, cols, kind, out[2], pow2() of all its kinds,
// and read<kPow2>(panel, first row, x), which may write results of its own.

enum class Wanted { kRows, kPanels, kTransposed };  // only 1 x 128; any; 128 x 1 transposed
inline constexpr int kReadRows = 4;

template <class Source, bool kPow2, Wanted kWanted>
__global__ void __launch_bounds__(kPanelThreads, 3)
    quantize_panels(const __grid_constant__ JobList<Source> list, const float* tensor_amax) {
  extern __shared__ float4 shared[];
  PanelMemory& s = *reinterpret_cast<PanelMemory*>(shared);
  const Source* job;
  const Panel p = find_panel(list, job);
  const numeric::ScaleKind kind = job->kind;
  float column[4] = {0, 0, 0, 0};
#pragma unroll 1
  for (int i = 0; i < kWarpRows; i += kReadRows) {
    const int first = p.warp * kWarpRows + i;
    float x[kReadRows][4];
    job->template read<kPow2>(p, first, x);
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const PanelOut& o = job->out[e];
      if (o.codes != nullptr && o.tile == ScaleTile::kRow) {
        write_row_tiles<kPow2>(x, kind, o, p, first);
      }
    }
    if constexpr (kWanted != Wanted::kRows) {
#pragma unroll
      for (int k = 0; k < kReadRows; ++k) {
        s.at(p, i + k) = make_float4(x[k][0], x[k][1], x[k][2], x[k][3]);
#pragma unroll
        for (int j = 0; j < 4; ++j) column[j] = larger(column[j], fabsf(x[k][j]));
      }
    }
  }
  if constexpr (kWanted != Wanted::kRows) {
    share_columns(s, p, column);
#pragma unroll 1
    for (int e = 0; e < 2; ++e) {
      const PanelOut o = job->out[e];
      if (o.codes == nullptr || o.tile == ScaleTile::kRow) continue;
      TileScale t[4];
      panel_scales<kPow2>(kind, o, p, column, tensor_amax, t);
      if (kWanted == Wanted::kTransposed && o.tile == ScaleTile::kColumn) {
        transpose_codes<kPow2>(p, t, s);
        __syncthreads();
        write_transposed(o, p, s);
        return;
      }
      write_panel<kPow2>(o, p, t, s);
    }
  }
}

// Largest magnitudes of whole matrices; the order of maxima does not matter.
template <class Source>
__global__ void __launch_bounds__(kPanelThreads)
    largest_of_panels(const __grid_constant__ JobList<Source> list, std::uint32_t* amax) {
  const Source* job;
  const Panel p = find_panel(list, job);
  float m = 0;
#pragma unroll 1
  for (int i = 0; i < kWarpRows; i += kReadRows) {
    float x[kReadRows][4];
    job->template read<true>(p, p.warp * kWarpRows + i, x);
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
  const int bytes = kWanted == Wanted::kRows ? 0 : static_cast<int>(sizeof(PanelMemory));
  static const cudaError_t allowed =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  check(allowed, name);
  kernel<<<panels, kPanelThreads, bytes, stream_of(ctx)>>>(list, tensor_amax);
  check_launch(name);
}

// A transposed result, if any, is out[1] of its job.
template <class Source>
void quantize_jobs(const Context& ctx, std::vector<Source>& jobs, bool transposed,
                   const char* name) {
  int panels = 0;
  const JobList<Source> list = job_list(ctx, jobs, panels);
  if (panels == 0) return;
  bool pow2 = true, whole = false, rows = true;
  for (const Source& j : jobs) {
    pow2 = pow2 && j.pow2();
    for (const PanelOut& o : j.out) {
      whole = whole || o.tile == ScaleTile::kTensor;
      rows = rows && o.tile == ScaleTile::kRow;
    }
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
    if (rows) return launch_panels<Source, kPow2, Wanted::kRows>(ctx, list, panels, m, name);
    if (transposed) {
      return launch_panels<Source, kPow2, Wanted::kTransposed>(ctx, list, panels, m, name);
    }
    return launch_panels<Source, kPow2, Wanted::kPanels>(ctx, list, panels, m, name);
  };
  if (pow2) {
    launch.template operator()<true>();
  } else {
    launch.template operator()<false>();
  }
}

}  // namespace cachalot::cuda
