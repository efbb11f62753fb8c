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
// B's. One more group of warps asks for tiles, or reads FP8 and expands it.
// Idea of the two groups and their order: FlashMLA's report on its kernel (DeepSeek, 2025).
#pragma once

#include "kernels/cuda/latent_walk.cuh"
#include "kernels/cuda/latent_wgmma.cuh"

namespace cachalot::cuda {

struct ManyHeads {
  static constexpr int kTokens = 64, kRows = 64, kLanes = 1;
  static constexpr int kWorkers = 256, kHelpers = 128, kThreads = kWorkers + kHelpers;
  static constexpr int kColumnBytes = kTokens * 128;  // of 64 columns of a tile
  static constexpr int kTileBytes = kColumnBlocks * kColumnBytes;
  static constexpr int kQueryAt = 0, kTilesAt = kTileBytes;
  static constexpr int kRowsAt =
      kTilesAt + 2 * kTileBytes;  // references of A, of B, sums likewise,
  // then of the partial
  static constexpr int kBarriersAt = kRowsAt + 6 * kRows * 4;
  static constexpr int kBytes = kBarriersAt + 8 * 8 + 1024;
  static_assert(kBytes <= 232448);

  // Half 0 of a tile is the one needed first: left columns for A, right ones for B. The rope is in
  // half 1.
  static __host__ __device__ constexpr int first_column(int tile, int half) {
    return tile == half ? 0 : 4;
  }
};

// Barriers among the workers: threads that arrive and threads that wait.
enum ManyHeadsBarrier : int { kReferencesOfA = 1, kWeightsOfA, kWeightsOfB, kAll, kOfA, kOfB };

__device__ inline void arrive_threads(int name, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(name), "r"(threads) : "memory");
}
// Scores of the workers' own tile: softmax state of a thread, which has rows r and r + 8 of its
// warp's 16, columns 8 n + 2 (lane % 4) and the next.
struct ScoreTile {
  float s[32];

  __device__ void multiply(std::uint32_t query, std::uint32_t tile, int first_column, int columns,
                           bool add) {
#pragma unroll
    for (int c = 0; c < columns; ++c) {
      const int at = (first_column + c) * ManyHeads::kColumnBytes;
      const std::uint64_t a = operand_along_rows(query + at), b = operand_along_rows(tile + at);
#pragma unroll
      for (int k = 0; k < 4; ++k) multiply_scores(s, a + 2 * k, b + 2 * k, add || c > 0 || k > 0);
    }
  }
  __device__ void hide(int row, int visible, int lane) {  // columns from `visible` on
#pragma unroll
    for (int n = 0; n < 8; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        if (8 * n + lane % 4 * 2 + i >= visible) s[4 * n + 2 * row + i] = -INFINITY;
      }
    }
  }
  __device__ float largest(int row) const {
    float most = -INFINITY;
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      most = fmaxf(most, fmaxf(s[4 * n + 2 * row], s[4 * n + 2 * row + 1]));
    }
    most = fmaxf(most, __shfl_xor_sync(0xFFFFFFFFu, most, 1));
    return fmaxf(most, __shfl_xor_sync(0xFFFFFFFFu, most, 2));
  }
  // Scores become weights in bf16, as operands; their sum over this thread's columns.
  __device__ float soften(int row, float scale_log2, float reference,
                          std::uint32_t (&weights)[16]) const {
    const float zero_at = reference == -INFINITY ? 0 : reference;
    float sum = 0;
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      const float* x = s + 4 * n + 2 * row;
      const std::uint32_t pair = pack_bf16(exp2_of(__fmaf_rn(x[0], scale_log2, -zero_at)),
                                           exp2_of(__fmaf_rn(x[1], scale_log2, -zero_at)));
      weights[4 * (n / 2) + n % 2 * 2 + row] = pair;
      sum += sum_of_pair(pair);
    }
    return sum;
  }
};

