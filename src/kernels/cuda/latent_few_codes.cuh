// Latent attention for few heads over FP8 rows: codes become bf16 in the registers of the warps
// that multiply them.
//
// As in latent_few.cuh rows are the narrow side of the products, so the cache is the side that
// wgmma takes from registers: scores are [tokens, rows], sums [columns, rows]. Tiles of 64 tokens
// come as they lie in the cache; each code is read and expanded twice, as a key and as a value, and
// never goes back to shared memory. Products do not mind in which order columns are summed and
// tokens and columns stand, so a thread takes 16 codes that follow each other, and queries, weights
// and partials lie in the order that follows from that.
#pragma once

#include "kernels/cuda/latent_codes.cuh"
#include "kernels/cuda/latent_few_lane.cuh"

namespace cachalot::cuda {

template <int kN>
struct FewCodes {
  static constexpr bool kCodes = true;  // rows of FP8
  static constexpr int kTokens = 64, kRows = kN, kLanes = 2;
  static constexpr int kWorkers = 256, kThreads = kWorkers + 128;
  static constexpr int kTileBytes = kTokens * kFp8RowBytes, kTiles = 4;
  static constexpr int kQueryAt = 0, kQueryColumn = kN * 128;
  static constexpr int kWeightsAt = kQueryAt + kColumnBlocks * kQueryColumn;  // of each lane
  static constexpr int kTilesAt = kWeightsAt + kLanes * kN * 128;
  static constexpr int kRowsAt = kTilesAt + kTiles * kTileBytes;
  static constexpr int kBarriersAt = kRowsAt + FewHeadsLane<kN>::kRowsBytes;
  static constexpr int kBytes = kBarriersAt + 8 * 2 * kTiles + 1024;
  static_assert(kBytes <= 232448);
};

template <int kN>
struct FewCodesWorker : FewHeadsLane<kN> {
  using F = FewCodes<kN>;
  using Lane = FewHeadsLane<kN>;
  using Lane::eighth, Lane::name, Lane::out, Lane::quarter, Lane::thread, Lane::token, Lane::warp;

  std::uint32_t query;

  // out[i] are columns 128 warp + 16 spread(eighth) + 2 i and the next.
  __device__ explicit FewCodesWorker(std::uint32_t base)
      : Lane(base + F::kWeightsAt, kN * 128, base + F::kRowsAt), query(base + F::kQueryAt) {
    token = warp * 16 + spread_eight(eighth);
  }

  __device__ void multiply_keys(const std::uint32_t (&a)[16], int column_block,
                                float (&s)[kN / 2]) const {
    const std::uint64_t b = operand_along_rows(query + column_block * F::kQueryColumn);
    begin_products();
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      multiply_narrow<kN>(s, a[4 * k], a[4 * k + 1], a[4 * k + 2], a[4 * k + 3], b + 2 * k,
                          column_block + k > 0);
    }
    commit_products();
  }
  __device__ void score(std::uint32_t tile, float (&s)[kN / 2]) const {
    const std::uint32_t row = tile + static_cast<std::uint32_t>(token * kFp8RowBytes);
    constexpr int kNextRow = 8 * kFp8RowBytes;
    float scales[2][4];
    bool large = false;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const uint4 x = load_piece(row + i * kNextRow + kFp8ScalesAt);
      const std::uint32_t words[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        scales[i][j] = __uint_as_float(words[j]);
        large |= is_large_scale(scales[i][j]);
      }
    }
    large = __any_sync(0xFFFFFFFFu, large);
    std::uint32_t a[2][16];
    KeyCodes codes, next;
    next.read(row, kNextRow, 0, quarter);
#pragma unroll
    for (int c = 0; c < 8; ++c) {
      codes = next;
      if (c < 7) next.read(row, kNextRow, c + 1, quarter);
      if (c >= 2) {
        wait_products<1>();
        keep_registers(a[c % 2]);
      }
      const CodeScale scale[2] = {CodeScale(scales[0][c / 2], large),
                                  CodeScale(scales[1][c / 2], large)};
      if (large) {
        expand_keys<true>(codes, scale, a[c % 2]);
      } else {
        expand_keys<false>(codes, scale, a[c % 2]);
      }
      multiply_keys(a[c % 2], c, s);
    }
    wait_products<1>();
    keep_registers(a[0]);
    read_rope_keys(row, kNextRow, quarter, a[0]);
    multiply_keys(a[0], 8, s);
    wait_products<0>();
    keep_registers(a[0]);
    keep_registers(a[1]);
  }

  __device__ void multiply_values(const std::uint32_t (&a)[16], int step, int first) {
    const std::uint64_t b = operand_along_rows(Lane::weights) + 2 * step;
    begin_products();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      multiply_narrow<kN>(out[first + i], a[4 * i], a[4 * i + 1], a[4 * i + 2], a[4 * i + 3], b, 1);
    }
    commit_products();
  }
  __device__ void add_values(std::uint32_t tile) {
    // Columns of the warp lie under one scale.
    const std::uint32_t row =
        tile + static_cast<std::uint32_t>(spread_eight(2 * quarter) * kFp8RowBytes);
    const std::uint32_t columns = row + warp * 128 + spread_eight(eighth) * 16;
    std::uint32_t a[2][16];
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      uint2 codes[2][4];  // of eight columns and the next; of tokens, 4, 8 and 12 further
#pragma unroll
      for (int t = 0; t < 4; ++t) {
        const uint4 x = load_piece(columns + (16 * step + 4 * t) * kFp8RowBytes);
        codes[0][t] = {x.x, x.y};
        codes[1][t] = {x.z, x.w};
      }
      const ValueScales scales(row + 16 * step * kFp8RowBytes, warp);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (step > 0) {
          wait_products<1>();
          keep_registers(a[half]);
        }
        scales.expand(codes[half], a[half]);
        multiply_values(a[half], step, 4 * half);
      }
    }
    wait_products<0>();
    keep_registers(a[0]);
    keep_registers(a[1]);
  }

  __device__ void attend(std::uint32_t tile, int pos) {
    if (pos + F::kTokens > Lane::cached) {
      clear_scales(tile, Lane::cached - pos, F::kTokens, thread);
      fence_async();
      sync_threads(name(), 128);
    }
    float s[kN / 2];
    score(tile, s);
    Lane::hide(pos, s);
    Lane::raise_references(s);
    Lane::soften(s);
    add_values(tile);
  }
};

