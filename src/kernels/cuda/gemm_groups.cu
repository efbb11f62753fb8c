// Many bf16 products in one launch: the experts of a layer, the heads of absorbed attention.
//
// One block per multiprocessor takes tiles of all problems in turn. A warp asks TMA for pieces of A
// and B, 64 of k deep, in a ring of four stages; two warp groups multiply them (wgmma) into tiles
// of 128 x 256 or 256 x 128, whichever wastes less of the list, and store while the next tile's
// pieces arrive. Operands may lie either way round: wgmma reads both.
#include <algorithm>
#include <cstdint>

#include "kernels/cuda/gemm_parts.cuh"
#include "kernels/cuda/gemm_wgmma.cuh"

namespace cachalot::cuda {

int groups_variant = 0;

namespace {

using namespace wgmma_parts;

constexpr int kDepth = 64, kThreads = 384;

struct Job {
  CUtensorMap a, b, to;  // `to` of c or c_bf16, if by_map
  float* c;
  __nv_bfloat16* c_bf16;  // written instead of c, or null
  std::int64_t c_stride;
  int m, n, k;
  int first, tiles_m, tiles_n;
  bool accumulate, by_map;
  bool pairs;  // two columns of a row lie on a boundary of their size
};

using Jobs = JobList<Job, 8>;

struct TilePlace {
  int m, n;
};
// Bands of eight tiles of m, so that what runs at once shares rows of A and of B.
__device__ inline TilePlace place_of(const Job& job, int tile) {
  constexpr int kBand = 8;
  const int per_band = kBand * job.tiles_n;
  const int band = tile / per_band, in_band = tile % per_band;
  const int height = min(kBand, job.tiles_m - band * kBand);
  return {band * kBand + in_band % height, in_band / height};
}

// 16 rows of 128 bytes of a warp's results, for a copy to take.
constexpr int kBoxBytes = 16 * 128;

// Tiles of a block, and how many blocks (1 or 2, one below the other) share what they read of B.
template <int kTileM, int kTileN, int kBlocks, int kStageCount, int kBoxCount>
struct Sizes {
  static constexpr int kM = kTileM, kN = kTileN, kCluster = kBlocks;
  static constexpr int kStages = kStageCount, kBoxes = kBoxCount;
  static constexpr int kStoreBytes = 8 * kBoxes * kBoxBytes;
  static constexpr int kBytesA = kM * kDepth * 2, kBytesB = kN * kDepth * 2;
  static constexpr int kStageBytes = kBytesA + kBytesB;
  static constexpr int kBytes = kStages * kStageBytes + kStoreBytes + 1024 + 128;
};

// A piece of an operand: one box of kOuter rows along k, or boxes of 64 by rows of constant k. Of
// what the blocks of a cluster share each asks for its part, for all.
template <int kOuter, bool kAlongK, int kCluster>
__device__ void load_piece(std::uint8_t* to, const CUtensorMap* map, std::uint64_t* barrier,
                           int outer, int k, int rank) {
  const auto load = [&](int offset, int x, int y) {
    if constexpr (kCluster == 1) {
      load_box(to + offset, map, barrier, x, y);
    } else {
      load_box_shared(to + offset, map, barrier, x, y, (1 << kCluster) - 1);
    }
  };
  constexpr int kPart = kOuter / kCluster;
  if constexpr (kAlongK) {
    load(rank * kPart * kDepth * 2, k, outer + rank * kPart);
  } else {
#pragma unroll
    for (int i = 0; i < kPart / 64; ++i) {
      const int box = rank * (kPart / 64) + i;
      load(box * 64 * kDepth * 2, outer + box * 64, k);
    }
  }
}

__device__ inline void store_pair(const Job& job, int row, int col, float x, float y) {
  if (row >= job.m || col >= job.n) return;
  const std::int64_t at = row * job.c_stride + col;
  const bool both = col + 1 < job.n;
  if (job.c_bf16 != nullptr) {
    if (job.pairs && both) {
      *reinterpret_cast<std::uint32_t*>(job.c_bf16 + at) = pack_bf16(x, y);
    } else {
      job.c_bf16[at] = __float2bfloat16_rn(x);
      if (both) job.c_bf16[at + 1] = __float2bfloat16_rn(y);
    }
    return;
  }
  float* c = job.c + at;
  if (job.pairs && both) {
    auto* to = reinterpret_cast<float2*>(c);
    float2 v = {x, y};
    if (job.accumulate) {
      const float2 before = *to;
      v = {before.x + x, before.y + y};
    }
    *to = v;
  } else {
    c[0] = job.accumulate ? c[0] + x : x;
    if (both) c[1] = job.accumulate ? c[1] + y : y;
  }
}

// The 16 x kN results of a warp, one store after the other. A quad of lanes has eight columns of a
// row.
template <int kN>
__device__ void store_directly(const Job& job, int row0, int col0, const float (&d)[kN / 2]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int j = 0; j < kN / 8; ++j) {
    const int row = row0 + lane / 4, col = col0 + j * 8 + lane % 4 * 2;
    store_pair(job, row, col, d[4 * j], d[4 * j + 1]);
    store_pair(job, row + 8, col, d[4 * j + 2], d[4 * j + 3]);
  }
}

// The same through shared memory, by copies that go on while the next tile is multiplied. kBoxes
// of a warp are taken in turns, of which `turn` is the next.
template <int kN, int kBoxes>
__device__ void store_by_map(const Job& job, int row0, int col0, const float (&d)[kN / 2],
                             std::uint8_t* boxes, int& turn) {
  if (row0 >= job.m) return;
  const int lane = static_cast<int>(threadIdx.x) % 32, row = lane / 4, quarter = lane % 4;
  const auto put = [&](int box, auto&& write) {
    std::uint8_t* to = boxes + turn * kBoxBytes;
    turn = turn + 1 == kBoxes ? 0 : turn + 1;
    if (lane == 0) wait_stores<kBoxes - 1>();
    __syncwarp();
    write(to);
    fence_for_copies();
    __syncwarp();
    const int col = col0 + box * (job.c_bf16 != nullptr ? 64 : 32);
    if (lane == 0) {
      if (col < job.n) store_box(&job.to, to, col, row0, job.accumulate);
      commit_stores();
    }
  };
  if (job.c_bf16 != nullptr) {
#pragma unroll
    for (int box = 0; box < kN / 64; ++box) {
      put(box, [&](std::uint8_t* to) {
#pragma unroll
        for (int j = 0; j < 8; ++j) {
#pragma unroll
          for (int h = 0; h < 2; ++h) {
            const int at = (row + 8 * h) * 128 + (j ^ row) * 16 + quarter * 4;
            const int of = 4 * (box * 8 + j) + 2 * h;
            *reinterpret_cast<std::uint32_t*>(to + at) = pack_bf16(d[of], d[of + 1]);
          }
        }
      });
    }
    return;
  }
#pragma unroll
  for (int box = 0; box < kN / 32; ++box) {
    put(box, [&](std::uint8_t* to) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const int at = (row + 8 * h) * 128 + ((2 * j + quarter / 2) ^ row) * 16 + quarter % 2 * 8;
          const int of = 4 * (box * 4 + j) + 2 * h;
          *reinterpret_cast<float2*>(to + at) = {d[of], d[of + 1]};
        }
      }
    });
  }
}

