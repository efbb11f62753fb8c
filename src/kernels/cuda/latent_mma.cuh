// Latent attention for few heads: 16 or 32 rows against tiles of 32 tokens, bound by memory.
//
// One block of threads per multiprocessor walks over its share of the items. Warps:
//   0-7    products and softmax (mma.sync). Scores: the 576 columns are cut in four and, of 16
//          rows, the tokens in two (of 32: the rows in two); the quarters meet in shared memory,
//          where one thread softmaxes 2 (4) scores of a row. Values: 64 columns per warp.
//   8-11   ask for tiles, as far ahead as there is room, past the ends of items; FP8: expand codes
//          to bf16
// A score's sum and a value's sum have one order, whatever the rows of the group.
#pragma once

#include "kernels/cuda/latent_device.cuh"
#include "kernels/cuda/latent_plan.h"
#include "kernels/cuda/latent_walk.cuh"

namespace cachalot::cuda {

template <bool kFp8, int kRowTiles>
struct FewHeads {
  static constexpr int kTokens = 32;
  static constexpr int kRows = 16 * kRowTiles;
  static constexpr int kWorkers = 256, kHelpers = 128, kThreads = kWorkers + kHelpers;
  static constexpr int kStages = kFp8 ? 3 : 5, kRawStages = kFp8 ? 4 : 0;
  static constexpr int kTileBytes = kTokens * kBf16RowBytes, kRawBytes = kTokens * kFp8RowBytes;
  static constexpr int kScoreStride = 40, kWeightStride = 40;  // elements; free of bank conflicts

