// Latent attention for many heads: a thread of the two groups that multiply, pair of tiles by pair,
// and what becomes of a chunk's sums.
#pragma once

#include "kernels/cuda/latent_many_parts.cuh"

namespace cachalot::cuda {

struct ManyHeadsWorker {
  using F = ManyHeads;

  std::uint32_t base;  // of shared memory
  int thread, lane;    // of the group of 128; of the warp
  int row;             // and row + 8: of its warp's 16
  bool is_b;
  std::uint32_t parity_a = 0, parity_b = 0;  // of the tiles' barriers
  std::uint32_t turn = 0;                    // of chunks

  // Of the group of rows:
  const RowGroup* group = nullptr;
  int cached = 0;
  int all_see = 0;  // tokens, by rows that are all there
  float scale_log2 = 0;

  // Of the chunk:
  ValueSums out;
  float sum[2];
  // Of the piece:
  float reference[2], partial_reference[2];

  __device__ ManyHeadsWorker(std::uint32_t shared)
      : base(shared),
        thread(static_cast<int>(threadIdx.x) % 128),
        lane(static_cast<int>(threadIdx.x) % 32),
        row(thread / 32 * 16 + lane / 4),
        // Through a shuffle, for the compiler to see that it is one value: products may not
        // diverge.
        is_b(__shfl_sync(0xFFFFFFFFu, threadIdx.x / 128, 0) == 1) {}

  __device__ std::uint32_t full(int tile, int half) const {
    return base + F::kBarriersAt + 8 * (2 * tile + half);
  }
  __device__ void freed(int tile, int half) const {
    if (lane == 0) ptx::barrier_arrive(full(tile, half) + 32);
  }
  __device__ std::uint32_t query() const { return base + F::kQueryAt; }
  __device__ std::uint32_t tile_a() const { return base + F::kTilesAt; }
  __device__ std::uint32_t tile_b() const { return tile_a() + F::kTileBytes; }
  // Where the rope keys of a tile were.
  __device__ std::uint32_t weights_of_a() const { return tile_a() + 8 * F::kColumnBytes; }
  __device__ std::uint32_t weights_of_b() const { return tile_b() + 8 * F::kColumnBytes; }
  // One number for each row.
  __device__ std::uint32_t of_rows(int which) const {
    return base + F::kRowsAt + which * F::kRowBytes;
  }
  __device__ std::uint32_t references_of_a() const { return of_rows(0); }
  __device__ std::uint32_t references_of_b() const { return of_rows(1); }
  __device__ std::uint32_t lowering() const { return of_rows(2); }  // A's weights, by B
  __device__ std::uint32_t sums_of_a() const { return of_rows(3 + static_cast<int>(turn)); }
  __device__ std::uint32_t sums_of_b() const { return of_rows(5); }
  __device__ std::uint32_t sums_of_partial() const { return of_rows(6); }

  __device__ void enter(const RowGroup& g) {
    group = &g;
    cached = g.cached;
    scale_log2 = g.scale_log2;
    all_see = g.rows == F::kRows ? g.seen(0) : 0;
    sync_threads(kAll, F::kWorkers);  // the last queries are of no more use
    load_queries<F::kRows, F::kWorkers>(g, query(), is_b ? thread + 128 : thread);
    fence_async();
    sync_threads(kAll, F::kWorkers);
  }

  __device__ void hide(ScoreTile& scores, int pos) const {
    if (pos + F::kTokens <= all_see) return;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int r = row + 8 * i;
      scores.hide(i, r < group->rows ? group->seen(r) - pos : 0, lane);
    }
  }
  __device__ void clear_tail(std::uint32_t tile, int pos, int name) const {
    clear_tokens<F::kTokens, 128>(tile, cached - pos, thread);
    fence_async();
    sync_threads(name, 128);
  }
  // To references another group chose.
  __device__ void follow(std::uint32_t references) {
    float factor[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float next = load_float(references + 4 * (row + 8 * i));
      factor[i] = between(reference[i], next);
      reference[i] = next;
      sum[i] *= factor[i];
    }
    out.scale(factor);
  }

