// Products of any shape, type, stride and transposition, many in one launch: one block per tile of
// a result. For what is too small for the library, or unusual.
//
// Bf16 products run on tensor cores (mma.sync), float ones on fused multiply-adds with k ascending.
#include <algorithm>

#include "kernels/cuda/gemm_parts.cuh"
#include "kernels/cuda/launch_early.cuh"

namespace cachalot::cuda {

namespace {

struct Job {
  const void *a, *b;
  float* c;
  __nv_bfloat16* c_bf16;  // or null
  std::int64_t a_stride, b_stride, c_stride;
  int m, n, k;
  int first, tiles_n;
  bool a_float, b_float;
  bool a_vectors, b_vectors;  // rows of whole 16 byte vectors
  bool trans_a, trans_b;
  bool accumulate;
};

using Jobs = JobList<Job, 16>;

__device__ void store(const Job& job, int row, int col, float value) {
  if (row >= job.m || col >= job.n) return;
  const std::int64_t at = row * job.c_stride + col;
  if (job.c_bf16 != nullptr) {
    job.c_bf16[at] = __float2bfloat16_rn(value);
  } else {
    job.c[at] = job.accumulate ? job.c[at] + value : value;
  }
}

// A tile of one operand: kOuter rows of the result's dimension by kDepth of the summed one. In
// shared memory as it lies in device memory: by rows along k (kAlongK), or by rows of constant k.
constexpr int kPad = 8, kThreads = 128;

template <int kOuter, int kDepth, bool kAlongK>
struct Tile {
  static constexpr int kRows = kAlongK ? kOuter : kDepth;
  static constexpr int kCols = kAlongK ? kDepth : kOuter;
  static constexpr int kStride = kCols + kPad;
  static constexpr int kVectors = kRows * kCols / 8;
  static constexpr int kEach = (kVectors + kThreads - 1) / kThreads;

  __nv_bfloat16 at[kRows * kStride];

  // The eight elements that this thread has of its i-th vector.
  __device__ static uint4 read(int i, const void* data, std::int64_t stride, bool is_float,
                               bool vectors, int outer0, int outer_end, int k0, int k_end) {
    const int v = static_cast<int>(threadIdx.x) + i * kThreads;
    const int row = v / (kCols / 8), col = v % (kCols / 8) * 8;
    const int r = row + (kAlongK ? outer0 : k0), c = col + (kAlongK ? k0 : outer0);
    const int row_end = kAlongK ? outer_end : k_end, col_end = kAlongK ? k_end : outer_end;
    if (v >= kVectors || r >= row_end) return {0, 0, 0, 0};
    const char* from = static_cast<const char*>(data) + r * stride * (is_float ? 4 : 2);
    return eight_bf16(from, c, col_end - c, is_float, vectors);
  }
  __device__ void write(int i, uint4 value) {
    const int v = static_cast<int>(threadIdx.x) + i * kThreads;
    if (v >= kVectors) return;
    const int row = v / (kCols / 8), col = v % (kCols / 8) * 8;
    *reinterpret_cast<uint4*>(&at[row * kStride + col]) = value;
  }
};

template <bool kTransposed>
__device__ void load_matrices(std::uint32_t (&r)[4], const __nv_bfloat16* row) {
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(row));
  if constexpr (kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address));
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address));
  }
}

// Four matrices of 8 x 8 that cover 16 of the outer dimension by 16 of k: (outer, k) of (0, 0),
// (8, 0), (0, 8), (8, 8), each thread with two elements that follow one another in k.
template <int kOuter, int kDepth, bool kAlongK>
__device__ void fragment(std::uint32_t (&r)[4], const Tile<kOuter, kDepth, kAlongK>& tile,
                         int outer, int k) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int o = outer + (lane / 8 % 2) * 8, kk = k + lane / 16 * 8, i = lane % 8;
  const int at = kAlongK ? (o + i) * tile.kStride + kk : (kk + i) * tile.kStride + o;
  load_matrices<!kAlongK>(r, &tile.at[at]);
}

