// Latent attention for few heads: 16 or 32 rows against tiles of 64 tokens, bound by memory.
//
// With so few rows they are the narrow side of the products: scores are [tokens, rows], with tokens
// as the 64 of wgmma, and sums [columns, rows], with 64 value columns, read down the tile, as the
// 64. Two lanes, each of four warps with a buffer of one tile, take every other tile of a chunk and
// have sums of their own, which only the merge brings together: they never wait for each other, one
// computes while the other's tile is on its way. Weights go to shared memory where the tile's rope
// keys were. A tile is asked for, and becomes free, in two halves of columns.
#pragma once

#include "kernels/cuda/latent_walk.cuh"
#include "kernels/cuda/latent_wgmma.cuh"

namespace cachalot::cuda {

template <bool kFp8, int kN>
struct FewHeads {
  static constexpr int kTokens = 64, kRows = kN, kLanes = 2;
  static constexpr int kWorkers = 256;
  static constexpr int kHelpers = 128, kThreads = kWorkers + kHelpers;
  static constexpr int kWorkerRegisters = kFp8 ? 208 : 232, kHelperRegisters = kFp8 ? 88 : 40;
  static constexpr int kColumnBytes = kTokens * 128;
  static constexpr int kTileBytes = kColumnBlocks * kColumnBytes;
  static constexpr int kQueryColumn = kN * 128;
  static constexpr int kQueryAt = 2 * kTileBytes;
  // FP8: rows as they lie in the cache, 32 tokens at a time, on their way to be expanded.
  static constexpr int kRawTokens = 32, kRawBytes = kRawTokens * kFp8RowBytes;
  static constexpr int kRawStages = !kFp8 ? 0 : kN == 16 ? 3 : 2;
  static constexpr int kRawAt = kQueryAt + kColumnBlocks * kQueryColumn;
  static constexpr int kRowsAt = kRawAt + kRawStages * kRawBytes;
  static constexpr int kBarriersAt = kRowsAt + kLanes * 2 * 4 * kN * 4;  // maxima, sums of 4 warps
  static constexpr int kBytes = kBarriersAt + 8 * (8 + kRawStages) + 1024;
  static_assert(kBytes <= 232448);
};

// Barriers: of both lanes, of the helpers, of each lane.
enum FewHeadsBarrier : int { kBothLanes = 1, kOfHelpers, kOfLane };

// Four 8 x 8 matrices of bf16 pairs, transposed: lane 8 j + i has the address of row i of matrix j.
__device__ inline void store_transposed(std::uint32_t address, std::uint32_t a, std::uint32_t b,
                                        std::uint32_t c, std::uint32_t d) {
  asm volatile(
      "stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
      "r"(a), "r"(b), "r"(c), "r"(d)
      : "memory");
}

// The tokens of some pieces, in order.
class TokenWalk {
 public:
  // Every `step`th from `first` on, of each piece.
  __device__ TokenWalk(const DevicePlan& plan, PieceRange range, int first, int step)
      : plan_(plan), range_(range), first_(first), step_(step) {
    enter();
  }
  __device__ bool more() const { return range_.first < range_.last; }
  __device__ void next() {
    pos_ += step_;
    if (pos_ >= end_) {
      ++range_.first;
      enter();
    }
  }
  __device__ int pos() const { return pos_; }
  __device__ int end() const { return end_; }              // of the piece
  __device__ int valid() const { return cached_ - pos_; }  // rows of the cache from here on
  __device__ const std::byte* block() const { return blocks_[pos_ / kLatentBlock] + plan_.shift; }