struct ValueSums {
  float o[128];
  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < 128; ++i) o[i] = 0;
  }
  __device__ void scale(const float (&by)[2]) {
    if (!__any_sync(0xFFFFFFFFu, by[0] != 1 || by[1] != 1)) return;
#pragma unroll
    for (int n = 0; n < 32; ++n) {
      o[4 * n] *= by[0];
      o[4 * n + 1] *= by[0];
      o[4 * n + 2] *= by[1];
      o[4 * n + 3] *= by[1];
    }
  }
  // `values`: the first of the four columns of 64 of a tile.
  __device__ void add(const std::uint32_t (&weights)[16], std::uint32_t values) {
    const std::uint64_t b = operand_down_rows(values, ManyHeads::kColumnBytes);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      multiply_values(o, weights[4 * k], weights[4 * k + 1], weights[4 * k + 2], weights[4 * k + 3],
                      b + 128 * k);
    }
  }
  __device__ void add(std::uint32_t weights, std::uint32_t values) {
    const std::uint64_t a = operand_along_rows(weights);
    const std::uint64_t b = operand_down_rows(values, ManyHeads::kColumnBytes);
#pragma unroll
    for (int k = 0; k < 4; ++k) multiply_values(o, a + 2 * k, b + 128 * k);
  }
};

// For the other group.
__device__ inline void share_weights(const std::uint32_t (&weights)[16], std::uint32_t to, int row,
                                     int lane) {
#pragma unroll
  for (int k = 0; k < 4; ++k) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const std::uint32_t at =
          piece_at<ManyHeads::kTokens>(row + i % 2 * 8, 0, 2 * k + i / 2) + lane % 4 * 4;
      asm volatile("st.shared.u32 [%0], %1;" ::"r"(to + at), "r"(weights[4 * k + i]) : "memory");
    }
  }
}

template <bool kFp8>
__device__ inline void fetch_many_heads(const CUtensorMap* map, const std::byte* map_base,
                                        const DevicePlan& plan, PieceRange range,
                                        std::uint32_t base, std::uint32_t full, std::uint32_t empty,
                                        int helper);

// The rows' queries in bf16, as products read them; rows that are not there are zeros.
__device__ inline void load_queries(const RowGroup& g, std::uint32_t query, int thread) {
  using F = ManyHeads;
  for (int i = thread; i < F::kRows * 72; i += F::kWorkers) {
    const int r = i / 72, piece = i % 72, flat = g.first_row + r;
    uint4 x = {0, 0, 0, 0};
    if (r < g.rows) {
      const auto* from = reinterpret_cast<const float4*>(g.q + flat / g.heads * g.q_stride +
                                                         flat % g.heads * kQueryWidth + piece * 8);
      const float4 low = from[0], high = from[1];
      x = {pack_bf16(low.x, low.y), pack_bf16(low.z, low.w), pack_bf16(high.x, high.y),
           pack_bf16(high.z, high.w)};
    }
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(
                     query + piece_at<F::kTokens>(r, piece / 8, piece % 8)),
                 "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w)
                 : "memory");
  }
}