// kM x 64 of the result; warps side by side along n where kM is 16, else two by two.
template <int kM, bool kTransA, bool kTransB>
__global__ void __launch_bounds__(kThreads) tiles_bf16_kernel(const __grid_constant__ Jobs jobs) {
  after_those_before();
  constexpr int kN = 64, kWarpsM = kM == 16 ? 1 : 2, kWarpsN = 4 / kWarpsM;
  constexpr int kWarpM = kM / kWarpsM, kWarpN = kN / kWarpsN;
  // Few rows wait for memory: all that there is room for is asked for at once.
  constexpr int kDepth = kM == 16 ? 128 : 64;
  using TileA = Tile<kM, kDepth, !kTransA>;
  using TileB = Tile<kN, kDepth, kTransB>;
  __shared__ __align__(16) TileA a;
  __shared__ __align__(16) TileB b;
  const Job job = jobs_of(jobs)[job_of_block(jobs, static_cast<int>(blockIdx.x))];
  const int tile = static_cast<int>(blockIdx.x) - job.first;
  const int m0 = tile / job.tiles_n * kM, n0 = tile % job.tiles_n * kN;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int warp_m = warp / kWarpsN * kWarpM, warp_n = warp % kWarpsN * kWarpN;

  uint4 next_a[TileA::kEach], next_b[TileB::kEach];
  const auto read = [&](int k0) {
#pragma unroll
    for (int i = 0; i < TileA::kEach; ++i) {
      next_a[i] =
          TileA::read(i, job.a, job.a_stride, job.a_float, job.a_vectors, m0, job.m, k0, job.k);
    }
#pragma unroll
    for (int i = 0; i < TileB::kEach; ++i) {
      next_b[i] =
          TileB::read(i, job.b, job.b_stride, job.b_float, job.b_vectors, n0, job.n, k0, job.k);
    }
  };
  float acc[kWarpM / 16][kWarpN / 8][4] = {};
  read(0);
  for (int k0 = 0; k0 < job.k; k0 += kDepth) {
#pragma unroll
    for (int i = 0; i < TileA::kEach; ++i) a.write(i, next_a[i]);
#pragma unroll
    for (int i = 0; i < TileB::kEach; ++i) b.write(i, next_b[i]);
    __syncthreads();
    if (k0 + kDepth < job.k) read(k0 + kDepth);
#pragma unroll
    for (int k = 0; k < kDepth; k += 16) {
      std::uint32_t fa[kWarpM / 16][4], fb[kWarpN / 16][4];
#pragma unroll
      for (int i = 0; i < kWarpM / 16; ++i) fragment(fa[i], a, warp_m + i * 16, k);
#pragma unroll
      for (int j = 0; j < kWarpN / 16; ++j) fragment(fb[j], b, warp_n + j * 16, k);
#pragma unroll
      for (int i = 0; i < kWarpM / 16; ++i) {
#pragma unroll
        for (int j = 0; j < kWarpN / 8; ++j) {
          mma_bf16(acc[i][j], fa[i], fb[j / 2][j % 2], fb[j / 2][j % 2 + 2]);
        }
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < kWarpM / 16; ++i) {
#pragma unroll
    for (int j = 0; j < kWarpN / 8; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        store(job, m0 + warp_m + i * 16 + lane / 4 + e / 2 * 8,
              n0 + warp_n + j * 8 + lane % 4 * 2 + e % 2, acc[i][j][e]);
      }
    }
  }
}

// 64 x 64 of the result, 4 x 4 per thread.
constexpr int kFloatTile = 64, kFloatDepth = 16, kFloatThreads = 256;

__device__ float element(const void* data, bool is_float, std::int64_t at) {
  return is_float ? static_cast<const float*>(data)[at]
                  : __bfloat162float(static_cast<const __nv_bfloat16*>(data)[at]);
}

// [k][outer] in shared memory, whatever lies along rows in device memory.
__device__ void load_float(float (&to)[kFloatDepth][kFloatTile + 4], const void* data,
                           std::int64_t stride, bool is_float, bool along_k, int outer0,
                           int outer_end, int k0, int k_end) {
#pragma unroll
  for (int i = 0; i < kFloatTile * kFloatDepth / kFloatThreads; ++i) {
    const int e = static_cast<int>(threadIdx.x) + i * kFloatThreads;
    const int k = along_k ? e % kFloatDepth : e / kFloatTile;
    const int o = along_k ? e / kFloatDepth : e % kFloatTile;
    const std::int64_t at =
        along_k ? (outer0 + o) * stride + k0 + k : (k0 + k) * stride + outer0 + o;
    to[k][o] = outer0 + o < outer_end && k0 + k < k_end ? element(data, is_float, at) : 0.0f;
  }
}

__global__ void __launch_bounds__(kFloatThreads)
    tiles_float_kernel(const __grid_constant__ Jobs jobs) {
  after_those_before();
  __shared__ float a[kFloatDepth][kFloatTile + 4], b[kFloatDepth][kFloatTile + 4];
  const Job job = jobs_of(jobs)[job_of_block(jobs, static_cast<int>(blockIdx.x))];
  const int tile = static_cast<int>(blockIdx.x) - job.first;
  const int m0 = tile / job.tiles_n * kFloatTile, n0 = tile % job.tiles_n * kFloatTile;
  const int row = static_cast<int>(threadIdx.x) / 16 * 4, col = static_cast<int>(threadIdx.x) % 16;
  float acc[4][4] = {};
  for (int k0 = 0; k0 < job.k; k0 += kFloatDepth) {
    load_float(a, job.a, job.a_stride, job.a_float, !job.trans_a, m0, job.m, k0, job.k);
    load_float(b, job.b, job.b_stride, job.b_float, job.trans_b, n0, job.n, k0, job.k);
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kFloatDepth; ++k) {
      float x[4], y[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) x[i] = a[k][row + i];
#pragma unroll
      for (int j = 0; j < 4; ++j) y[j] = b[k][col + 16 * j];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) acc[i][j] = fmaf(x[i], y[j], acc[i][j]);
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) store(job, m0 + row + i, n0 + col + 16 * j, acc[i][j]);
  }
}

