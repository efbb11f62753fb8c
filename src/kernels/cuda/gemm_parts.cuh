// The parts of plain products on the device: which kernels there are, and what they share.
//
// gemm.cu decides which of them a problem goes to.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cuda/stream.cuh"
#include "kernels/gemm.h"

namespace cachalot::cuda {

// gemm_convert.cu: operands that are not of the type `to` are replaced by copies in scratch that
// are, rows on 16 byte boundaries. What several operands share is converted once, and so are rows
// that follow one another in one matrix (the groups of experts).
void convert_operands(const Context& ctx, DType to, std::span<MatRef* const> operands);
void convert_operands(const Context& ctx, DType to, std::span<Gemm> problems);  // a and b

// gemm_tiles.cu: any shape, type, stride and transposition, one launch for many problems: what is
// too small for the library, or nothing else takes.
void gemm_tiles(const Context& ctx, Precision precision, std::span<const Gemm> problems);

// gemm_rows.cu: few rows of A against weights [N, K] that are read once: bound by memory. One
// launch for a list.
bool few_rows(Precision precision, const Gemm& g) noexcept;
void gemm_rows(const Context& ctx, Precision precision, std::span<const Gemm> problems);

// gemm_rows_float.cu: the same in float precision.
bool few_float_rows(const Gemm& g) noexcept;
void gemm_rows_float(const Context& ctx, std::span<const Gemm> problems);

// gemm_library.cu: operands of one type. Problems that the library refuses are left in `refused`.
void gemm_library(const Context& ctx, std::span<const Gemm> problems, std::vector<Gemm>& refused);

// gemm_groups.cu: bf16 operands whose rows begin on boundaries of 16 bytes; all problems of a list
// side by side.
extern int groups_variant;
bool fits_groups(const Gemm& g) noexcept;
void gemm_groups(const Context& ctx, std::span<const Gemm> problems);

// The jobs of a launch, each with its first block in `first`: a few are passed as they are, more
// are staged, which costs a copy.
template <class Job, int kHere>
struct JobList {
  const Job* staged = nullptr;
  int count = 0;
  int each = 0;  // blocks of every job; 0: some have more than others
  Job here[kHere];
};

template <int kHere, class Job>
JobList<Job, kHere> job_list(const Context& ctx, const std::vector<Job>& jobs, int blocks) {
  JobList<Job, kHere> list;
  list.count = static_cast<int>(jobs.size());
  list.each = blocks / list.count;
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    const int next = i + 1 < jobs.size() ? jobs[i + 1].first : blocks;
    if (next - jobs[i].first != list.each) list.each = 0;
  }
  if (list.count <= kHere) {
    std::copy(jobs.begin(), jobs.end(), list.here);
  } else {
    list.staged = stage(ctx, std::span<const Job>(jobs));
  }
  return list;
}

template <class Job, int kHere>
__device__ inline const Job* jobs_of(const JobList<Job, kHere>& list) {
  return list.staged != nullptr ? list.staged : list.here;
}
// The job that a block belongs to; whole warps ask. One round trip to memory, no search of many.
template <class Job, int kHere>
__device__ inline int job_of_block(const JobList<Job, kHere>& list, int block) {
  if (list.each > 0) return block / list.each;
  const Job* jobs = jobs_of(list);
  int before = 0;
  for (int j = static_cast<int>(threadIdx.x) % 32; j < list.count; j += 32) {
    before += jobs[j].first <= block;
  }
  return static_cast<int>(__reduce_add_sync(0xFFFFFFFFu, static_cast<unsigned>(before))) - 1;
}

// Rows of whole 16 byte vectors: the beginning and the stride are multiples of 16 bytes.
inline bool in_vectors(const void* data, std::ptrdiff_t stride, std::size_t size) noexcept {
  const auto bytes = static_cast<std::uint64_t>(stride) * size;
  return (reinterpret_cast<std::uintptr_t>(data) | bytes) % 16 == 0;
}

__device__ inline std::uint32_t pack_bf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const std::uint32_t&>(pair);
}
__device__ inline float low_bf16(std::uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ inline float high_bf16(std::uint32_t pair) {
  return __uint_as_float(pair & 0xFFFF0000u);
}

// D += A B of one warp: A [16, 16] by rows, B [16, 8] by columns, bf16 with float sums.
__device__ inline void mma_bf16(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Eight elements of a row from `at` on, as bf16; those from `valid` on are zeros.
__device__ inline uint4 eight_bf16(const void* row, std::int64_t at, int valid, bool is_float,
                                   bool vectors) {
  uint4 out = {0, 0, 0, 0};
  if (valid <= 0) return out;
  if (is_float) {
    const float* from = static_cast<const float*>(row) + at;
    if (vectors && valid >= 8) {
      const float4 a = *reinterpret_cast<const float4*>(from);
      const float4 b = *reinterpret_cast<const float4*>(from + 4);
      return {pack_bf16(a.x, a.y), pack_bf16(a.z, a.w), pack_bf16(b.x, b.y), pack_bf16(b.z, b.w)};
    }
    float v[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] = i < valid ? from[i] : 0.0f;
    return {pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]),
            pack_bf16(v[6], v[7])};
  }
  const std::uint16_t* from = static_cast<const std::uint16_t*>(row) + at;
  if (vectors && valid >= 8) return *reinterpret_cast<const uint4*>(from);
  std::uint32_t v[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) v[i] = i < valid ? from[i] : 0u;
  return {v[0] | v[1] << 16, v[2] | v[3] << 16, v[4] | v[5] << 16, v[6] | v[7] << 16};
}

}  // namespace cachalot::cuda