  // Tokens from `pos` on; `has_b`: more than 64.
  __device__ void attend_as_a(int pos, bool has_b) {
    ScoreTile scores;
    wait(full(0, 0), parity_a);
    if (pos + F::kTokens > cached) {
      wait(full(0, 1), parity_a);
      clear_tail(tile_a(), pos, kOfA);
    }
    begin_products();
    scores.multiply(query(), tile_a(), 0, 4, false);
    wait(full(0, 1), parity_a);
    begin_products();
    scores.multiply(query(), tile_a(), 4, 5, true);
    commit_products();
    wait_products<0>();
    hide(scores, pos);
    float factor[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float next = next_reference(reference[i], __fmul_rn(scores.largest(i), scale_log2));
      if (lane % 4 == 0) store_float(references_of_a() + 4 * (row + 8 * i), next);
      factor[i] = between(reference[i], next);
      reference[i] = next;
    }
    arrive_threads(kReferencesOfA, F::kWorkers);
    std::uint32_t weights[16];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      sum[i] = __fmaf_rn(sum[i], factor[i], scores.soften(i, scale_log2, reference[i], weights));
    }
    share_weights(weights, weights_of_a(), row - lane / 4, lane);
    fence_async();
    arrive_threads(kWeightsOfA, F::kWorkers);
    out.scale(factor);
    begin_products();
    out.add(weights, tile_a());
    commit_products();
    if (has_b) sync_threads(kWeightsOfB, F::kWorkers);
    wait_products<0>();
    freed(0, 0);
    if (has_b) {
      follow(references_of_b());
      wait(full(1, 1), parity_b);  // long since
      parity_b ^= 1;
      begin_products();
      out.add(weights_of_b(), tile_b());
      commit_products();
      wait_products<0>();
      freed(1, 1);
    }
    parity_a ^= 1;
  }

  // A's weights are under lower references: brought to those of B, which A has no use for.
  __device__ void lower_weights_of_a() const {
    const int r = thread / 2;
    const float by = load_float(lowering() + 4 * r);
    for (int piece = thread % 2 * 4; piece < thread % 2 * 4 + 4; ++piece) {
      const std::uint32_t at = weights_of_a() + piece_at<F::kTokens>(r, 0, piece);
      uint4 x = load_piece(at);
      const auto lowered = [by](std::uint32_t pair) {
        return pack_bf16(__uint_as_float(pair << 16) * by,
                         __uint_as_float(pair & 0xFFFF0000u) * by);
      };
      store_piece(at, {lowered(x.x), lowered(x.y), lowered(x.z), lowered(x.w)});
    }
    fence_async();
    sync_threads(kOfB, 128);
  }

  // Tile b of the same, which begins at `own`: scores, and its weights times its right columns,
  // queued.
  __device__ void attend_own_as_b(int own) {
    ScoreTile scores;
    wait(full(1, 0), parity_b);
    if (own + F::kTokens > cached) {
      wait(full(1, 1), parity_b);
      clear_tail(tile_b(), own, kOfB);
    }
    begin_products();
    scores.multiply(query(), tile_b(), 4, 4, false);
    wait(full(1, 1), parity_b);
    begin_products();
    scores.multiply(query(), tile_b(), 0, 4, true);
    scores.multiply(query(), tile_b(), 8, 1, true);
    commit_products();
    wait_products<0>();
    hide(scores, own);
    float largest[2], factor[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) largest[i] = __fmul_rn(scores.largest(i), scale_log2);
    sync_threads(kReferencesOfA, F::kWorkers);
    bool lower = false;
    std::uint32_t weights[16];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int r = row + 8 * i;
      const float of_a = load_float(references_of_a() + 4 * r);
      const float next = next_reference(of_a, largest[i]);
      lower |= of_a < next;
      if (lane % 4 == 0) {
        store_float(references_of_b() + 4 * r, next);
        store_float(lowering() + 4 * r, between(of_a, next));
      }
      factor[i] = between(reference[i], next);
      reference[i] = next;
      sum[i] = __fmaf_rn(sum[i], factor[i], scores.soften(i, scale_log2, next, weights));
    }
    share_weights(weights, weights_of_b(), row - lane / 4, lane);
    fence_async();
    arrive_threads(kWeightsOfB, F::kWorkers);
    out.scale(factor);
    begin_products();
    out.add(weights, tile_b() + 4 * F::kColumnBytes);
    commit_products();
    sync_threads(kWeightsOfA, F::kWorkers);
    if (any_of_threads(kOfB, 128, lower)) lower_weights_of_a();
    parity_b ^= 1;
  }
  __device__ void attend_as_b(int pos, bool has_b) {
    if (has_b) {
      attend_own_as_b(pos + F::kTokens);
    } else {
      sync_threads(kReferencesOfA, F::kWorkers);
      follow(references_of_a());
      sync_threads(kWeightsOfA, F::kWorkers);
    }
    wait(full(0, 1), parity_a);  // long since
    parity_a ^= 1;
    begin_products();
    out.add(weights_of_a(), tile_a() + 4 * F::kColumnBytes);
    commit_products();
    if (has_b) {
      wait_products<1>();
      freed(1, 0);
    }
    // Freed at once, not after the next scores are queued: their tile's other half is asked for
    // only when this one is free.
    wait_products<0>();
    freed(0, 1);
  }

  // The sums of a chunk's weights. Both groups need them for a result; for a partial B alone, which
  // A then does not wait for: one's sums are on their way to memory while the other multiplies.
  __device__ void add_sums(bool first, bool result, float (&total)[2], const float (&carry)[2]) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      sum[i] += __shfl_xor_sync(0xFFFFFFFFu, sum[i], 1);
      sum[i] += __shfl_xor_sync(0xFFFFFFFFu, sum[i], 2);
      if (lane % 4 == 0)
        store_float((is_b ? sums_of_b() : sums_of_a()) + 4 * (row + 8 * i), sum[i]);
    }
    if (result) {
      sync_threads(kAll, F::kWorkers);
    } else if (!is_b) {
      arrive_threads(kSumsOfA + static_cast<int>(turn), F::kWorkers);
      return;
    } else {
      sync_threads(kSumsOfA + static_cast<int>(turn), F::kWorkers);
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int at = 4 * (row + 8 * i);
      total[i] = load_float(sums_of_a() + at) + load_float(sums_of_b() + at);
      if (!first) total[i] = __fmaf_rn(load_float(sums_of_partial() + at), carry[i], total[i]);
    }
  }

  __device__ void end_chunk(const Piece& piece, bool first, bool last, float* partial_out,
                            float2* partial_rows) {
    const RowGroup& g = *group;
    const Deposit how = deposit_of(g, first, last);
    const bool result = how == Deposit::kResult || how == Deposit::kLastResult;
    float carry[2], total[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      carry[i] = first ? 0 : between(partial_reference[i], reference[i]);
      partial_reference[i] = reference[i];
    }
    add_sums(first, result, total, carry);
    turn ^= 1;
    const std::int64_t partial = static_cast<std::int64_t>(piece.partial) * F::kRows;
    // Partials lie as threads have them.
    float4* at = reinterpret_cast<float4*>(partial_out + partial * kLatentWidth) +
                 (is_b ? 32 * 128 : 0) + thread;
    if (!result) {
      const bool carried = __any_sync(0xFFFFFFFFu, carry[0] != 1 || carry[1] != 1);
#pragma unroll
      for (int n = 0; n < 32; ++n) {
        deposit(how, {out.o[4 * n], out.o[4 * n + 1], out.o[4 * n + 2], out.o[4 * n + 3]},
                at + n * 128, {carry[0], carry[0], carry[1], carry[1]}, carried);
      }
      if (!is_b || lane % 4 != 0) return;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        if (last) partial_rows[partial + row + 8 * i] = {reference[i], total[i]};
        store_float(sums_of_partial() + 4 * (row + 8 * i), total[i]);
      }
      return;
    }
    if (how == Deposit::kLastResult) {
#pragma unroll
      for (int n = 0; n < 32; ++n) {
        const float4 before = __ldcg(at + n * 128);
        float(&o)[128] = out.o;
        o[4 * n] = __fmaf_rn(before.x, carry[0], o[4 * n]);
        o[4 * n + 1] = __fmaf_rn(before.y, carry[0], o[4 * n + 1]);
        o[4 * n + 2] = __fmaf_rn(before.z, carry[1], o[4 * n + 2]);
        o[4 * n + 3] = __fmaf_rn(before.w, carry[1], o[4 * n + 3]);
      }
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int r = row + 8 * i, flat = g.first_row + r;
      if (r >= g.rows) continue;
      float* to = g.out + flat / g.heads * g.out_stride + flat % g.heads * kLatentWidth +
                  (is_b ? 256 : 0) + lane % 4 * 2;
      const float by = 1 / total[i];
#pragma unroll
      for (int n = 0; n < 32; ++n) {  // + 0: no -0, which no sum of partials is
        *reinterpret_cast<float2*>(to + 8 * n) = {__fmaf_rn(out.o[4 * n + 2 * i], by, 0.0f),
                                                  __fmaf_rn(out.o[4 * n + 2 * i + 1], by, 0.0f)};
      }
    }
  }
};

}  // namespace cachalot::cuda
