// Latent attention for many heads: halves of tiles into shared memory, in the order in which they
// are needed and become free.
#pragma once

#include "kernels/cuda/latent_many_parts.cuh"

namespace cachalot::cuda {

// A block's rows of tokens into the second-level cache.
__device__ inline void prefetch_rows(const std::byte* block, int tokens) {
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(block),
               "r"(tokens * kBf16RowBytes)
               : "memory");
}

// By one thread.
__device__ inline void fetch_many_heads(const CUtensorMap* map, const std::byte* map_base,
                                        const DevicePlan& plan, PieceRange range,
                                        std::uint32_t base) {
  using F = ManyHeads;
  const std::uint32_t full = base + F::kBarriersAt, empty = full + 32;  // [tile][half]
  std::uint32_t parity = 3;                                             // of both tiles
  for (int i = range.first; i < range.last; ++i) {
    const Piece piece = plan.pieces[i];
    const RowGroup& g = plan.groups[piece.group];
    const std::byte* const* blocks = plan.blocks + g.first_block;
    const int end = g.end(piece.first_chunk + piece.chunks - 1), cached = g.cached;
    for (int pos = g.lengths.begin(piece.first_chunk); pos < end; pos += 2 * F::kTokens) {
      const bool has_b = pos + F::kTokens < end;
      for (int t = 2; t < 4; ++t) {
        const int ahead = pos + t * F::kTokens;
        if (ahead >= end) break;
        prefetch_rows(blocks[ahead / kLatentBlock] + plan.shift, min(F::kTokens, cached - ahead));
      }
#pragma unroll 1
      for (int half = 0; half < 2; ++half) {
#pragma unroll 1
        for (int t = 0; t < 2; ++t) {
          if (t == 1 && !has_b) continue;
          const std::byte* block = blocks[pos / kLatentBlock + t] + plan.shift;
          const std::uint32_t tile = base + F::kTilesAt + t * F::kTileBytes;
          const std::uint32_t bar = 8 * (2 * t + half);
          const int first = F::first_column(t, half);
          wait(empty + bar, parity >> t & 1);
          ptx::barrier_arrive_expect(full + bar, (4 + half) * F::kColumnBytes);
          const auto y = static_cast<int>((block - map_base) / kCopyGrain);
          for (int c = first; c < first + 4; ++c) {
            copy_box(tile + c * F::kColumnBytes, map, full + bar, 0, y + c, 0);
          }
          if (half == 1) copy_box(tile + 8 * F::kColumnBytes, map, full + bar, 0, y + 8, 0);
        }
      }
      parity ^= has_b ? 3 : 1;
    }
  }
}

}  // namespace cachalot::cuda
