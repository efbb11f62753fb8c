// Panels of matrices: 128 x 128 values, which hold whole tiles of every kind, are one block's of
// threads. How blocks find theirs, read operands and write results.
//
// A warp has 16 rows of its panel, a lane 4 neighbouring columns of them.
//
// Jobs are lists of matrices; panels are numbered through all of them, so that one launch does all.
#pragma once

#include <algorithm>
#include <cstring>
#include <limits>
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

// --- operands as jobs hold them. Strides are ints: a product of two is one instruction.

inline int short_stride(std::ptrdiff_t stride) {
  if (stride > std::numeric_limits<int>::max()) {
    throw Error(Code::kUnsupported, cat("rows of a matrix on the GPU lie ", stride,
                                        " elements apart; at most 2^31 - 1 are supported"));
  }
  return static_cast<int>(stride);
}

struct PanelOut {
  std::uint8_t* codes = nullptr;  // null: not wanted
  int stride = 0;
  float* scales = nullptr;
  int scale_stride = 0;
  ScaleTile tile = ScaleTile::kRow;
  bool wide = false;  // codes may be written in words; transposed: in 16 bytes
  bool transposed = false;
};
inline PanelOut panel_out(const Fp8Out& o) {
  if (o.empty()) return {};
  return {o.codes,     short_stride(o.stride),
          o.scales,    short_stride(o.scale_stride),
          o.tile,      aligned(o.codes, o.stride, o.transposed ? 16 : 4),
          o.transposed};
}

struct PanelCodes {
  const std::uint8_t* codes = nullptr;
  int stride = 0;
  const float* scales = nullptr;
  int scale_stride = 0;
  ScaleTile tile = ScaleTile::kRow;
  bool words = false, wide = false;  // 4, 16 bytes at once
};
inline PanelCodes panel_codes(const Fp8View& x) {
  return {x.codes,
          short_stride(x.stride),
          x.scales,
          short_stride(x.scale_stride),
          x.tile,
          aligned(x.codes, x.stride, 4),
          aligned(x.codes, x.stride, 16)};
}

template <class T>
struct PanelValues {
  const T* data = nullptr;
  int stride = 0;
  bool wide = false;  // 16 bytes at once
};
template <class T>
PanelValues<T> panel_values(MatView<const T> x) {
  return {x.data, short_stride(x.stride), aligned(x.data, x.stride, 16)};
}

// --- lists of jobs

// `rows` and `cols` of a Job are its matrix's.
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
  first.reserve(jobs.size());
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

// The element at a row and column, of a matrix or from another element on.
template <class T>
__device__ __forceinline__ T* element(T* data, int row, int stride, int col = 0) {
  return data + (static_cast<std::int64_t>(row) * stride + col);
}

struct Panel {
  int job;
  int row, col;    // where it begins
  int rows, cols;  // what the matrix has of it
  int warp, lane;
  __device__ int mine() const { return cols - 4 * lane; }  // columns from the thread's first on
  __device__ int first_row() const { return row + warp * kWarpRows; }  // the warp's
  __device__ int warp_rows() const { return rows - warp * kWarpRows; }
  __device__ bool whole() const { return rows == kPanel && cols == kPanel; }
};

// The block's job and place. All threads take part.
template <class Job>
__device__ __forceinline__ Panel find_panel(const JobList<Job>& list, const Job*& job) {
  int index = 0, begin = 0;
  job = &list.one;
  if (list.count > 1) {
    for (int i = 0; i < list.count; i += kPanelThreads) {
      const int at = i + static_cast<int>(threadIdx.x);
      index +=
          __syncthreads_count(at < list.count && list.first[at] <= static_cast<int>(blockIdx.x));
    }
    --index;
    begin = list.first[index];
    job = list.jobs + index;
  }
  const auto across = (static_cast<std::uint32_t>(job->cols) + kPanel - 1) / kPanel;
  const std::uint32_t place = blockIdx.x - static_cast<std::uint32_t>(begin);
  Panel p;
  p.job = index;
  p.row = static_cast<int>(place / across) * kPanel;
  p.col = static_cast<int>(place % across) * kPanel;
  p.rows = min(kPanel, job->rows - p.row);
  p.cols = min(kPanel, job->cols - p.col);
  p.warp = static_cast<int>(threadIdx.x / 32);
  p.lane = static_cast<int>(threadIdx.x % 32);
  return p;
}

