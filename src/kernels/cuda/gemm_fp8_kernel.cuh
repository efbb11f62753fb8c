// The product of block-scaled codes on Hopper's tensor cores.
//
// A block has one warpgroup that loads and one to three that multiply, 64 rows each or twice 64.
// Loading: one thread has the copy engine fill the next free stage of shared memory (a tile of A
// and one of B, 128 codes of K), two warps copy the scales of these rows beside it. Multiplying:
// the tensor cores sum the products of one block of K into fresh registers (their sums keep about
// 14 bits: no longer run is theirs), which are then added to float sums, times the scales, while
// they multiply the next block.
//
// What bounds it, measured on an H200: without the sums the tensor cores run at 94% of their clock
// for it; each instruction of the sums that writes a register takes one of theirs (so the loop
// keeps its addresses in uniform registers); and in long runs the power allows 1.5 to 1.6 GHz.
// Paper: DeepSeek-V3 report, section 3.3.2; the division into warps follows the public descriptions
// of DeepGEMM and CUTLASS.
#pragma once

#include <type_traits>

#include "kernels/cuda/gemm_fp8_schedule.cuh"
#include "kernels/cuda/gemm_fp8_shape.cuh"
#include "kernels/cuda/gemm_fp8_store.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace cachalot::cuda::fp8_product {

// ---- loading ----

template <class S>
__device__ void load_tiles(typename S::Shared& shared, const Params& params, const Problem* list,
                           int rank) {
  using ptx::shared_address;
  constexpr std::uint16_t kAllBlocks = (1 << S::kAcross) - 1;
  typename S::Tiles tiles(params, list, shared.tile_begin, rank);
  Ring<S::kStages> ring;
  Item item, after;
  bool more = tiles.next(item);
  while (more) {
    const bool another = tiles.next(after);
    if (another && after.problem != item.problem) {
      ptx::prefetch_tensor_map(&list[after.problem].a);
      ptx::prefetch_tensor_map(&list[after.problem].b);
    }
    const Problem& p = list[item.problem];
    for (int block = item.begin; block < item.end; ++block) {
      const std::uint32_t full = shared_address(&shared.full[ring.stage]);
      const std::uint32_t a = shared_address(shared.tiles[ring.stage]);
      const std::uint32_t b = a + S::kBytesA;
      const int k = block * kBlockK;
      ptx::barrier_wait(shared_address(&shared.empty[ring.stage]), ring.phase ^ 1);
      ptx::barrier_arrive_expect(full, S::kStageBytes);
      if constexpr (S::kAcross > 1) {
        ptx::tma_load_multicast(a + rank * (S::kBoxA * kBlockK), &p.a, full, kAllBlocks, k,
                                item.row + rank * S::kBoxA);
      } else {
        ptx::tma_load(a, &p.a, full, k, item.row);
      }
      ptx::tma_load_5d(b, &p.b, full, k, 0, 0, 0, item.col / 16);
      ring.advance();
    }
    item = after;
    more = another;
  }
}

template <class S>
__device__ void load_scales(typename S::Shared& shared, const Params& params, const Problem* list,
                            int rank, int thread) {
  using ptx::shared_address;
  constexpr int kEachA = S::kRows / S::kScalers;
  constexpr int kEachB = S::kColumnScales ? S::kCols / S::kScalers : 1;
  typename S::Tiles tiles(params, list, shared.tile_begin, rank);
  Ring<S::kStages> ring;
  for (Item item; tiles.next(item);) {
    const Problem& p = list[item.problem];
    const int rows = p.rows();
    const float* a = p.scale_a.data + item.begin * p.scale_a.by_block;
    const float* b = p.scale_b.data + item.begin * p.scale_b.by_block;
    std::uint32_t at_a[kEachA], at_b[kEachB];
    bool has_a[kEachA], has_b[kEachB];
#pragma unroll
    for (int i = 0; i < kEachA; ++i) {
      const int row = item.row + thread + S::kScalers * i;
      has_a[i] = row < rows;
      at_a[i] =
          has_a[i] ? static_cast<std::uint32_t>((row >> p.scale_a.shift) * p.scale_a.by_row) : 0;
    }
#pragma unroll
    for (int i = 0; i < kEachB; ++i) {
      const int col = item.col + (S::kColumnScales ? thread + S::kScalers * i : 0);
      has_b[i] = col < p.n;
      at_b[i] =
          has_b[i] ? static_cast<std::uint32_t>((col >> p.scale_b.shift) * p.scale_b.by_row) : 0;
    }
    const std::int64_t step_a = p.scale_a.by_block, step_b = p.scale_b.by_block;
    for (int block = item.begin; block < item.end; ++block) {
      ptx::barrier_wait(shared_address(&shared.empty[ring.stage]), ring.phase ^ 1);
#pragma unroll
      for (int i = 0; i < kEachA; ++i) {
        ptx::copy_float_async(shared_address(&shared.scale_a[ring.stage][thread + S::kScalers * i]),
                              a + at_a[i], has_a[i]);
      }
#pragma unroll
      for (int i = 0; i < kEachB; ++i) {
        if (S::kColumnScales || thread == 0) {
          ptx::copy_float_async(
              shared_address(&shared.scale_b[ring.stage][thread + S::kScalers * i]), b + at_b[i],
              has_b[i]);
        }
      }
      ptx::copies_arrive(shared_address(&shared.full[ring.stage]));
      a += step_a;
      b += step_b;
      ring.advance();
    }
  }
}

