// Latent attention for few heads: 16 or 32 rows against tiles of 64 tokens, bound by memory.
//
// With so few rows they are the narrow side of the products: scores are [tokens, rows], with tokens
// as the 64 of wgmma, and sums [columns, rows], with 64 value columns, read down the tile, as the
// 64. Each of two lanes (latent_few_lane.cuh) has a buffer of one tile: one computes while the
// other's tile is on its way. Weights go to shared memory where the tile's rope keys were. A tile
// is asked for, and becomes free, in two halves of columns.
#pragma once

#include "kernels/cuda/latent_few_lane.cuh"

namespace cachalot::cuda {

template <int kN>
struct FewHeads {
  static constexpr bool kCodes = false;  // rows of FP8
  static constexpr int kTokens = 64, kRows = kN, kLanes = 2;
  static constexpr int kWorkers = 256;
  static constexpr int kThreads = kWorkers + 128;  // a warp asks for the tiles of each lane
  static constexpr int kColumnBytes = kTokens * 128;
  static constexpr int kTileBytes = kColumnBlocks * kColumnBytes;
  static constexpr int kQueryColumn = kN * 128;
  static constexpr int kQueryAt = 2 * kTileBytes;
  static constexpr int kRowsAt = kQueryAt + kColumnBlocks * kQueryColumn;
  static constexpr int kBarriersAt = kRowsAt + FewHeadsLane<kN>::kRowsBytes;
  static constexpr int kBytes = kBarriersAt + 8 * 8 + 1024;
  static_assert(kBytes <= 232448);
};

// The tiles of a lane, by one thread.
template <int kN>
__device__ inline void fetch_lane(const CUtensorMap* map, const std::byte* map_base,
                                  const DevicePlan& plan, PieceRange range, std::uint32_t tile,
                                  std::uint32_t full, std::uint32_t empty, int lane) {
  using F = FewHeads<kN>;
  std::uint32_t parity = 1;
  for (TokenWalk walk(plan, range, lane * F::kTokens, 2 * F::kTokens); walk.more(); walk.next()) {
    const auto y = static_cast<int>((walk.block() - map_base) / kCopyGrain);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const std::uint32_t bar = full + 8 * half;
      wait(empty + 8 * half, parity);
      ptx::barrier_arrive_expect(bar, (4 + half) * F::kColumnBytes);
      for (int c = 4 * half; c < 4 + 5 * half; ++c) {
        copy_box(tile + c * F::kColumnBytes, map, bar, 0, y + c, 0);
      }
    }
    parity ^= 1;
  }
}

template <int kN>
struct FewHeadsWorker : FewHeadsLane<kN> {
  using F = FewHeads<kN>;
  using Lane = FewHeadsLane<kN>;

  std::uint32_t tile, query, full, empty;  // the lane's barriers, of two halves
  std::uint32_t parity = 0;

  __device__ explicit FewHeadsWorker(std::uint32_t base)
      : Lane(base + 8 * F::kColumnBytes, F::kTileBytes, base + F::kRowsAt),
        tile(base + Lane::lane * F::kTileBytes),
        query(base + F::kQueryAt),
        full(base + F::kBarriersAt + 16 * Lane::lane),
        empty(full + 32) {}

  __device__ void freed(int half) const {
    if (Lane::thread % 32 == 0) ptx::barrier_arrive(empty + 8 * half);
  }
  __device__ void attend(int pos) {
    float s[kN / 2];
    wait(full, parity);
    if (pos + F::kTokens > Lane::cached) {
      wait(full + 8, parity);
      clear_tokens<F::kTokens, 128>(tile, Lane::cached - pos, Lane::thread);
      fence_async();
      sync_threads(Lane::name(), 128);
    }
    begin_products();
#pragma unroll
    for (int c = 0; c < kColumnBlocks; ++c) {
      if (c == 4) {
        commit_products();
        wait(full + 8, parity);
        begin_products();
      }
      const std::uint64_t a = operand_along_rows(tile + c * F::kColumnBytes);
      const std::uint64_t b = operand_along_rows(query + c * F::kQueryColumn);
#pragma unroll
      for (int k = 0; k < 4; ++k) multiply_narrow<0, kN>(s, a + 2 * k, b + 2 * k, c + k > 0);
    }
    commit_products();
    wait_products<0>();
    Lane::hide(pos, s);
    Lane::raise_references(s);
    Lane::soften(s);
    begin_products();
#pragma unroll
    for (int c = 0; c < 8; ++c) {
      const std::uint64_t a = operand_down_rows(tile + c * F::kColumnBytes, F::kColumnBytes);
      const std::uint64_t b = operand_along_rows(Lane::weights);
#pragma unroll
      for (int k = 0; k < 4; ++k) multiply_narrow<1, kN>(Lane::out[c], a + 128 * k, b + 2 * k, 1);
      if (c == 3) commit_products();
    }
    commit_products();
    wait_products<1>();
    freed(0);
    wait_products<0>();
    freed(1);
    parity ^= 1;
  }
};

template <int kN>
__global__ void __launch_bounds__(FewHeads<kN>::kThreads, 1)
    attend_few_heads(const __grid_constant__ CUtensorMap map, const std::byte* map_base,
                     DevicePlan plan, float* partial_out, float2* partial_rows) {
  using F = FewHeads<kN>;
  extern __shared__ std::byte shared_memory[];
  const std::uint32_t base = (ptx::shared_address(shared_memory) + 1023) / 1024 * 1024;
  const std::uint32_t full = base + F::kBarriersAt, empty = full + 32;  // [lane][half]
  const int thread = static_cast<int>(threadIdx.x);
  if (thread == 0) {
    for (int i = 0; i < 4; ++i) {
      ptx::barrier_init(full + 8 * i, 1);
      ptx::barrier_init(empty + 8 * i, 4);
    }
    fence_barrier_init();
  }
  __syncthreads();
  wait_for_those_before();
  allow_next_kernel();  // which reads the plan at once: not sooner
  const PieceRange range = pieces_of_block(plan);
  if (range.first == range.last) return;
  if (thread >= F::kWorkers) {
    give_registers<40>();
    const int lane = (thread - F::kWorkers) / 32;
    if (thread % 32 == 0 && lane < F::kLanes) {
      fetch_lane<kN>(&map, map_base, plan, range, base + lane * F::kTileBytes, full + 16 * lane,
                     empty + 16 * lane, lane);
    }
    return;
  }
  take_registers<232>();
  FewHeadsWorker<kN> worker(base);
  int group = -1;
  for (int i = range.first; i < range.last; ++i) {
    const Piece piece = plan.pieces[i];
    const RowGroup& g = plan.groups[piece.group];
    if (piece.group != group) {
      worker.enter(g, [&](int worker_thread) {
        load_queries<kN, F::kWorkers>(g, worker.query, worker_thread);
      });
    }
    group = piece.group;
    worker.begin_piece();
    for (int chunk = 0; chunk < piece.chunks; ++chunk) {
      const int begin = g.lengths.begin(piece.first_chunk + chunk);
      const int end = g.end(piece.first_chunk + chunk);
      worker.begin_chunk();
      for (int pos = begin + worker.lane * F::kTokens; pos < end; pos += 2 * F::kTokens) {
        worker.attend(pos);
      }
      worker.end_chunk(piece.partial, chunk == 0, chunk + 1 == piece.chunks, partial_out,
                       partial_rows);
    }
  }
}

}  // namespace cachalot::cuda