// --- reading: what a thread needs, in registers. Rows are the warp's, 0 to 15; what the matrix
// does not have reads as zero.

// 16 bytes into shared memory, without waiting; the first `valid` of them from memory, zeros after.
__device__ __forceinline__ void copy_later(void* to, const void* from, int valid) {
  const auto shared = static_cast<std::uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(from), "r"(valid)
               : "memory");
}
__device__ __forceinline__ void copy_later(void* to, const void* from) {
  const auto shared = static_cast<std::uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared), "l"(from) : "memory");
}
// Copies are of the first and of the second half of a warp's rows.
__device__ __forceinline__ void end_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Before the rows from `row` on are used.
__device__ __forceinline__ void wait_for_copies(int row) {
  if (row == 0) asm volatile("cp.async.wait_group 1;" ::: "memory");
  if (row == kWarpRows / 2) asm volatile("cp.async.wait_group 0;" ::: "memory");
  __syncwarp();  // a lane uses what others have copied
}
// A half of the warp's rows, kRowBytes of each one after the other at `to`, of 16-byte aligned
// memory. kWhole: none is short.
// `kPitch`: bytes from one to the next there.
template <int kRowBytes, int kPitch, bool kWhole>
__device__ __forceinline__ void copy_rows_later(char* to, const char* from, std::int64_t stride,
                                                int half, int rows, int valid_bytes, int lane) {
  constexpr int kPieces = kRowBytes / 16, kRows = 32 / kPieces;
  const int piece = lane % kPieces * 16, first = half * (kWarpRows / 2) + lane / kPieces;
#pragma unroll
  for (int i = 0; i < kWarpRows / 2; i += kRows) {
    const int row = first + i;
    char* into = to + row * kPitch + piece;
    const char* at = from + row * stride + piece;
    if (kWhole) {
      copy_later(into, at);
    } else {
      copy_later(into, at, row < rows ? max(0, min(16, valid_bytes - piece)) : 0);
    }
  }
}

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(Bf16 x) {
  return __uint_as_float(std::uint32_t{x.bits} << 16);
}
__device__ __forceinline__ void widen(const float4& v, float (&x)[4]) {
  x[0] = v.x;
  x[1] = v.y;
  x[2] = v.z;
  x[3] = v.w;
}
__device__ __forceinline__ void widen(const uint2& v, float (&x)[4]) {
  x[0] = __uint_as_float(v.x << 16);
  x[1] = __uint_as_float(v.x & 0xFFFF0000u);
  x[2] = __uint_as_float(v.y << 16);
  x[3] = __uint_as_float(v.y & 0xFFFF0000u);
}
__device__ __forceinline__ void read_wide(const float* from, float (&x)[4]) {
  widen(__ldg(reinterpret_cast<const float4*>(from)), x);
}
__device__ __forceinline__ void read_wide(const Bf16* from, float (&x)[4]) {
  widen(__ldg(reinterpret_cast<const uint2*>(from)), x);
}

// kPitch: bytes from row to row in shared memory.
template <class T, int kPitch = kPanel* static_cast<int>(sizeof(T))>
class ValuesReader {
 public:
  static constexpr int kRowBytes = kPitch;
  __device__ ValuesReader(const PanelValues<T>& m, const Panel& p)
      : from_(element(m.data, p.first_row(), m.stride, p.col)),
        stride_(m.stride),
        rows_(p.warp_rows()),
        cols_(p.cols),
        lane_(p.lane),
        wide_(m.wide) {}