template <class S, bool kTransA, bool kTransB>
__global__ void __launch_bounds__(kThreads, 1)
    groups_kernel(const __grid_constant__ Jobs list, int tiles) {
  constexpr int kM = S::kM, kN = S::kN, kStages = S::kStages, kCluster = S::kCluster;
  const Job* jobs = jobs_of(list);
  extern __shared__ std::uint8_t unaligned[];
  std::uint8_t* shared =
      unaligned + (1024 - (shared_address(unaligned) & 1023)) % 1024;  // of the swizzle
  std::uint8_t* boxes = shared + kStages * S::kStageBytes;
  auto* full = reinterpret_cast<std::uint64_t*>(boxes + S::kStoreBytes);
  std::uint64_t* empty = full + kStages;
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      init_barrier(full + i, 1);
      init_barrier(empty + i, 8 * kCluster);  // warps that multiply
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  }
  __syncthreads();
  if constexpr (kCluster > 1) cluster_sync();
  const int rank = kCluster > 1 ? cluster_rank() : 0;
  const int first_tile = static_cast<int>(blockIdx.x) / kCluster;
  const int tile_step = static_cast<int>(gridDim.x) / kCluster;
  const int group = static_cast<int>(threadIdx.x) / 128;
  int stage = 0, parity = 0;
  if (group == 2) {  // asks
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
    int last = -1;
    for (int tile = first_tile; threadIdx.x / 32 == 8 && tile < tiles; tile += tile_step) {
      const int which = job_of_block(list, tile);
      const Job& job = jobs[which];
      if (threadIdx.x % 32 == 0) {
        if (which != last) {
          acquire_map(&job.a);
          acquire_map(&job.b);
        }
        const TilePlace p = place_of(job, tile - job.first);
        for (int k = 0; k < job.k; k += kDepth) {
          wait(empty + stage, parity ^ 1);
          arrive_expecting(full + stage, S::kStageBytes);
          std::uint8_t* to = shared + stage * S::kStageBytes;
          load_piece<kM, !kTransA, 1>(to, &job.a, full + stage, (p.m * kCluster + rank) * kM, k, 0);
          load_piece<kN, kTransB, kCluster>(to + S::kBytesA, &job.b, full + stage, p.n * kN, k,
                                            rank);
          if (++stage == kStages) {
            stage = 0;
            parity ^= 1;
          }
        }
      }
      last = which;
      __syncwarp();
    }
    if constexpr (kCluster > 1) cluster_sync();  // nobody writes here any more
    return;
  }
  asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
  constexpr int kParts = kM / 128;  // of 64 rows each
  const int warp = static_cast<int>(threadIdx.x) / 32;
  int last = -1, turn = 0;
  const auto release = [&](int of) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    if constexpr (kCluster > 1) {
      if (lane < kCluster) arrive_at(empty + of, lane);
    } else {
      if (lane == 0) arrive(empty + of);
    }
  };
  for (int tile = first_tile; tile < tiles; tile += tile_step) {
    const int which = job_of_block(list, tile);
    const Job& job = jobs[which];
    if (which != last && job.by_map && threadIdx.x % 32 == 0) acquire_map(&job.to);
    last = which;
    const TilePlace p = place_of(job, tile - job.first);
    float d[kParts][kN / 2];
    const int pieces = (job.k + kDepth - 1) / kDepth;
    int before = -1;  // the stage whose products may still run
    for (int piece = 0; piece < pieces; ++piece) {
      wait(full + stage, parity);
      const std::uint32_t at_a = shared_address(shared + stage * S::kStageBytes);
      const std::uint32_t at_b = at_a + S::kBytesA;
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < kDepth; k += 16) {
        // 32 bytes along rows, or sixteen rows.
        const std::uint64_t b = descriptor(at_b + (kTransB ? k * 2 : k * 128), 64 * kDepth * 2);
#pragma unroll
        for (int i = 0; i < kParts; ++i) {
          const std::uint64_t a = descriptor(
              at_a + (group * kParts + i) * 64 * kDepth * 2 + (kTransA ? k * 128 : k * 2),
              64 * kDepth * 2);
          wgmma<kTransA, !kTransB>(d[i], a, b, piece > 0 || k > 0);
        }
      }
      wgmma_commit();
      wgmma_wait<1>();
      if (before >= 0) release(before);
      before = stage;
      if (++stage == kStages) {
        stage = 0;
        parity ^= 1;
      }
    }
    wgmma_wait<0>();
    release(before);