// ---- multiplying ----

// part = A B^T of one block of K.
template <int kSums>
__device__ __forceinline__ void multiply(float (&part)[kSums], std::uint64_t a, std::uint64_t b) {
  ptx::hold_registers(part);
  ptx::wgmma_fence();
#pragma unroll
  for (int i = 0; i < kBlockK / 32; ++i) {
    ptx::wgmma_e4m3(part, a + i * ptx::kStep32Bytes, b + i * ptx::kStep32Bytes, i > 0);
  }
  ptx::wgmma_commit();
  ptx::hold_registers(part);
}

// sum += part * scales; upper, lower: of this thread's rows.
template <int kSums>
__device__ __forceinline__ void add_scaled(float (&sum)[kSums], const float (&part)[kSums],
                                           float upper, float lower) {
#pragma unroll
  for (int i = 0; i < kSums; i += 4) {
    sum[i] = fmaf(part[i], upper, sum[i]);
    sum[i + 1] = fmaf(part[i + 1], upper, sum[i + 1]);
    sum[i + 2] = fmaf(part[i + 2], lower, sum[i + 2]);
    sum[i + 3] = fmaf(part[i + 3], lower, sum[i + 3]);
  }
}
// With a scale for each column; `columns` at this thread's first 4 (see map_interleaved_codes).
template <int kSums>
__device__ __forceinline__ void add_scaled(float (&sum)[kSums], const float (&part)[kSums],
                                           float upper, float lower, const float* columns) {
#pragma unroll
  for (int i = 0; i < kSums; i += 8) {
    const float4 column = *reinterpret_cast<const float4*>(columns + 2 * i);
    sum[i] = fmaf(part[i], upper * column.x, sum[i]);
    sum[i + 1] = fmaf(part[i + 1], upper * column.y, sum[i + 1]);
    sum[i + 2] = fmaf(part[i + 2], lower * column.x, sum[i + 2]);
    sum[i + 3] = fmaf(part[i + 3], lower * column.y, sum[i + 3]);
    sum[i + 4] = fmaf(part[i + 4], upper * column.z, sum[i + 4]);
    sum[i + 5] = fmaf(part[i + 5], upper * column.w, sum[i + 5]);
    sum[i + 6] = fmaf(part[i + 6], lower * column.z, sum[i + 6]);
    sum[i + 7] = fmaf(part[i + 7], lower * column.w, sum[i + 7]);
  }
}

// What a multiplying thread needs of the stages.
template <class S>
struct Stages {
  typename S::Shared& shared;
  int group, row, lane;  // warpgroup; this thread's first row of the block's tile; lane of its warp
  std::uint64_t first_a, first_b;

  static __device__ std::uint32_t moved(int stage) {
    return static_cast<std::uint32_t>(stage) * (S::kStageBytes >> 4);
  }