  template <int kRows>
  __device__ __forceinline__ void read(int first, float (&x)[kRows][4]) const {
    const T* from = element(from_, first, stride_, 4 * lane_);
    const int mine = cols_ - 4 * lane_;
    if (wide_ && first + kRows <= rows_ && mine >= 4) {  // no branch between the loads
#pragma unroll
      for (int i = 0; i < kRows; ++i) read_wide(element(from, i, stride_), x[i]);
      return;
    }
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        x[i][j] = first + i < rows_ && j < mine ? widen(*element(from, i, stride_, j)) : 0.0f;
      }
    }
  }

  __device__ bool wide() const { return wide_; }
  // A half of the warp's rows as they are in memory, to `rows`, where the warp's first row begins.
  // kWhole: wide(), and the panel is whole.
  template <bool kWhole>
  __device__ __forceinline__ void fetch(int half, char* rows) const {
    if (kWhole || wide_) {
      constexpr int kSize = static_cast<int>(sizeof(T));
      copy_rows_later<kPanel * kSize, kPitch, kWhole>(rows, reinterpret_cast<const char*>(from_),
                                                      std::int64_t{stride_} * kSize, half, rows_,
                                                      cols_ * kSize, lane_);
    } else {
      for (int i = 0; i < kWarpRows / 2; ++i) {
        const int row = half * (kWarpRows / 2) + i;
        T* to = reinterpret_cast<T*>(rows + row * kPitch) + 4 * lane_;
        for (int j = 0; j < 4; ++j) {
          const bool any = row < rows_ && 4 * lane_ + j < cols_;
          to[j] = any ? *element(from_, row, stride_, 4 * lane_ + j) : T{};
        }
      }
    }
  }
  __device__ __forceinline__ void take(int row, const char* rows, float (&x)[4]) const {
    const char* at = rows + row * kPitch + lane_ * (4 * static_cast<int>(sizeof(T)));
    if constexpr (sizeof(T) == 2) {
      widen(*reinterpret_cast<const uint2*>(at), x);
    } else {
      widen(*reinterpret_cast<const float4*>(at), x);
    }
  }

 private:
  const T* from_;
  int stride_, rows_, cols_, lane_;
  bool wide_;
};

__device__ __forceinline__ void multiply_out(std::uint32_t codes, float scale, float (&x)[4]) {
  decode_e4m3x4(codes, x);
#pragma unroll
  for (int j = 0; j < 4; ++j) x[j] = __fmul_rn(x[j], scale);
}

// Codes, four in a word; scales of any tiles, or kRowTiles. Whole warps take part in what
// multiplies out.
template <bool kRowTiles = false>
class CodesReader {
 public:
  static constexpr int kRowBytes = kPanel;
  __device__ CodesReader(const PanelCodes& m, const Panel& p)
      : from_(element(m.codes, p.first_row(), m.stride, p.col)),
        stride_(m.stride),
        rows_(p.warp_rows()),
        cols_(p.cols),
        lane_(p.lane),
        words_(m.words),
        wide_(m.wide),
        by_row_(kRowTiles || m.tile == ScaleTile::kRow) {
    if (by_row_) {
      const bool any = p.lane < kWarpRows && p.lane < rows_;
      const float* at = element(m.scales, p.first_row() + p.lane, m.scale_stride, p.col / kPanel);
      scale_[0] = any ? __ldg(at) : 1.0f;
      return;
    }
    const bool whole = m.tile == ScaleTile::kTensor;
    const float* line = element(m.scales, whole ? 0 : p.row / kPanel, m.scale_stride);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int at = m.tile == ScaleTile::kColumn  ? p.col + 4 * p.lane + j
                     : m.tile == ScaleTile::kBlock ? p.col / kPanel
                                                   : 0;
      scale_[j] = j < p.mine() ? __ldg(line + at) : 1.0f;
    }
  }

  __device__ __forceinline__ std::uint32_t word(int row) const {
    const std::uint8_t* from = element(from_, row, stride_, 4 * lane_);
    const int mine = cols_ - 4 * lane_;
    if (words_ && row < rows_ && mine >= 4) {
      return __ldg(reinterpret_cast<const std::uint32_t*>(from));
    }
    std::uint32_t codes = 0;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (row < rows_ && j < mine) codes |= std::uint32_t{from[j]} << (8 * j);
    }
    return codes;
  }
  __device__ __forceinline__ void multiply(std::uint32_t word, int row, float (&x)[4]) const {
    if (kRowTiles || by_row_) {
      multiply_out(word, __shfl_sync(0xFFFFFFFFu, scale_[0], row), x);
      return;
    }
    decode_e4m3x4(word, x);
#pragma unroll
    for (int j = 0; j < 4; ++j) x[j] = __fmul_rn(x[j], scale_[j]);
  }
  template <int kRows>
  __device__ __forceinline__ void read(int first, float (&x)[kRows][4]) const {
    std::uint32_t words[kRows];
#pragma unroll
    for (int i = 0; i < kRows; ++i) words[i] = word(first + i);
#pragma unroll
    for (int i = 0; i < kRows; ++i) multiply(words[i], first + i, x[i]);
  }

  __device__ bool wide() const { return wide_; }
  template <bool kWhole>
  __device__ __forceinline__ void fetch(int half, char* rows) const {
    if (kWhole || wide_) {
      copy_rows_later<kRowBytes, kRowBytes, kWhole>(rows, reinterpret_cast<const char*>(from_),
                                                    stride_, half, rows_, cols_, lane_);
    } else {
      for (int i = 0; i < kWarpRows / 2; ++i) {
        const int row = half * (kWarpRows / 2) + i;
        reinterpret_cast<std::uint32_t*>(rows + row * kRowBytes)[lane_] = word(row);
      }
    }
  }
  __device__ __forceinline__ void take(int row, const char* rows, float (&x)[4]) const {
    multiply(reinterpret_cast<const std::uint32_t*>(rows + row * kRowBytes)[lane_], row, x);
  }

 private:
  const std::uint8_t* from_;
  float scale_[4];  // of the columns; by rows: [0] of lane i is row i's
  int stride_, rows_, cols_, lane_;
  bool words_, wide_, by_row_;
};