Job job_of(const Gemm& g, int tile_m, int tile_n, int& blocks) {
  Job job{};
  job.a = g.a.data;
  job.b = g.b.data;
  job.c = g.c.data;
  job.c_stride = g.c.stride;
  if (g.c_bf16.rows > 0) {
    job.c_bf16 = reinterpret_cast<__nv_bfloat16*>(g.c_bf16.data);
    job.c_stride = g.c_bf16.stride;
  }
  job.a_stride = g.a.stride;
  job.b_stride = g.b.stride;
  job.m = g.m();
  job.n = g.n();
  job.k = g.k();
  job.a_float = g.a.dtype == DType::kF32;
  job.b_float = g.b.dtype == DType::kF32;
  job.a_vectors = in_vectors(g.a.data, g.a.stride, size_of(g.a.dtype));
  job.b_vectors = in_vectors(g.b.data, g.b.stride, size_of(g.b.dtype));
  job.trans_a = g.trans_a;
  job.trans_b = g.trans_b;
  job.accumulate = g.accumulate;
  job.first = blocks;
  job.tiles_n = ceil_div(job.n, tile_n);
  blocks += ceil_div(job.m, tile_m) * job.tiles_n;
  return job;
}

using Kernel = void (*)(Jobs);
constexpr Kernel kBf16Kernels[2][2][2] = {  // [rows][trans_a][trans_b]
    {{tiles_bf16_kernel<16, false, false>, tiles_bf16_kernel<16, false, true>},
     {tiles_bf16_kernel<16, true, false>, tiles_bf16_kernel<16, true, true>}},
    {{tiles_bf16_kernel<64, false, false>, tiles_bf16_kernel<64, false, true>},
     {tiles_bf16_kernel<64, true, false>, tiles_bf16_kernel<64, true, true>}}};

void launch(const Context& ctx, Kernel kernel, int threads, const std::vector<Job>& jobs,
            int blocks) {
  if (blocks == 0) return;
  launch_early(ctx, "gemm_tiles", kernel, dim3(static_cast<unsigned>(blocks)),
               dim3(static_cast<unsigned>(threads)), 0, job_list<16>(ctx, jobs, blocks));
}

}  // namespace

void gemm_tiles(const Context& ctx, Precision precision, std::span<const Gemm> problems) {
  std::vector<Job> jobs;
  int blocks = 0;
  if (precision == Precision::kF32) {
    for (const Gemm& g : problems) {
      if (!g.c.empty()) jobs.push_back(job_of(g, kFloatTile, kFloatTile, blocks));
    }
    launch(ctx, tiles_float_kernel, kFloatThreads, jobs, blocks);
    return;
  }
  for (int kind = 0; kind < 8; ++kind) {
    const bool many = kind / 4 != 0, trans_a = kind / 2 % 2 != 0, trans_b = kind % 2 != 0;
    jobs.clear();
    blocks = 0;
    for (const Gemm& g : problems) {
      if (g.c.empty() || (g.m() > 16) != many || g.trans_a != trans_a || g.trans_b != trans_b) {
        continue;
      }
      jobs.push_back(job_of(g, many ? 64 : 16, 64, blocks));
    }
    launch(ctx, kBf16Kernels[many][trans_a][trans_b], kThreads, jobs, blocks);
  }
}

}  // namespace cachalot::cuda