  __device__ void wait(const Ring<S::kStages>& ring) const {
    ptx::barrier_wait(ptx::shared_address(&shared.full[ring.stage]), ring.phase);
  }
  // To all blocks that load into this one.
  __device__ void release(const Ring<S::kStages>& ring) const {
    const std::uint32_t empty = ptx::shared_address(&shared.empty[ring.stage]);
    if constexpr (S::kAcross == 1) {
      if (lane == 0) ptx::barrier_arrive(empty);
    } else {
      if (lane < S::kAcross) ptx::barrier_arrive_at(empty, lane);
    }
  }
  // Descriptors: those of the first stage, moved on. One lane's, so that the compiler keeps them in
  // registers of the warp: what writes the threads' registers takes turns with the tensor cores.
  __device__ std::uint64_t a(int stage) const { return first_a + moved(stage); }
  __device__ std::uint64_t b(int stage) const { return first_b + moved(stage); }
  // Of this thread's rows of a part; times that of B where it is one for all columns.
  __device__ float2 scales(int stage, int part = 0) const {
    float2 s = make_float2(shared.scale_a[stage][row + 64 * part],
                           shared.scale_a[stage][row + 64 * part + 8]);
    if constexpr (!S::kColumnScales) {
      const float b = shared.scale_b[stage][0];
      s.x *= b;
      s.y *= b;
    }
    return s;
  }
  __device__ void add(float (&sum)[S::kSums], const float (&product)[S::kSums], float2 scales,
                      int stage) const {
    if constexpr (S::kColumnScales) {
      add_scaled(sum, product, scales.x, scales.y, &shared.scale_b[stage][lane % 4 * 4]);
    } else {
      add_scaled(sum, product, scales.x, scales.y);
    }
  }
};

// sum += the products of the next `blocks` blocks of K, each multiplied while the one before it is
// added.
template <class S, class F>
__device__ __forceinline__ void multiply_ahead(const Stages<S>& stages, Ring<S::kStages>& ring,
                                               float (&sum)[S::kSums], int blocks,
                                               const F& meanwhile) {
  if (blocks == 0) {
    meanwhile();
    return;
  }
  float even[S::kSums], odd[S::kSums];
  Ring<S::kStages> ahead = ring;
  const auto issue = [&](float(&product)[S::kSums]) {
    stages.wait(ahead);
    multiply(product, stages.a(ahead.stage), stages.b(ahead.stage));
    ahead.advance();
  };
  const auto add = [&]<int kPending>(float(&product)[S::kSums],
                                     std::integral_constant<int, kPending>) {
    const float2 scales = stages.scales(ring.stage);
    ptx::wgmma_wait<kPending>();
    ptx::hold_registers(product);
    if (!S::kColumnScales) stages.release(ring);
    stages.add(sum, product, scales, ring.stage);
    if (S::kColumnScales) stages.release(ring);
    ring.advance();
  };
  constexpr std::integral_constant<int, 0> kNone;
  constexpr std::integral_constant<int, 1> kOne;
  issue(even);
  meanwhile();
  int left = blocks;
  for (; left > 2; left -= 2) {
    issue(odd);
    add(even, kOne);
    issue(even);
    add(odd, kOne);
  }
  if (left == 2) {
    issue(odd);
    add(even, kOne);
    add(odd, kNone);
  } else {
    add(even, kNone);
  }
}

// The same with one set of products: while a warpgroup adds, the others multiply.
template <class S, class F>
__device__ __forceinline__ void multiply_between(const Stages<S>& stages, Ring<S::kStages>& ring,
                                                 float (&sum)[S::kParts][S::kSums], int blocks,
                                                 const F& meanwhile) {
  if (blocks == 0) meanwhile();
  for (int block = 0; block < blocks; ++block) {
    stages.wait(ring);
#pragma unroll
    for (int part = 0; part < S::kParts; ++part) {
      float product[S::kSums];
      multiply(product, stages.a(ring.stage) + part * (64 * kBlockK >> 4), stages.b(ring.stage));
      if (part == 0 && block == 0) meanwhile();
      const float2 scales = stages.scales(ring.stage, part);
      ptx::wgmma_wait<0>();
      ptx::hold_registers(product);
      if (!S::kColumnScales && part == S::kParts - 1) stages.release(ring);
      stages.add(sum[part], product, scales, ring.stage);
    }
    if (S::kColumnScales) stages.release(ring);
    ring.advance();
  }
}

