// Latent attention for many heads: 64 rows against tiles of 64 tokens, bound by products (wgmma).
//
// The sums of 64 x 512 values fill the registers of two groups of four warps, 256 columns each;
// both groups make scores, of every other tile: A of even ones, B of odd ones. While one softmaxes,
// the products of the other keep the tensor cores busy:
//   A: scores of tile a | softmax | its weights times left values of a  | B's times left of b
//   B: scores of tile b | softmax | its weights times right values of b | A's times right of a
// A's own weights are operands from registers; for the other group they go to shared memory, where
// the tile's rope keys were, which nobody needs after the scores. Half a tile is asked for again as
// soon as both of its uses are over: the left of a after A's first product, the right of b after
// B's. One more thread asks for tiles. FP8 rows: latent_many_codes.cuh.
// Idea of the two groups and their order: FlashMLA's report on its kernel (DeepSeek, 2025).
#pragma once

#include "kernels/cuda/latent_many_fetch.cuh"
#include "kernels/cuda/latent_many_worker.cuh"

namespace cachalot::cuda {

__global__ void __launch_bounds__(ManyHeads::kThreads, 1)
    attend_many_heads(const __grid_constant__ CUtensorMap map, const std::byte* map_base,
                      DevicePlan plan, float* partial_out, float2* partial_rows) {
  using F = ManyHeads;
  extern __shared__ std::byte shared_memory[];
  const std::uint32_t base = (ptx::shared_address(shared_memory) + 1023) / 1024 * 1024;
  const std::uint32_t full = base + F::kBarriersAt, empty = full + 32;  // [tile][half]
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
    if (thread == F::kWorkers) fetch_many_heads(&map, map_base, plan, range, base);
    return;
  }
  take_registers<232>();
  ManyHeadsWorker worker(base);
  int group = -1;
  for (int i = range.first; i < range.last; ++i) {
    const Piece piece = plan.pieces[i];
    const RowGroup& g = plan.groups[piece.group];
    if (piece.group != group) worker.enter(g);
    group = piece.group;
    worker.reference[0] = worker.reference[1] = -INFINITY;
    for (int chunk = 0; chunk < piece.chunks; ++chunk) {
      const int begin = g.lengths.begin(piece.first_chunk + chunk);
      const int end = g.end(piece.first_chunk + chunk);
      worker.sum[0] = worker.sum[1] = 0;
      worker.out.clear();
      if (worker.is_b) {
        for (int pos = begin; pos < end; pos += 2 * F::kTokens) {
          worker.attend_as_b(pos, pos + F::kTokens < end);
        }
      } else {
        for (int pos = begin; pos < end; pos += 2 * F::kTokens) {
          worker.attend_as_a(pos, pos + F::kTokens < end);
        }
      }
      worker.end_chunk(piece, chunk == 0, chunk + 1 == piece.chunks, partial_out, partial_rows);
    }
  }
}

}  // namespace cachalot::cuda