#pragma unroll
    for (int i = 0; i < kParts; ++i) {
      const int row = (p.m * kCluster + rank) * kM + (group * kParts + i) * 64 + warp % 4 * 16;
      if (job.by_map) {
        store_by_map<kN, S::kBoxes>(job, row, p.n * kN, d[i], boxes + warp * S::kBoxes * kBoxBytes,
                                    turn);
      } else {
        store_directly<kN>(job, row, p.n * kN, d[i]);
      }
    }
  }
  wait_stores<0>();  // shared memory has to last until they have read it
  if constexpr (kCluster > 1) cluster_sync();
}

using Encode = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*,
                            const cuuint64_t*, const cuuint32_t*, const cuuint32_t*,
                            CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion,
                            CUtensorMapFloatOOBfill);

Encode encoder() {
  static const Encode encode = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result{};
    check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000,
                                           cudaEnableDefault, &result),
          "finding cuTensorMapEncodeTiled");
    if (found == nullptr) {
      throw Error(Code::kUnsupported,
                  "the driver has no cuTensorMapEncodeTiled; install CUDA 12 "
                  "or later");
    }
    return reinterpret_cast<Encode>(found);
  }();
  return encode;
}

// Boxes of 128 bytes by `rows` rows; beyond the matrix they are zeros.
CUtensorMap map_of(const MatRef& m, int rows) {
  CUtensorMap map;
  const bool is_float = m.dtype == DType::kF32;
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(m.cols), static_cast<cuuint64_t>(m.rows)};
  const cuuint64_t stride[1] = {static_cast<cuuint64_t>(std::max<std::ptrdiff_t>(m.stride, 8)) *
                                size_of(m.dtype)};
  const cuuint32_t box[2] = {is_float ? 32u : 64u, static_cast<cuuint32_t>(rows)},
                   steps[2] = {1, 1};
  const CUresult result =
      encoder()(&map, is_float ? CU_TENSOR_MAP_DATA_TYPE_FLOAT32 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                2, const_cast<void*>(m.data), sizes, stride, box, steps,
                CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    throw Error(Code::kInternal,
                cat("cuTensorMapEncodeTiled failed with ", static_cast<int>(result), " for [",
                    m.rows, ", ", m.cols, "] with stride ", m.stride));
  }
  return map;
}