template <class S>
__device__ void multiply_and_store(typename S::Shared& shared, const Params& params,
                                   const Problem* list, int rank, int group, int thread) {
  const int lane = thread % 32;
  const int row = 64 * S::kParts * group + 16 * (thread / 32) + lane / 4;
  const std::uint32_t tile = ptx::shared_address(shared.tiles[0]);
  const Stages<S> stages{shared,
                         group,
                         row,
                         lane,
                         ptx::k_major_tile(uniform(tile + group * (S::kParts * 64 * kBlockK))),
                         ptx::k_major_tile(uniform(tile + S::kBytesA))};
  typename S::Tiles tiles(params, list, shared.tile_begin, rank);
  Ring<S::kStages> ring;
  Item item, after;
  bool more = tiles.next(item);
  for (; more; item = after) {
    float sum[S::kParts][S::kSums];
#pragma unroll
    for (int part = 0; part < S::kParts; ++part) clear(sum[part]);
    const int blocks = uniform(item.end - item.begin);
    const auto meanwhile = [&] { more = tiles.next(after); };
    if constexpr (S::kAhead) {
      multiply_ahead<S>(stages, ring, sum[0], blocks, meanwhile);
    } else {
      multiply_between<S>(stages, ring, sum, blocks, meanwhile);
    }
    if (S::kDeep == 1 && item.cut >= 0 &&
        !combine<S>(tiles, params.partials, item, shared, rank, group, thread, sum)) {
      continue;
    }
    const Problem& p = list[item.problem];
    const Output out = output_of(p, item, S::kRows, S::kCols);
    if constexpr (S::kStagedBoxes > 0) {
      // The map ends where the problem does; where fewer rows count, it does not know.
      if (p.mapped && (out.rows == p.m || out.whole)) {
        if (out.c_bf16 != nullptr) {
          stage_out<S, true>(shared.staged[group], p, out, sum, item, group, thread);
        } else {
          stage_out<S, false>(shared.staged[group], p, out, sum, item, group, thread);
        }
        continue;
      }
    }
    const int col = item.col + lane % 4 * 4;
    if constexpr (S::kDeep > 1) {
      float mine[S::kSums / S::kDeep];
      exchange<S>(shared, rank, group, thread, sum[0], mine);
      store(out, mine, item.row + row, col + rank * (S::kCols / S::kDeep));
      return;  // a cluster has one tile
    } else {
#pragma unroll
      for (int part = 0; part < S::kParts; ++part) {
        store(out, sum[part], item.row + row + 64 * part, col);
      }
    }
  }
  if (S::kStagedBoxes > 0 && thread == 0) ptx::tma_store_wait();
}

template <class S>
__global__ void __launch_bounds__(S::kThreads, 1)
    product_kernel(const __grid_constant__ Params params) {
  extern __shared__ __align__(1024) std::uint8_t memory[];
  const std::uint32_t beyond = ptx::shared_address(memory) % 1024;
  auto& shared = *reinterpret_cast<typename S::Shared*>(memory + (beyond == 0 ? 0 : 1024 - beyond));
  const Problem* const list = params.list != nullptr ? params.list : params.near;
  const int warp = uniform(static_cast<int>(threadIdx.x / 32));
  const int rank = S::kCluster > 1 ? ptx::cluster_rank() : 0;
  if (warp == 0) {
    S::Tiles::number_tiles(params, list, shared.tile_begin);
  } else if (warp == 1) {
    if (threadIdx.x % 32 == 0) {
      for (int i = 0; i < S::kStages; ++i) {
        ptx::barrier_init(ptx::shared_address(&shared.full[i]), 1 + S::kScalers);
        ptx::barrier_init(ptx::shared_address(&shared.empty[i]), 4 * S::kGroups * S::kAcross);
      }
      if (S::kDeep > 1) {
        ptx::barrier_init(ptx::shared_address(&shared.all_exchanged), 4 * S::kGroups * S::kDeep);
      }
      ptx::fence_barrier_init();
    }
  } else {
    if (params.list != nullptr) {
      for (int i = static_cast<int>(threadIdx.x) - 64; i < params.problems; i += S::kThreads - 64) {
        ptx::acquire_tensor_map(&list[i].a);
        ptx::acquire_tensor_map(&list[i].b);
        ptx::acquire_tensor_map(&list[i].c);
      }
    }
    if (threadIdx.x == 64) {
      ptx::prefetch_tensor_map(&list->a);
      ptx::prefetch_tensor_map(&list->b);
    }
  }
  __syncthreads();
  if constexpr (S::kCluster > 1) ptx::cluster_sync();
  const int group = warp / 4;
  if (group == S::kGroups) {
    if constexpr (S::kGroups > 1) ptx::give_registers<S::kLoaderRegisters>();
    if (warp % 4 == 0) {
      if (threadIdx.x % 32 == 0) load_tiles<S>(shared, params, list, rank);
    } else if (warp % 4 >= 2) {
      load_scales<S>(shared, params, list, rank, static_cast<int>(threadIdx.x % 64));
    }
    __syncwarp();
  } else {
    if constexpr (S::kGroups > 1) ptx::take_registers<S::kRegisters>();
    multiply_and_store<S>(shared, params, list, rank, group, static_cast<int>(threadIdx.x % 128));
  }
  // Nobody leaves while another block may still write here.
  if constexpr (S::kAcross > 1) {
    __syncwarp();
    ptx::cluster_sync();
  }
}

}  // namespace cachalot::cuda::fp8_product