  static constexpr int kRawAt = kStages * kTileBytes;
  static constexpr int kScoresAt = kRawAt + kRawStages * kRawBytes;
  static constexpr int kWeightsAt = kScoresAt + 4 * kRows * kScoreStride * 4;
  static constexpr int kRowsAt = kWeightsAt + kRows * kWeightStride * 2;
  static constexpr int kBarriersAt = kRowsAt + 3 * kRows * 4;
  static constexpr int kBytes = kBarriersAt + 8 * (2 * kStages + kRawStages) + 1024;
  static_assert(kBytes <= 232448);
};

template <bool kFp8, int kRowTiles>
__global__ void __launch_bounds__(FewHeads<kFp8, kRowTiles>::kThreads, 1)
    attend_few_heads(const __grid_constant__ CUtensorMap map, const std::byte* map_base,
                     DevicePlan plan, int items, float* partial_out, float2* partial_rows) {
  using F = FewHeads<kFp8, kRowTiles>;
  extern __shared__ std::byte shared_memory[];
  const std::uint32_t base = (shared_address(shared_memory) + 1023) / 1024 * 1024;
  std::byte* const at_base = shared_memory + (base - shared_address(shared_memory));
  const std::uint32_t full = base + F::kBarriersAt, empty = full + 8 * F::kStages;
  const std::uint32_t raw_full = empty + 8 * F::kStages;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;

  if (thread == 0) {
    for (int s = 0; s < F::kStages; ++s) {
      init_barrier(full + 8 * s, kFp8 ? F::kHelpers : 1);
      init_barrier(empty + 8 * s, F::kWorkers / 32);
    }
    for (int s = 0; s < F::kRawStages; ++s) init_barrier(raw_full + 8 * s, 1);
    fence_barrier_init();
  }
  __syncthreads();
  const auto [first_item, last_item] = items_of_block(items);

  if (warp >= F::kWorkers / 32) {
    give_registers<88>();
    const int helper = thread - F::kWorkers;
    TileWalk ahead(plan, first_item, last_item);  // of tiles yet to be asked for
    if constexpr (!kFp8) {
      if (helper != 0) return;
      for (Ring<F::kStages> ring; ahead.more(); ahead.step(F::kTokens), ring.step()) {
        wait(empty + 8 * ring.at, ring.parity ^ 1);
        arrive_expecting(full + 8 * ring.at, F::kTileBytes);
        const auto y = static_cast<int>((ahead.block() - map_base) / kCopyGrain);
        for (int c = 0; c < kColumnBlocks; ++c) {
          copy_box(base + ring.at * F::kTileBytes + c * (F::kTokens * 128), &map,
                   full + 8 * ring.at, 0, y + c, ahead.in_block());
        }
      }
    } else {
      const auto ask = [&](int at) {
        if (helper != 0 || !ahead.more()) return;
        const int bytes = min(F::kTokens, ahead.behind()) * kFp8RowBytes;
        arrive_expecting(raw_full + 8 * at, bytes);
        copy_bytes(base + F::kRawAt + at * F::kRawBytes,
                   ahead.block() + ahead.in_block() * kFp8RowBytes, bytes, raw_full + 8 * at);
        ahead.step(F::kTokens);
      };
      for (int s = 0; s < F::kRawStages; ++s) ask(s);
      Ring<F::kRawStages> raw;
      Ring<F::kStages> ring;
      for (TileWalk now(plan, first_item, last_item); now.more(); now.step(F::kTokens)) {
        wait(raw_full + 8 * raw.at, raw.parity);
        wait(empty + 8 * ring.at, ring.parity ^ 1);
        expand_codes<F::kTokens, F::kHelpers>(base + F::kRawAt + raw.at * F::kRawBytes,
                                              base + ring.at * F::kTileBytes, now.behind(),
                                              helper);
        arrive(full + 8 * ring.at);
        sync_threads(2, F::kHelpers);  // the codes have been read
        ask(raw.at);
        raw.step();
        ring.step();
      }
    }
    return;
  }
  take_registers<208>();

  // Products and softmax.
  constexpr int kSteps = kQueryWidth / 16 / 4;           // of 16 columns, of a quarter
  constexpr int kTokenTiles = kRowTiles == 1 ? 1 : 2;    // of 16 tokens, whose scores a warp makes
  constexpr int kPerThread = F::kRows * F::kTokens / F::kWorkers;  // scores to softmax: 2, 4
  constexpr int kThreadsPerRow = F::kTokens / kPerThread;
  const int quarter = warp % 4, half = warp / 4;
  const int row_tile = kRowTiles == 1 ? 0 : half, first_token = kRowTiles == 1 ? 16 * half : 0;
  const int pair_row = lane / 4, pair_col = lane % 4 * 2;  // of a fragment of results

  float* const scores = reinterpret_cast<float*>(at_base + F::kScoresAt);
  auto* const weights = reinterpret_cast<std::uint32_t*>(at_base + F::kWeightsAt);
  float* const corrections = reinterpret_cast<float*>(at_base + F::kRowsAt);
  float* const references = corrections + F::kRows;
  float* const sums = references + F::kRows;

  const int my_row = thread / kThreadsPerRow, my_col = thread % kThreadsPerRow * kPerThread;
  std::uint32_t query[kSteps][4];
  float out[kRowTiles][8][4];
  int group = -1;
  Ring<F::kStages> ring;

  for (int item = first_item; item < last_item; ++item) {
    const WorkItem work = plan.items[item];
    const RowGroup& g = plan.groups[work.group];
    if (work.group != group) {
      group = work.group;
      const float* rows[2];
      for (int i = 0; i < 2; ++i) {
        const int row = row_tile * 16 + pair_row + 8 * i, flat = g.first_row + row;
        rows[i] = row < g.rows
                      ? g.q + flat / g.heads * g.q_stride + flat % g.heads * kQueryWidth
                      : nullptr;
      }
#pragma unroll
      for (int s = 0; s < kSteps; ++s) {
#pragma unroll
        for (int r = 0; r < 4; ++r) {
          const int col = (quarter * kSteps + s) * 16 + pair_col + r / 2 * 8;
          const float* row = rows[r % 2];
          const float2 x = row != nullptr ? *reinterpret_cast<const float2*>(row + col)
                                          : float2{0, 0};
          query[s][r] = pack_bf16(x.x, x.y);
        }
      }
    }
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int n = 0; n < 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) out[m][n][i] = 0;
      }
    }
    const int begin = work.chunk * g.chunk, end = g.end(work.chunk), cached = g.cached;
    const int seen = my_row < g.rows ? g.seen(my_row) : 0;
    const float scale_log2 = g.scale_log2;
    float reference = -INFINITY, sum[kPerThread / 2] = {};  // sums of pairs: one order for any rows

    // This warp's part of the scores of a tile, into shared memory. All keys of 16 tokens are asked
    // for before the first product; even and odd steps are summed apart: half as long a chain.
    const auto score = [&](std::uint32_t tile) {
      const int token = lane % 8 + lane / 16 * 8, piece = lane / 8 % 2;
#pragma unroll
      for (int t = 0; t < kTokenTiles; ++t) {
        std::uint32_t keys[kSteps][4];
#pragma unroll
        for (int s = 0; s < kSteps; ++s) {
          const int step = quarter * kSteps + s;
          load_matrices(keys[s], tile + piece_at<F::kTokens>(first_token + 16 * t + token,
                                                             step / 4, step % 4 * 2 + piece));
        }
        float part[2][2][4] = {};  // [step % 2][8 tokens]
#pragma unroll
        for (int s = 0; s < kSteps; ++s) {
          multiply(part[s % 2][0], query[s], keys[s][0], keys[s][1]);
          multiply(part[s % 2][1], query[s], keys[s][2], keys[s][3]);
        }
#pragma unroll
        for (int n = 0; n < 2; ++n) {
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            const int row = quarter * F::kRows + row_tile * 16 + pair_row + 8 * i;
            *reinterpret_cast<float2*>(scores + row * F::kScoreStride + first_token + 16 * t +
                                       8 * n + pair_col) = {
                part[0][n][2 * i] + part[1][n][2 * i],
                part[0][n][2 * i + 1] + part[1][n][2 * i + 1]};
          }
        }
      }
    };

    // Scores -> weights, the running maximum and sum of a row.
    const auto soften = [&](int pos) {
      float s[kPerThread];
#pragma unroll
      for (int i = 0; i < kPerThread; i += 2) {
        float2 part[4];
#pragma unroll
        for (int q = 0; q < 4; ++q) {
          part[q] = *reinterpret_cast<const float2*>(
              scores + (q * F::kRows + my_row) * F::kScoreStride + my_col + i);
        }
        s[i] = (part[0].x + part[1].x) + (part[2].x + part[3].x);
        s[i + 1] = (part[0].y + part[1].y) + (part[2].y + part[3].y);
      }
      float most = -INFINITY;
#pragma unroll
      for (int i = 0; i < kPerThread; ++i) {
        if (pos + my_col + i >= seen) s[i] = -INFINITY;
        most = fmaxf(most, s[i]);
      }
#pragma unroll
      for (int i = 1; i < kThreadsPerRow; i *= 2) {
        most = fmaxf(most, __shfl_xor_sync(0xFFFFFFFFu, most, i));
      }
      const float next = next_reference(reference, __fmul_rn(most, scale_log2));
      const float zero_at = next == -INFINITY ? 0 : next;
      const float correction = exp2_of(reference - zero_at);
      reference = next;
#pragma unroll
      for (int i = 0; i < kPerThread; i += 2) {
        const float p0 = exp2_of(__fmaf_rn(s[i], scale_log2, -zero_at));
        const float p1 = exp2_of(__fmaf_rn(s[i + 1], scale_log2, -zero_at));
        sum[i / 2] = __fmaf_rn(sum[i / 2], correction, p0 + p1);
        weights[(my_row * F::kWeightStride + my_col + i) / 2] = pack_bf16(p0, p1);
      }
      if (thread % kThreadsPerRow == 0) corrections[my_row] = correction;
    };

    const auto take_values = [&](std::uint32_t tile) {
      const std::uint32_t columns = tile + warp * (F::kTokens * 128);
      std::uint32_t values[2][4][4], p[2][kRowTiles][4];
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
        for (int k = 0; k < 2; ++k) {
          const int row = m * 16 + lane % 16, col = k * 16 + lane / 16 * 8;
          load_matrices(p[k][m], base + F::kWeightsAt + (row * F::kWeightStride + col) * 2);
        }
      }