// --- writing

class CodesWriter {
 public:
  __device__ CodesWriter(const PanelOut& o, const Panel& p)
      : to_(element(o.codes, p.first_row(), o.stride, p.col + 4 * p.lane)),
        stride_(o.stride),
        rows_(p.warp_rows()),
        mine_(p.mine()),
        wide_(o.wide),
        whole_(o.wide && p.whole()) {}

  __device__ bool whole() const { return whole_; }
  // kWhole: whole().
  template <bool kWhole>
  __device__ __forceinline__ void write(int row, std::uint32_t codes) const {
    std::uint8_t* to = element(to_, row, stride_);
    if (kWhole) {
      *reinterpret_cast<std::uint32_t*>(to) = codes;
      return;
    }
    if (row >= rows_) return;
    if (wide_ && mine_ >= 4) {
      *reinterpret_cast<std::uint32_t*>(to) = codes;
      return;
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (j < mine_) to[j] = static_cast<std::uint8_t>(codes >> (8 * j));
    }
  }

 private:
  std::uint8_t* to_;
  int stride_, rows_, mine_;
  bool wide_, whole_;
};

// Tiles of 1 x 128 and their scales.
class RowTilesWriter {
 public:
  __device__ RowTilesWriter(const PanelOut& o, const Panel& p)
      : codes_(o, p),
        scales_(element(o.scales, p.first_row() + p.lane, o.scale_stride, p.col / kPanel)),
        scale_stride_(o.scale_stride),
        rows_(p.warp_rows()),
        lane_(p.lane),
        wanted_(o.codes != nullptr) {}

  template <bool kPow2, int kRows>
  __device__ __forceinline__ void write(const float (&x)[kRows][4], numeric::ScaleKind kind,
                                        int first) const {
    if (!wanted_) return;
    const float scale = quantize_tiles<kPow2>(
        x, kind, lane_, codes_.whole(),
        [&]<bool kWhole>(int i, std::uint32_t codes) { codes_.write<kWhole>(first + i, codes); });
    if (lane_ < kRows && first + lane_ < rows_) *element(scales_, first, scale_stride_) = scale;
  }

 private:
  CodesWriter codes_;
  float* scales_;  // of row `lane`
  int scale_stride_, rows_, lane_;
  bool wanted_;
};

__device__ __forceinline__ void keep_largest(float (&m)[4], const float (&x)[4]) {
#pragma unroll
  for (int j = 0; j < 4; ++j) m[j] = larger(m[j], fabsf(x[j]));
}

// Largest magnitudes of every warp's part of the columns; then, in their place, what quotients by
// the columns' scales are made of: each column's is worked out by one thread.
struct ColumnScales {
  float row[kPanelWarps][kPanel];