 private:
  __device__ void enter() {
    for (; range_.first < range_.last; ++range_.first) {
      const Piece piece = plan_.pieces[range_.first];
      const RowGroup& g = plan_.groups[piece.group];
      blocks_ = plan_.blocks + g.first_block;
      pos_ = piece.first_chunk * g.chunk + first_;
      end_ = g.end(piece.first_chunk + piece.chunks - 1);
      cached_ = g.cached;
      if (pos_ < end_) return;
    }
  }
  const DevicePlan& plan_;
  PieceRange range_;
  int first_, step_, pos_ = 0, end_ = 0, cached_ = 0;
  const std::byte* const* blocks_ = nullptr;
};

// BF16: the tiles of a lane, by one thread.
template <int kN>
__device__ inline void fetch_lane(const CUtensorMap* map, const std::byte* map_base,
                                  const DevicePlan& plan, PieceRange range, std::uint32_t tile,
                                  std::uint32_t full, std::uint32_t empty, int lane) {
  using F = FewHeads<false, kN>;
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

// FP8: copies rows of both lanes' tiles and expands them, by four warps.
template <int kN>
__device__ inline void fetch_codes(const DevicePlan& plan, PieceRange range, std::uint32_t base,
                                   std::uint32_t full, std::uint32_t empty, int helper) {
  using F = FewHeads<true, kN>;
  const std::uint32_t raw_full = empty + 32;
  TokenWalk ahead(plan, range, 0, F::kRawTokens);
  const auto ask = [&](int stage) {
    if (helper != 0 || !ahead.more()) return;
    const int bytes = min(F::kRawTokens, ahead.valid()) * kFp8RowBytes;
    ptx::barrier_arrive_expect(raw_full + 8 * stage, bytes);
    copy_bytes(base + F::kRawAt + stage * F::kRawBytes,
               ahead.block() + ahead.pos() % kLatentBlock * kFp8RowBytes, bytes,
               raw_full + 8 * stage);
    ahead.next();
  };
  for (int s = 0; s < F::kRawStages; ++s) ask(s);
  int stage = 0;
  std::uint32_t raw_parity = 0, parity = 3;  // of both lanes
  for (TokenWalk walk(plan, range, 0, F::kTokens); walk.more(); walk.next()) {
    const int lane = walk.pos() / F::kTokens % 2;
    const std::uint32_t tile = base + lane * F::kTileBytes;
    for (int part = 0; part < 2; ++part) {
      const int first = part * F::kRawTokens, valid = walk.valid() - first;
      // Nobody asked for the second half of a tile that nobody sees.
      const bool there = walk.pos() + first < walk.end();
      if (there) wait(raw_full + 8 * stage, raw_parity);
      if (part == 0) {
        wait(empty + 16 * lane, parity >> lane & 1);
        wait(empty + 16 * lane + 8, parity >> lane & 1);
      }
      expand_rows<F::kTokens>(base + F::kRawAt + stage * F::kRawBytes, tile, first,
                              there ? valid : 0, helper);
      if (part == 1) {
        fence_async();
        ptx::barrier_arrive(full + 16 * lane);
        ptx::barrier_arrive(full + 16 * lane + 8);
      } else {
        fence_async();
      }
      if (!there) continue;
      sync_threads(kOfHelpers, F::kHelpers);  // the codes have been read
      ask(stage);
      if (++stage == F::kRawStages) {
        stage = 0;
        raw_parity ^= 1;
      }
    }
    parity ^= 1u << lane;
  }
}

template <bool kFp8, int kN>
__global__ void __launch_bounds__(FewHeads<kFp8, kN>::kThreads, 1)
    attend_few_heads(const __grid_constant__ CUtensorMap map, const std::byte* map_base,
                     DevicePlan plan, float* partial_out, float2* partial_rows) {
  using F = FewHeads<kFp8, kN>;
  extern __shared__ std::byte shared_memory[];
  wait_for_those_before();
  allow_next_kernel();  // which reads the plan at once: not sooner
  const PieceRange range = pieces_of_block(plan);
  if (range.first == range.last) return;
  const std::uint32_t base = (ptx::shared_address(shared_memory) + 1023) / 1024 * 1024;
  const std::uint32_t full = base + F::kBarriersAt, empty = full + 32;  // [lane][half]
  const int thread = static_cast<int>(threadIdx.x), lane_of_warp = thread % 32;
  if (thread == 0) {
    for (int i = 0; i < 4; ++i) {
      ptx::barrier_init(full + 8 * i, kFp8 ? 128 : 1);
      ptx::barrier_init(empty + 8 * i, 4);
    }
    for (int i = 0; i < F::kRawStages; ++i) ptx::barrier_init(empty + 32 + 8 * i, 1);
    fence_barrier_init();
  }
  __syncthreads();
  if (thread >= F::kWorkers) {
    give_registers<F::kHelperRegisters>();
    const int helper = thread - F::kWorkers;
    if constexpr (kFp8) {
      fetch_codes<kN>(plan, range, base, full, empty, helper);
    } else if (helper % 32 == 0 && helper < 64) {
      const int lane = helper / 32;
      fetch_lane<kN>(&map, map_base, plan, range, base + lane * F::kTileBytes, full + 16 * lane,
                     empty + 16 * lane, lane);
    }
    return;
  }
  take_registers<F::kWorkerRegisters>();

  // A thread has tokens t and t + 8 of its warp's 16, or columns likewise; and rows
  // 8 n + 2 (lane_of_warp % 4) + j.
  constexpr int kMine = kN / 4;  // rows, k = 2 n + j
  const int lane = __shfl_sync(0xFFFFFFFFu, thread / 128, 0);
  const int warp = thread % 128 / 32;
  const int token = warp * 16 + lane_of_warp / 4, pair_row = lane_of_warp % 4 * 2;
  const std::uint32_t tile = base + lane * F::kTileBytes;
  const std::uint32_t weights = tile + 8 * F::kColumnBytes;
  const std::uint32_t query = base + F::kQueryAt;
  const std::uint32_t maxima = base + F::kRowsAt + lane * (2 * 4 * kN * 4);
  const std::uint32_t sums = maxima + 4 * kN * 4;
  const std::uint32_t my_full = full + 16 * lane, my_empty = empty + 16 * lane;
  const int name = kOfLane + lane;
  const auto my = [&](int k) { return k / 2 * 8 + pair_row + k % 2; };  // row

  float out[8][kN / 2];
  // The sum over chunks: of 16 rows in registers, of 32 in the partial.
  float folded[kN == 16 ? 8 : 1][kN / 2];
  float reference[kMine], partial_reference[kMine], partial_sum[kMine];
  int seen[kMine];
  int group = -1;
  std::uint32_t parity = 0;
  Piece piece{};
  for (int next_piece = range.first, chunk = 0; chunk < piece.chunks || next_piece < range.last;
       ++chunk) {
    if (chunk == piece.chunks) {
      piece = plan.pieces[next_piece++];
      chunk = 0;
#pragma unroll
      for (int k = 0; k < kMine; ++k) reference[k] = -INFINITY;
    }
    const RowGroup& g = plan.groups[piece.group];
    if (piece.group != group) {
      group = piece.group;
      sync_threads(kBothLanes, F::kWorkers);  // the last queries are of no more use
      for (int i = thread; i < kN * 72; i += F::kWorkers) {
        const int r = i / 72, at = i % 72, flat = g.first_row + r;
        uint4 x = {0, 0, 0, 0};
        if (r < g.rows) {
          const auto* from = reinterpret_cast<const float4*>(g.q + flat / g.heads * g.q_stride +
                                                             flat % g.heads * kQueryWidth + at * 8);
          const float4 low = from[0], high = from[1];
          x = {pack_bf16(low.x, low.y), pack_bf16(low.z, low.w), pack_bf16(high.x, high.y),
               pack_bf16(high.z, high.w)};
        }
        store_piece(query + piece_at<kN>(r, at / 8, at % 8), x);
      }
      fence_async();
      sync_threads(kBothLanes, F::kWorkers);
#pragma unroll
      for (int k = 0; k < kMine; ++k) seen[k] = my(k) < g.rows ? g.seen(my(k)) : 0;
    }
    const int begin = (piece.first_chunk + chunk) * g.chunk, end = g.end(piece.first_chunk + chunk);
    const int cached = g.cached, all_see = g.rows == kN ? g.seen(0) : 0;
    const float scale_log2 = g.scale_log2;
    float sum[kMine];
#pragma unroll
    for (int k = 0; k < kMine; ++k) sum[k] = 0;
#pragma unroll
    for (int c = 0; c < 8; ++c) {
#pragma unroll
      for (int i = 0; i < kN / 2; ++i) out[c][i] = 0;
    }
    for (int pos = begin + lane * F::kTokens; pos < end; pos += 2 * F::kTokens) {
      float s[kN / 2];
      wait(my_full, parity);
      if (!kFp8 && pos + F::kTokens > cached) {
        wait(my_full + 8, parity);
        clear_tokens<F::kTokens, 128>(tile, cached - pos, thread % 128);
        fence_async();
        sync_threads(name, 128);
      }
      begin_products();
#pragma unroll
      for (int c = 0; c < kColumnBlocks; ++c) {
        if (c == 4) {
          commit_products();
          wait(my_full + 8, parity);
          begin_products();
        }
        const std::uint64_t a = operand_along_rows(tile + c * F::kColumnBytes);
        const std::uint64_t b = operand_along_rows(query + c * F::kQueryColumn);
#pragma unroll
        for (int k = 0; k < 4; ++k) multiply_narrow<0, kN>(s, a + 2 * k, b + 2 * k, c + k > 0);
      }
      commit_products();
      wait_products<0>();

      if (pos + F::kTokens > all_see) {
#pragma unroll
        for (int k = 0; k < kMine; ++k) {
          if (pos + token >= seen[k]) s[k / 2 * 4 + k % 2] = -INFINITY;
          if (pos + token + 8 >= seen[k]) s[k / 2 * 4 + k % 2 + 2] = -INFINITY;
        }
      }
      bool past = false;
#pragma unroll
      for (int k = 0; k < kMine; ++k) {
        const float most = fmaxf(s[k / 2 * 4 + k % 2], s[k / 2 * 4 + k % 2 + 2]);
        past |= __fmul_rn(most, scale_log2) > reference[k] + kReferenceSlack;
      }
      if (any_of_threads(name, 128, past)) {
#pragma unroll
        for (int k = 0; k < kMine; ++k) {
          float most = fmaxf(s[k / 2 * 4 + k % 2], s[k / 2 * 4 + k % 2 + 2]);
#pragma unroll
          for (int i = 4; i < 32; i *= 2) {
            most = fmaxf(most, __shfl_xor_sync(0xFFFFFFFFu, most, i));
          }
          if (lane_of_warp < 4) store_float(maxima + 4 * (warp * kN + my(k)), most);
        }
        sync_threads(name, 128);
#pragma unroll
        for (int k = 0; k < kMine; ++k) {
          float most = -INFINITY;
#pragma unroll
          for (int w = 0; w < 4; ++w) {
            most = fmaxf(most, load_float(maxima + 4 * (w * kN + my(k))));
          }
          const float next = next_reference(reference[k], __fmul_rn(most, scale_log2));
          const float by = between(reference[k], next);
          reference[k] = next;
          sum[k] *= by;
#pragma unroll
          for (int c = 0; c < 8; ++c) {
            out[c][k / 2 * 4 + k % 2] *= by;
            out[c][k / 2 * 4 + k % 2 + 2] *= by;
          }
        }
      }
      std::uint32_t pairs[kN / 4];  // [n][token, token + 8]
#pragma unroll
      for (int n = 0; n < kN / 8; ++n) {
        const float zero_at[2] = {reference[2 * n] == -INFINITY ? 0 : reference[2 * n],
                                  reference[2 * n + 1] == -INFINITY ? 0 : reference[2 * n + 1]};
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const float* x = s + 4 * n + 2 * i;
          const std::uint32_t pair = pack_bf16(exp2_of(__fmaf_rn(x[0], scale_log2, -zero_at[0])),
                                               exp2_of(__fmaf_rn(x[1], scale_log2, -zero_at[1])));
          pairs[2 * n + i] = pair;
          sum[2 * n] += __uint_as_float(pair << 16);
          sum[2 * n + 1] += __uint_as_float(pair & 0xFFFF0000u);
        }
      }
#pragma unroll
      for (int n = 0; n < kN / 8;
           n += 2) {  // 8 rows and tokens, the same rows and 8 later ones, ...
        const int row = (n + lane_of_warp / 16) * 8 + lane_of_warp % 8;
        store_transposed(weights + piece_at<kN>(row, 0, 2 * warp + lane_of_warp / 8 % 2),
                         pairs[2 * n], pairs[2 * n + 1], pairs[2 * n + 2], pairs[2 * n + 3]);
      }
      fence_async();
      sync_threads(name, 128);

      begin_products();
#pragma unroll
      for (int c = 0; c < 8; ++c) {
        const std::uint64_t a = operand_down_rows(tile + c * F::kColumnBytes, F::kColumnBytes);
        const std::uint64_t b = operand_along_rows(weights);
#pragma unroll
        for (int k = 0; k < 4; ++k) multiply_narrow<1, kN>(out[c], a + 128 * k, b + 2 * k, 1);
        if (c == 3) commit_products();
      }
      commit_products();
      wait_products<1>();
      if (lane_of_warp == 0) ptx::barrier_arrive(my_empty);
      wait_products<0>();
      if (lane_of_warp == 0) ptx::barrier_arrive(my_empty + 8);
      parity ^= 1;
    }

    // The chunk's sums of weights, over the lane's warps.
#pragma unroll
    for (int k = 0; k < kMine; ++k) {
#pragma unroll
      for (int i = 4; i < 32; i *= 2) sum[k] += __shfl_xor_sync(0xFFFFFFFFu, sum[k], i);
      if (lane_of_warp < 4) store_float(sums + 4 * (warp * kN + my(k)), sum[k]);
    }
    sync_threads(name, 128);
    const bool first = chunk == 0, last = chunk + 1 == piece.chunks;
    const std::int64_t partial = (static_cast<std::int64_t>(piece.partial) * 2 + lane) * kN;
    float carry[kMine];
    bool carried = false;
#pragma unroll
    for (int k = 0; k < kMine; ++k) {
      float total = load_float(sums + 4 * my(k));
#pragma unroll
      for (int w = 1; w < 4; ++w) total += load_float(sums + 4 * (w * kN + my(k)));
      carry[k] = first ? 0 : between(partial_reference[k], reference[k]);
      partial_reference[k] = reference[k];
      partial_sum[k] = first ? total : __fmaf_rn(partial_sum[k], carry[k], total);
      carried |= carry[k] != 1;
      if (last && my(k) < g.rows && warp == 0 && lane_of_warp < 4) {
        partial_rows[partial + my(k)] = {reference[k], partial_sum[k]};
      }
    }
    sync_threads(name, 128);  // sums have been read
    carried = __any_sync(0xFFFFFFFFu, carried);
#pragma unroll
    for (int c = 0; c < 8; ++c) {
#pragma unroll
      for (int i = 0; i < kN / 2; ++i) {
        const int k = i / 4 * 2 + i % 2;
        float* at = partial_out + (partial + my(k)) * kLatentWidth + 64 * c + token + i / 2 % 2 * 8;
        float x = out[c][i];
        if constexpr (kN == 16) {
          x = folded[c][i] = first ? x : __fmaf_rn(folded[c][i], carry[k], x);
          if (last && my(k) < g.rows) *at = x;
        } else if (my(k) < g.rows) {
          deposit(first ? Deposit::kStore : Deposit::kAdd, x, at, carry[k], carried);
        }
      }
    }
  }
}

}  // namespace cachalot::cuda