template <class S, bool kTransA, bool kTransB>
void launch(const Context& ctx, std::span<const Gemm> problems) {
  std::vector<Job> jobs;
  jobs.reserve(problems.size());
  int tiles = 0;
  for (const Gemm& g : problems) {
    if (g.trans_a != kTransA || g.trans_b != kTransB) continue;
    Job& job = jobs.emplace_back();
    job.a = map_of(g.a, kTransA ? kDepth : S::kM);
    job.b = map_of(g.b, kTransB ? S::kN / S::kCluster : kDepth);
    job.c = g.c.data;
    job.c_bf16 = nullptr;
    job.c_stride = g.c.stride;
    job.m = g.m();
    job.n = g.n();
    job.k = g.k();
    job.accumulate = g.accumulate;
    MatRef to = g.c;
    if (g.c_bf16.rows > 0) {
      job.c_bf16 = reinterpret_cast<__nv_bfloat16*>(g.c_bf16.data);
      job.c_stride = g.c_bf16.stride;
      to = g.c_bf16;
    }
    const std::size_t size = size_of(to.dtype);
    job.pairs = (reinterpret_cast<std::uintptr_t>(to.data) |
                 static_cast<std::uintptr_t>(to.stride) * size) %
                    (2 * size) ==
                0;
    // A store by map writes pieces of 16 bytes, also where the last one reaches beyond the row.
    job.by_map = in_vectors(to.data, to.stride, size) && to.stride >= to.cols &&
                 static_cast<std::size_t>(to.cols) * size % 16 == 0;
    if (job.by_map) job.to = map_of(to, 16);
    job.first = tiles;
    job.tiles_m = ceil_div(job.m, S::kM * S::kCluster);
    job.tiles_n = ceil_div(job.n, S::kN);
    tiles += job.tiles_m * job.tiles_n;
  }
  if (tiles == 0) return;
  const auto kernel = groups_kernel<S, kTransA, kTransB>;
  static const cudaError_t room =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, S::kBytes);
  check(room, "asking for shared memory");
  const int clusters = std::min(tiles, device_of(ctx).processors() / S::kCluster);
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(clusters * S::kCluster));
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = S::kBytes;
  config.stream = stream_of(ctx);
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {S::kCluster, 1, 1};
  config.attrs = &cluster;
  config.numAttrs = 1;
  check(cudaLaunchKernelEx(&config, kernel, job_list<8>(ctx, jobs, tiles), tiles), "gemm_groups");
  check_launch("gemm_groups");
}

template <bool kTransA, bool kTransB>
void launch_fitting(const Context& ctx, std::span<const Gemm> problems) {
  std::int64_t wide = 0, tall = 0;  // tiles
  for (const Gemm& g : problems) {
    if (g.trans_a != kTransA || g.trans_b != kTransB) continue;
    wide += std::int64_t{ceil_div(g.m(), 128)} * ceil_div(g.n(), 256);
    tall += std::int64_t{ceil_div(g.m(), 256)} * ceil_div(g.n(), 128);
  }
  if (wide == 0) return;
  if (groups_variant == 0) {
    tall < wide ? launch<Sizes<256, 128, 1, 4, 2>, kTransA, kTransB>(ctx, problems)
                : launch<Sizes<128, 256, 1, 4, 2>, kTransA, kTransB>(ctx, problems);
  } else if (groups_variant == 1) {
    tall < wide ? launch<Sizes<256, 128, 1, 3, 5>, kTransA, kTransB>(ctx, problems)
                : launch<Sizes<128, 256, 1, 3, 5>, kTransA, kTransB>(ctx, problems);
  } else if (groups_variant == 2) {
    tall < wide ? launch<Sizes<256, 128, 2, 4, 2>, kTransA, kTransB>(ctx, problems)
                : launch<Sizes<128, 256, 2, 4, 2>, kTransA, kTransB>(ctx, problems);
  } else {
    tall < wide ? launch<Sizes<256, 128, 2, 3, 5>, kTransA, kTransB>(ctx, problems)
                : launch<Sizes<128, 256, 2, 3, 5>, kTransA, kTransB>(ctx, problems);
  }
}

}  // namespace

bool fits_groups(const Gemm& g) noexcept {
  const auto whole = [](const MatRef& m) {
    return m.dtype == DType::kBF16 && in_vectors(m.data, m.stride, sizeof(Bf16)) &&
           m.stride >= m.cols;
  };
  return g.k() > 0 && whole(g.a) && whole(g.b);
}

void gemm_groups(const Context& ctx, std::span<const Gemm> problems) {
  launch_fitting<false, false>(ctx, problems);
  launch_fitting<false, true>(ctx, problems);
  launch_fitting<true, false>(ctx, problems);
  launch_fitting<true, true>(ctx, problems);
}

}  // namespace cachalot::cuda