// The tiles of both lanes, by one thread.
template <int kN>
__device__ inline void fetch_codes(const DevicePlan& plan, PieceRange range, std::uint32_t base) {
  using F = FewCodes<kN>;
  const std::uint32_t full = base + F::kBarriersAt, empty = full + 8 * F::kTiles;
  int stage = 0;
  std::uint32_t parity = 1;
  for (TokenWalk walk(plan, range, 0, F::kTokens); walk.more(); walk.next()) {
    const int bytes = min(F::kTokens, walk.valid()) * kFp8RowBytes;
    wait(empty + 8 * stage, parity);
    ptx::barrier_arrive_expect(full + 8 * stage, bytes);
    copy_bytes(base + F::kTilesAt + stage * F::kTileBytes, walk.block(), bytes, full + 8 * stage);
    if (++stage == F::kTiles) {
      stage = 0;
      parity ^= 1;
    }
  }
}

template <int kN>
__global__ void __launch_bounds__(FewCodes<kN>::kThreads, 1)
    attend_few_codes(const __grid_constant__ CUtensorMap, const std::byte*, DevicePlan plan,
                     float* partial_out, float2* partial_rows) {
  using F = FewCodes<kN>;
  extern __shared__ std::byte shared_memory[];
  const std::uint32_t base = (ptx::shared_address(shared_memory) + 1023) / 1024 * 1024;
  const std::uint32_t full = base + F::kBarriersAt, empty = full + 8 * F::kTiles;
  const int thread = static_cast<int>(threadIdx.x);
  if (thread == 0) {
    for (int i = 0; i < F::kTiles; ++i) {
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
    give_registers<24>();
    if (thread == F::kWorkers) fetch_codes<kN>(plan, range, base);
    return;
  }
  take_registers<240>();
  FewCodesWorker<kN> worker(base);
  int group = -1;
  unsigned first_tile = 0;  // of the chunk, among all of the block
  for (int i = range.first; i < range.last; ++i) {
    const Piece piece = plan.pieces[i];
    const RowGroup& g = plan.groups[piece.group];
    if (piece.group != group) {
      worker.enter(g, [&](int worker_thread) {
        load_spread_queries<kN, F::kWorkers>(g, worker.query, worker_thread);
      });
    }
    group = piece.group;
    worker.begin_piece();
    for (int chunk = 0; chunk < piece.chunks; ++chunk) {
      const int begin = g.lengths.begin(piece.first_chunk + chunk);
      const int tiles = (g.end(piece.first_chunk + chunk) - begin + F::kTokens - 1) / F::kTokens;
      worker.begin_chunk();
      for (int t = worker.lane; t < tiles; t += F::kLanes) {
        const unsigned tile = first_tile + static_cast<unsigned>(t);
        const unsigned stage = tile % F::kTiles;
        wait(full + 8 * stage, tile / F::kTiles % 2);
        worker.attend(base + F::kTilesAt + stage * F::kTileBytes, begin + t * F::kTokens);
        if (thread % 32 == 0) ptx::barrier_arrive(empty + 8 * stage);
      }
      first_tile += static_cast<unsigned>(tiles);
      worker.end_chunk(piece.partial, chunk == 0, chunk + 1 == piece.chunks, partial_out,
                       partial_rows);
    }
  }
}

}  // namespace cachalot::cuda