  __device__ __forceinline__ void put(const Panel& p, const float (&largest)[4]) {
    *reinterpret_cast<float4*>(&row[p.warp][4 * p.lane]) =
        make_float4(largest[0], largest[1], largest[2], largest[3]);
  }
  // After a barrier, of one column; another barrier has to follow. True where the scale is lifted.
  template <bool kPow2>
  __device__ __forceinline__ bool work_out(int col, numeric::ScaleKind kind, const PanelOut& o,
                                           const Panel& p) {
    float m = row[0][col];
#pragma unroll
    for (int w = 1; w < kPanelWarps; ++w) m = larger(m, row[w][col]);
    const TileScale t = tile_scale<kPow2>(kind, m);
    if (col < p.cols) *element(o.scales, p.row / kPanel, o.scale_stride, p.col + col) = t.scale;
    row[0][col] = t.inverse;
    row[1][col] = t.divisor;
    row[2][col] = t.lift;
    return t.lifted();
  }
  __device__ __forceinline__ void get(const Panel& p, TileScale (&t)[4]) const {
    float inverse[4], divisor[4], lift[4];
    widen(*reinterpret_cast<const float4*>(&row[0][4 * p.lane]), inverse);
    widen(*reinterpret_cast<const float4*>(&row[1][4 * p.lane]), divisor);
    widen(*reinterpret_cast<const float4*>(&row[2][4 * p.lane]), lift);
#pragma unroll
    for (int j = 0; j < 4; ++j) t[j] = {0, divisor[j], inverse[j], lift[j]};
  }
  // After a barrier: the largest magnitude of all.
  __device__ __forceinline__ float of_panel(const Panel& p) const {
    float m[4] = {0, 0, 0, 0}, other[4];
#pragma unroll
    for (int w = 0; w < kPanelWarps; ++w) {
      widen(*reinterpret_cast<const float4*>(&row[w][4 * p.lane]), other);
      keep_largest(m, other);
    }
    return largest_in_warp(largest_of(m));
  }
};

// The scale of a block or of a whole matrix, written by one thread.
template <bool kPow2>
__device__ __forceinline__ TileScale block_scale(numeric::ScaleKind kind, float amax,
                                                 const PanelOut& o, const Panel& p) {
  const TileScale t = tile_scale<kPow2>(kind, amax);
  const bool whole = o.tile == ScaleTile::kTensor;
  if (threadIdx.x == 0 && (!whole || (p.row == 0 && p.col == 0))) {
    *(whole ? o.scales : element(o.scales, p.row / kPanel, o.scale_stride, p.col / kPanel)) =
        t.scale;
  }
  return t;
}

// --- transposed codes. Four rows of a thread's columns become four words, put in 512 bytes of the
// warp: slot lane ^ warp of 32, so that eight warps' words of a column, which are read together,
// lie in different banks.

inline constexpr int kWordsBytes = 512;

__device__ __forceinline__ void put_words(char* four_rows, const Panel& p,
                                          const std::uint32_t (&words)[4]) {
  reinterpret_cast<uint4*>(four_rows)[p.lane ^ p.warp] =
      make_uint4(words[0], words[1], words[2], words[3]);
}
__device__ __forceinline__ void write_piece(const PanelOut& o, const Panel& p, int col, int row,
                                            const uint4& v) {
  if (col >= p.cols || row >= p.rows) return;
  std::uint8_t* to = element(o.codes, p.col + col, o.stride, p.row + row);
  if (o.wide && row + 16 <= p.rows) {
    *reinterpret_cast<uint4*>(to) = v;
    return;
  }
  const std::uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (int k = 0; k < 16; ++k) {
    if (row + k < p.rows) to[k] = static_cast<std::uint8_t>(words[k / 4] >> (k % 4 * 8));
  }
}
// After a barrier: the whole panel, whose warps' words lie from `rows` on, 4 * kRowBytes apart.
template <int kRowBytes>
__device__ __forceinline__ void write_transposed(const PanelOut& o, const Panel& p,
                                                 const char* rows) {
#pragma unroll 2
  for (int i = 0; i < kPanel * kPanelWarps / kPanelThreads; ++i) {
    const int at = static_cast<int>(threadIdx.x) + i * kPanelThreads;
    const int col = at / kPanelWarps, warp = at % kPanelWarps;
    const auto* from = reinterpret_cast<const std::uint32_t*>(rows + warp * kWarpRows * kRowBytes) +
                       4 * (col / 4 ^ warp) + col % 4;
    write_piece(o, p, col, kWarpRows * warp,
                make_uint4(from[0], from[kRowBytes], from[2 * kRowBytes], from[3 * kRowBytes]));
  }
}

}  // namespace cachalot::cuda