#pragma unroll
      for (int k = 0; k < 2; ++k) {
#pragma unroll
        for (int n = 0; n < 4; ++n) {
          const int token = k * 16 + lane % 16;
          load_transposed(values[k][n], columns + piece_at<F::kTokens>(token, 0, 2 * n + lane / 16));
        }
      }
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
        const float low = corrections[m * 16 + pair_row], high = corrections[m * 16 + pair_row + 8];
        if (__any_sync(0xFFFFFFFFu, low != 1 || high != 1)) {
#pragma unroll
          for (int n = 0; n < 8; ++n) {
            out[m][n][0] *= low;
            out[m][n][1] *= low;
            out[m][n][2] *= high;
            out[m][n][3] *= high;
          }
        }
      }
#pragma unroll
      for (int k = 0; k < 2; ++k) {
#pragma unroll
        for (int n = 0; n < 4; ++n) {
#pragma unroll
          for (int m = 0; m < kRowTiles; ++m) {
            multiply(out[m][2 * n], p[k][m], values[k][n][0], values[k][n][1]);
            multiply(out[m][2 * n + 1], p[k][m], values[k][n][2], values[k][n][3]);
          }
        }
      }
    };

    const auto arrived = [&](const Ring<F::kStages>& r, int pos) {
      wait(full + 8 * r.at, r.parity);
      const std::uint32_t tile = base + r.at * F::kTileBytes;
      if (!kFp8 && pos + F::kTokens > cached) {
        clear_tokens<F::kTokens, F::kWorkers>(tile, cached - pos, thread);
        fence_async();
      }
      return tile;
    };

    PROFILE_BEGIN
    std::uint32_t tile = arrived(ring, begin);
    PROFILE(0)
    score(tile);
    PROFILE(1)
    sync_threads(1, F::kWorkers);
    soften(begin);
    sync_threads(1, F::kWorkers);
    for (int pos = begin; pos < end; pos += F::kTokens) {
      Ring<F::kStages> next = ring;
      next.step();
      const bool more = pos + F::kTokens < end;
      std::uint32_t next_tile = tile;
      if (more) {
        next_tile = arrived(next, pos + F::kTokens);
        PROFILE(0)
        score(next_tile);
        PROFILE(1)
      }
      take_values(tile);
      __syncwarp();
      if (lane == 0) arrive(empty + 8 * ring.at);
      ring = next;
      tile = next_tile;
      PROFILE(2)
      sync_threads(1, F::kWorkers);
      PROFILE(3)
      if (more) soften(pos + F::kTokens);
      PROFILE(4)
      sync_threads(1, F::kWorkers);
      PROFILE(5)
      PROFILE_COUNT
    }

    float row_sum = kPerThread == 2 ? sum[0] : sum[0] + sum[kPerThread / 2 - 1];
