// Latent attention for many heads over FP8 rows: 64 rows against tiles of 64 tokens, whose codes
// become bf16 in the registers of the warps that multiply them (latent_codes.cuh).
//
// Rows are the narrow side of the products: scores are [tokens, rows], sums [columns, rows]. Each
// of two groups of four warps makes the scores of one of two tiles, and has the sums of half of the
// columns, of both tiles. References of softmax are common to both, and lie in shared memory; they
// change seldom (kReferenceSlack). One warp asks for tiles, three of which are there.
#pragma once

#include "kernels/cuda/latent_many_codes_worker.cuh"

namespace cachalot::cuda {

template <int kTiles>
struct TileRing {
  std::uint32_t full, empty;
  int stage = 0;
  std::uint32_t parity = 0;
  __device__ void next() {
    if (++stage == kTiles) {
      stage = 0;
      parity ^= 1;
    }
  }
};

__device__ inline void fetch_codes_for_many(const DevicePlan& plan, PieceRange range,
                                            std::uint32_t base) {
  using F = ManyCodes;
  TileRing<F::kTiles> ring{base + F::kBarriersAt, base + F::kBarriersAt + 8 * F::kTiles};
  for (TokenWalk walk(plan, range, 0, F::kTokens); walk.more(); walk.next()) {
    const int bytes = min(F::kTokens, walk.valid()) * kFp8RowBytes;
    const std::uint32_t bar = ring.full + 8 * ring.stage;
    wait(ring.empty + 8 * ring.stage, ring.parity ^ 1);
    ptx::barrier_arrive_expect(bar, bytes);
    copy_bytes(base + F::kTilesAt + ring.stage * F::kTileBytes, walk.block(), bytes, bar);
    ring.next();
  }
}

__global__ void __launch_bounds__(ManyCodes::kThreads, 1)
    attend_many_codes(const __grid_constant__ CUtensorMap, const std::byte*, DevicePlan plan,
                      float* partial_out, float2* partial_rows) {
  using F = ManyCodes;
  extern __shared__ std::byte shared_memory[];
  const std::uint32_t base = (ptx::shared_address(shared_memory) + 1023) / 1024 * 1024;
  TileRing<F::kTiles> ring{base + F::kBarriersAt, base + F::kBarriersAt + 8 * F::kTiles};
  const int thread = static_cast<int>(threadIdx.x);
  if (thread == 0) {
    for (int i = 0; i < F::kTiles; ++i) {
      ptx::barrier_init(ring.full + 8 * i, 1);
      ptx::barrier_init(ring.empty + 8 * i, F::kWarps);
    }
    fence_barrier_init();
  }
  __syncthreads();
  wait_for_those_before();
  allow_next_kernel();  // which reads the plan at once: not sooner
  const PieceRange range = pieces_of_block(plan);
  if (range.first == range.last) return;
  if (thread >= F::kWorkers) {
    give_registers<24>();
    if (thread == F::kWorkers) fetch_codes_for_many(plan, range, base);
    return;
  }
  take_registers<240>();
  ManyCodesWorker worker(base);
  int group = -1;
  for (int i = range.first; i < range.last; ++i) {
    const Piece piece = plan.pieces[i];
    const RowGroup& g = plan.groups[piece.group];
    if (piece.group != group) worker.enter(g);
    group = piece.group;
    worker.begin_piece();
    for (int chunk = 0; chunk < piece.chunks; ++chunk) {
      const int begin = g.lengths.begin(piece.first_chunk + chunk);
      const int end = g.end(piece.first_chunk + chunk);
      worker.begin_chunk();
      for (int pos = begin; pos < end; pos += 2 * F::kTokens) {
        const bool has_b = pos + F::kTokens < end, scored = worker.group == 0 || has_b;
        TileRing<F::kTiles> second = ring;  // tile b
        second.next();
        const TileRing<F::kTiles> own = worker.group == 0 ? ring : second;
        const int own_pos = pos + worker.group * F::kTokens;
        float s[32];
        if (scored) {
          const std::uint32_t tile = base + F::kTilesAt + own.stage * F::kTileBytes;
          wait(own.full + 8 * own.stage, own.parity);
          if (own_pos + F::kTokens > worker.cached) {
            clear_scales(tile, worker.cached - own_pos, F::kTokens, worker.thread);
            fence_async();
            sync_threads(worker.kOfGroup + worker.group, 128);
          }
          worker.score(tile, s);
          worker.hide(own_pos, s);
        }
        worker.raise_references(s, scored);
        if (scored) worker.soften(s);
        fence_async();
        worker.sync_all();
        const auto add = [&](const TileRing<F::kTiles>& at, int tile) {
          wait(at.full + 8 * at.stage, at.parity);
          worker.add_values(base + F::kTilesAt + at.stage * F::kTileBytes, worker.weights(tile));
          if (thread % 32 == 0) ptx::barrier_arrive(at.empty + 8 * at.stage);
        };
        add(ring, 0);
        if (has_b) add(second, 1);
        ring.next();
        if (has_b) ring.next();
      }
      worker.end_chunk(piece, chunk == 0, chunk + 1 == piece.chunks, partial_out, partial_rows);
    }
  }
}

}  // namespace cachalot::cuda