template <bool kFp8>
__global__ void __launch_bounds__(ManyHeads::kThreads, 1)
    attend_many_heads(const __grid_constant__ CUtensorMap map, const std::byte* map_base,
                      DevicePlan plan, float* partial_out, float2* partial_rows) {
  using F = ManyHeads;
  extern __shared__ std::byte shared_memory[];
  wait_for_those_before();
  allow_next_kernel();  // which reads the plan at once: not sooner
  const PieceRange range = pieces_of_block(plan);
  if (range.first == range.last) return;
  const std::uint32_t base = (ptx::shared_address(shared_memory) + 1023) / 1024 * 1024;
  // [tile][half]
  const std::uint32_t full = base + F::kBarriersAt, empty = full + 32;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
  if (thread == 0) {
    for (int i = 0; i < 4; ++i) {
      ptx::barrier_init(full + 8 * i, kFp8 ? F::kHelpers : 1);
      ptx::barrier_init(empty + 8 * i, 4);
    }
    fence_barrier_init();
  }
  __syncthreads();
  if (thread >= F::kWorkers) {
    give_registers<kFp8 ? 88 : 40>();
    fetch_many_heads<kFp8>(&map, map_base, plan, range, base, full, empty, thread - F::kWorkers);
    return;
  }
  take_registers<kFp8 ? 208 : 232>();

  // Through a shuffle, for the compiler to see that it is one value: products may not diverge.
  const bool is_b = __shfl_sync(0xFFFFFFFFu, thread / 128, 0) == 1;
  const int row = thread % 128 / 32 * 16 + lane / 4;  // and row + 8
  const std::uint32_t references_of_a = base + F::kRowsAt, references_of_b = references_of_a + 256;
  const std::uint32_t sums_of_a = references_of_b + 256, sums_of_b = sums_of_a + 256;
  const std::uint32_t lowering = sums_of_b;  // of A's weights to B's references, before the sums
  const std::uint32_t query = base + F::kQueryAt;
  const std::uint32_t tile_a = base + F::kTilesAt, tile_b = tile_a + F::kTileBytes;
  const std::uint32_t weights_of_a = tile_a + 8 * F::kColumnBytes;
  const std::uint32_t weights_of_b = tile_b + 8 * F::kColumnBytes;
  const auto freed = [&](int tile, int half) {
    if (lane == 0) ptx::barrier_arrive(empty + 8 * (2 * tile + half));
  };
  ValueSums out;
  int group = -1;
  std::uint32_t parity_a = 0, parity_b = 0;  // of the tiles' barriers
  float reference[2];
  Piece piece{};
  for (int next_piece = range.first, chunk = 0; chunk < piece.chunks || next_piece < range.last;
       ++chunk) {
    if (chunk == piece.chunks) {
      piece = plan.pieces[next_piece++];
      chunk = 0;
      reference[0] = reference[1] = -INFINITY;
    }
    const RowGroup& g = plan.groups[piece.group];
    if (piece.group != group) {
      group = piece.group;
      load_queries(g, query, thread);
      fence_async();
      sync_threads(kAll, F::kWorkers);
    }
    const int begin = (piece.first_chunk + chunk) * g.chunk, end = g.end(piece.first_chunk + chunk);
    const int cached = g.cached;
    const float scale_log2 = g.scale_log2;
    const int all_see = g.rows == F::kRows ? g.seen(0) : 0;  // by rows that are all there
    float sum[2] = {0, 0};
    out.clear();

    // Waits for the scores in flight, having let `then` run when all products before are done.
    ScoreTile scores;
    const auto hide = [&](int pos) {
      if (pos + F::kTokens <= all_see) return;
      scores.hide(0, row < g.rows ? g.seen(row) - pos : 0, lane);
      scores.hide(1, row + 8 < g.rows ? g.seen(row + 8) - pos : 0, lane);
    };
    const auto clear_tail = [&](std::uint32_t tile, int pos, int name) {
      clear_tokens<F::kTokens, 128>(tile, cached - pos, thread % 128);
      fence_async();
      sync_threads(name, 128);
    };

    if (!is_b) {
      for (int pos = begin; pos < end; pos += 2 * F::kTokens) {
        const bool has_b = pos + F::kTokens < end;
        wait(full, parity_a);
        if (!kFp8 && pos + F::kTokens > cached) {
          wait(full + 8, parity_a);
          clear_tail(tile_a, pos, kOfA);
        }
        begin_products();
        scores.multiply(query, tile_a, 0, 4, false);
        wait(full + 8, parity_a);
        begin_products();
        scores.multiply(query, tile_a, 4, 5, true);
        commit_products();
        wait_products<0>();
        hide(pos);
        float factor[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const float next = next_reference(reference[i], __fmul_rn(scores.largest(i), scale_log2));
          if (lane % 4 == 0) store_float(references_of_a + 4 * (row + 8 * i), next);
          factor[i] = between(reference[i], next);
          reference[i] = next;
        }
        arrive_threads(kReferencesOfA, F::kWorkers);
        std::uint32_t weights[16];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          sum[i] =
              __fmaf_rn(sum[i], factor[i], scores.soften(i, scale_log2, reference[i], weights));
        }
        share_weights(weights, weights_of_a, row, lane);
        fence_async();
        arrive_threads(kWeightsOfA, F::kWorkers);
        out.scale(factor);
        begin_products();
        out.add(weights, tile_a);
        commit_products();
        if (has_b) sync_threads(kWeightsOfB, F::kWorkers);
        wait_products<0>();
        freed(0, 0);
        if (has_b) {
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            const float next = load_float(references_of_b + 4 * (row + 8 * i));
            factor[i] = between(reference[i], next);
            reference[i] = next;
            sum[i] *= factor[i];
          }
          out.scale(factor);
          wait(full + 24, parity_b);  // long since
          parity_b ^= 1;
          begin_products();
          out.add(weights_of_b, tile_b);
          commit_products();
          wait_products<0>();
          freed(1, 1);
        }
        parity_a ^= 1;
      }
    } else {
      for (int pos = begin; pos < end; pos += 2 * F::kTokens) {
        const int own = pos + F::kTokens;  // where tile b begins
        const bool has_b = own < end;
        float factor[2];
        if (has_b) {
          wait(full + 16, parity_b);
          if (!kFp8 && own + F::kTokens > cached) {
            wait(full + 24, parity_b);
            clear_tail(tile_b, own, kOfB);
          }
          begin_products();
          scores.multiply(query, tile_b, 4, 4, false);
          wait(full + 24, parity_b);
          begin_products();
          scores.multiply(query, tile_b, 0, 4, true);
          scores.multiply(query, tile_b, 8, 1, true);
          commit_products();
          wait_products<0>();
          hide(own);
          float largest[2];
#pragma unroll
          for (int i = 0; i < 2; ++i) largest[i] = __fmul_rn(scores.largest(i), scale_log2);
          sync_threads(kReferencesOfA, F::kWorkers);
          bool lower = false;
          std::uint32_t weights[16];
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            const float of_a = load_float(references_of_a + 4 * (row + 8 * i));
            const float next = next_reference(of_a, largest[i]);
            lower |= of_a < next;
            if (lane % 4 == 0) {
              store_float(references_of_b + 4 * (row + 8 * i), next);
              store_float(lowering + 4 * (row + 8 * i), between(of_a, next));
            }
            factor[i] = between(reference[i], next);
            reference[i] = next;
            sum[i] = __fmaf_rn(sum[i], factor[i], scores.soften(i, scale_log2, next, weights));
          }
          share_weights(weights, weights_of_b, row, lane);
          fence_async();
          arrive_threads(kWeightsOfB, F::kWorkers);
          out.scale(factor);
          begin_products();
          out.add(weights, tile_b + 4 * F::kColumnBytes);
          commit_products();
          sync_threads(kWeightsOfA, F::kWorkers);
          if (any_of_threads(kOfB, 128, lower)) {
            // A's weights are under lower references: brought to those of B, which A has no use
            // for.
            const int r = thread % 128 / 2;
            const float by = load_float(lowering + 4 * r);
            for (int piece = thread % 2 * 4; piece < thread % 2 * 4 + 4; ++piece) {
              auto* at = reinterpret_cast<__nv_bfloat162*>(
                  shared_memory + (weights_of_a - ptx::shared_address(shared_memory)) +
                  piece_at<F::kTokens>(r, 0, piece));
              for (int i = 0; i < 4; ++i) {
                const float2 x = __bfloat1622float2(at[i]);
                at[i] = __floats2bfloat162_rn(x.x * by, x.y * by);
              }
            }
            fence_async();
            sync_threads(kOfB, 128);
          }
          parity_b ^= 1;
        } else {
          sync_threads(kReferencesOfA, F::kWorkers);
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            const float next = load_float(references_of_a + 4 * (row + 8 * i));
            factor[i] = between(reference[i], next);
            reference[i] = next;
            sum[i] *= factor[i];
          }
          out.scale(factor);
          sync_threads(kWeightsOfA, F::kWorkers);
        }
        wait(full + 8, parity_a);  // long since
        parity_a ^= 1;
        begin_products();
        out.add(weights_of_a, tile_a + 4 * F::kColumnBytes);
        commit_products();
        if (has_b) {
          wait_products<1>();
          freed(1, 0);
        }
        // Freed at once, not after the next scores are queued: their tile's other half is asked
        // for only when this one is free.
        wait_products<0>();
        freed(0, 1);
      }
    }

    // Sums of both groups' columns, under the same reference.
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      sum[i] += __shfl_xor_sync(0xFFFFFFFFu, sum[i], 1);
      sum[i] += __shfl_xor_sync(0xFFFFFFFFu, sum[i], 2);
      if (lane % 4 == 0) store_float((is_b ? sums_of_b : sums_of_a) + 4 * (row + 8 * i), sum[i]);
    }
    sync_threads(kAll, F::kWorkers);
    const bool first = chunk == 0, last = chunk + 1 == piece.chunks;
    const Deposit how = deposit_of(g, first, last);
    float totals[2];
    const std::int64_t partial = static_cast<std::int64_t>(piece.partial) * F::kRows;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int r = row + 8 * i, flat = g.first_row + r;
      const std::uint32_t of_partial = sums_of_b + 256 + 4 * r;
      const float carry = first ? 0 : between(load_float(of_partial), reference[i]);
      float total = load_float(sums_of_a + 4 * r) + load_float(sums_of_b + 4 * r);
      if (!first) total = __fmaf_rn(load_float(of_partial + 256), carry, total);
      totals[i] = total;
      const bool carried = __any_sync(0xFFFFFFFFu, carry != 1);
      if (r >= g.rows) continue;
      const int column = (is_b ? 256 : 0) + lane % 4 * 2;
      float* at = partial_out + (partial + r) * kLatentWidth + column;
      float* to = g.out + flat / g.heads * g.out_stride + flat % g.heads * kLatentWidth + column;
      const float by = 1 / total;