#pragma unroll
    for (int i = 1; i < kThreadsPerRow; i *= 2) row_sum += __shfl_xor_sync(0xFFFFFFFFu, row_sum, i);
    if (thread % kThreadsPerRow == 0) {
      references[my_row] = reference;
      sums[my_row] = row_sum;
    }
    sync_threads(1, F::kWorkers);
    const bool only = g.chunks == 1;
    const std::int64_t partial = static_cast<std::int64_t>(g.partial + work.chunk) * F::kRows;
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int row = m * 16 + pair_row + 8 * i;
        if (row >= g.rows) continue;
        const float total = sums[row];
        const int flat = g.first_row + row;
        float* to = only ? g.out + flat / g.heads * g.out_stride + flat % g.heads * kLatentWidth
                         : partial_out + (partial + row) * kLatentWidth;
        const float factor = only ? 1 / total : 1;
#pragma unroll
        for (int n = 0; n < 8; ++n) {
          *reinterpret_cast<float2*>(to + warp * 64 + n * 8 + pair_col) = {
              out[m][n][2 * i] * factor, out[m][n][2 * i + 1] * factor};
        }
        if (!only && warp == 0 && lane % 4 == 0) partial_rows[partial + row] = {references[row], total};
      }
    }
  }
}

}  // namespace cachalot::cuda