#pragma unroll
      for (int n = 0; n < 32; ++n) {
        deposit(how, {out.o[4 * n + 2 * i], out.o[4 * n + 2 * i + 1]}, at + 8 * n, carry, carried,
                to + 8 * n, by);
      }
      if (g.pieces > 1 && last && !is_b && lane % 4 == 0) {
        partial_rows[partial + r] = {reference[i], total};
      }
    }
    sync_threads(kAll, F::kWorkers);  // sums have been read
#pragma unroll
    for (int i = 0; i < 2; ++i) {  // by the next chunk of the piece, after its barriers
      const std::uint32_t of_partial = sums_of_b + 256 + 4 * (row + 8 * i);
      if (is_b || lane % 4 != 0) continue;
      store_float(of_partial, reference[i]);
      store_float(of_partial + 256, totals[i]);
    }
  }
}

// Halves of tiles in the order in which they are needed and become free.
template <bool kFp8>
__device__ inline void fetch_many_heads(const CUtensorMap* map, const std::byte* map_base,
                                        const DevicePlan& plan, PieceRange range,
                                        std::uint32_t base, std::uint32_t full, std::uint32_t empty,
                                        int helper) {
  using F = ManyHeads;
  if (!kFp8 && helper != 0) return;
  std::uint32_t parity = 3;  // of both tiles
  for (int i = range.first; i < range.last; ++i) {
    const Piece piece = plan.pieces[i];
    const RowGroup& g = plan.groups[piece.group];
    const std::byte* const* blocks = plan.blocks + g.first_block;
    const int end = g.end(piece.first_chunk + piece.chunks - 1), cached = g.cached;
    for (int pos = piece.first_chunk * g.chunk; pos < end; pos += 2 * F::kTokens) {
      const bool has_b = pos + F::kTokens < end;
      if (kFp8 && helper == 0) {  // what comes next, into the second-level cache
        for (int t = 2; t < 4; ++t) {
          const int ahead = pos + t * F::kTokens;
          if (ahead >= end) break;
          asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(
                           blocks[ahead / kLatentBlock] + plan.shift),
                       "r"(min(F::kTokens, cached - ahead) * kFp8RowBytes)
                       : "memory");
        }
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
          if constexpr (!kFp8) {
            wait(empty + bar, parity >> t & 1);
            ptx::barrier_arrive_expect(full + bar, (4 + half) * F::kColumnBytes);
            const auto y = static_cast<int>((block - map_base) / kCopyGrain);
            for (int c = first; c < first + 4; ++c) {
              copy_box(tile + c * F::kColumnBytes, map, full + bar, 0, y + c, 0);
            }
            if (half == 1) copy_box(tile + 8 * F::kColumnBytes, map, full + bar, 0, y + 8, 0);
          } else {
            expand_half<F::kTokens>(
                block, cached - pos - t * F::kTokens, tile, first, half == 1,
                [&] { wait(empty + bar, parity >> t & 1); }, helper);
            fence_async();
            ptx::barrier_arrive(full + bar);
          }
        }
      }
      parity ^= has_b ? 3 : 1;
    }
  }
}

}  // namespace cachalot::cuda
