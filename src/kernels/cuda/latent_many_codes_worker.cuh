// Latent attention for many heads over FP8 rows: a thread of the two groups that multiply.
//
// Rows are the narrow side of the products: scores are [tokens, rows], sums [columns, rows].
#pragma once

#include "kernels/cuda/latent_codes.cuh"

namespace cachalot::cuda {

struct ManyCodes {
  static constexpr bool kCodes = true;  // rows of FP8
  static constexpr int kTokens = 64, kRows = 64, kLanes = 1;
  static constexpr int kWorkers = 256, kThreads = kWorkers + 128, kWarps = kWorkers / 32;
  static constexpr int kTileBytes = kTokens * kFp8RowBytes, kTiles = 3;
  static constexpr int kQueryColumn = kRows * 128, kWeightBytes = kRows * 128;
  static constexpr int kQueryAt = 0;
  static constexpr int kWeightsAt = kColumnBlocks * kQueryColumn;  // of both tiles
  static constexpr int kTilesAt = kWeightsAt + 2 * kWeightBytes;
  // One float for each row: references; of the partial, in turn; sums of the partial; of 8 warps.
  static constexpr int kReferencesAt = kTilesAt + kTiles * kTileBytes, kRowBytes = kRows * 4;
  static constexpr int kPartialReferencesAt = kReferencesAt + kRowBytes;
  static constexpr int kPartialSumsAt = kPartialReferencesAt + 2 * kRowBytes;
  static constexpr int kOfWarpsAt = kPartialSumsAt + kRowBytes;
  static constexpr int kBarriersAt = kOfWarpsAt + kWarps * kRowBytes;
  static constexpr int kBytes = kBarriersAt + 8 * 2 * kTiles + 1024;
  static_assert(kBytes <= 232448);
};

struct ManyCodesWorker {
  using F = ManyCodes;
  static constexpr int kAll = 1, kOfGroup = 2;  // barriers

  std::uint32_t base;
  int group;                  // of the two
  int thread;                 // of the group
  int warp, eighth, quarter;  // of the group; of the warp's threads: / 4, % 4
  int token;                  // and 8 further: of its scores
  std::uint32_t turn = 0;     // of chunks

  // Columns 256 group + 64 warp + 8 eighth + 2 i and the next; rows 8 n + 2 quarter + j:
  // [4 n + 2 (one of two columns) + j].
  float out[4][32];
  float sum[2];  // of rows 8 eighth + 2 quarter + j, of the warp's tokens

  const RowGroup* rows = nullptr;
  float scale_log2 = 0;
  int all_see = 0, cached = 0;

  __device__ explicit ManyCodesWorker(std::uint32_t shared)
      : base(shared),
        group(__shfl_sync(0xFFFFFFFFu, threadIdx.x / 128, 0)),
        thread(static_cast<int>(threadIdx.x) % 128),
        warp(thread / 32),
        eighth(thread % 32 / 4),
        quarter(thread % 4),
        token(warp * 16 + spread_eight(eighth)) {}

  __device__ static void sync_all() { sync_threads(kAll, F::kWorkers); }
  __device__ std::uint32_t query() const { return base + F::kQueryAt; }
  __device__ std::uint32_t weights(int tile) const {
    return base + F::kWeightsAt + tile * F::kWeightBytes;
  }
  // Of rows 8 n + 2 quarter and the next.
  __device__ std::uint32_t pair_at(int list, int n) const {
    return base + list + (8 * n + 2 * quarter) * 4;
  }
  __device__ float2 pair_of(int list, int n) const {
    float2 x;
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];"
                 : "=f"(x.x), "=f"(x.y)
                 : "r"(pair_at(list, n))
                 : "memory");
    return x;
  }
  __device__ void store_pair(std::uint32_t at, float2 x) const {
    asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(at), "f"(x.x), "f"(x.y) : "memory");
  }
  __device__ int thread_of_all() const { return group * 128 + thread; }

  __device__ void enter(const RowGroup& g) {
    rows = &g;
    cached = g.cached;
    all_see = g.rows == F::kRows ? g.seen(0) : 0;
    scale_log2 = g.scale_log2;
    sync_all();  // the last queries are of no more use
    load_spread_queries<F::kRows, F::kWorkers>(g, query(), thread_of_all());
    fence_async();
  }
  __device__ void begin_piece() {
    sync_all();  // the last references are of no more use
    if (thread_of_all() < F::kRows) {
      store_float(base + F::kReferencesAt + 4 * thread, -INFINITY);
    }
    sync_all();
  }
  __device__ void begin_chunk() {
    sum[0] = sum[1] = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int e = 0; e < 32; ++e) out[i][e] = 0;
    }
  }

  __device__ void multiply_keys(const std::uint32_t (&a)[16], int column_block,
                                float (&s)[32]) const {
    const std::uint64_t b = operand_along_rows(query() + column_block * F::kQueryColumn);
    begin_products();
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      multiply_scores(s, a[4 * k], a[4 * k + 1], a[4 * k + 2], a[4 * k + 3], b + 2 * k,
                      column_block + k > 0);
    }
    commit_products();
  }
  __device__ void score(std::uint32_t tile, float (&s)[32]) const {
    const std::uint32_t row = tile + static_cast<std::uint32_t>(token * kFp8RowBytes);
    constexpr int kNextRow = 8 * kFp8RowBytes;
    std::uint32_t a[2][16];
#pragma unroll
    for (int c = 0; c < 8; ++c) {
      KeyCodes codes;
      codes.read(row, kNextRow, c, quarter);
      const float scales[2] = {load_float(row + kFp8ScalesAt + c / 2 * 4),
                               load_float(row + kNextRow + kFp8ScalesAt + c / 2 * 4)};
      const bool large =
          __any_sync(0xFFFFFFFFu, is_large_scale(scales[0]) || is_large_scale(scales[1]));
      const CodeScale scale[2] = {CodeScale(scales[0], large), CodeScale(scales[1], large)};
      if (c >= 2) {
        wait_products<1>();
        keep_registers(a[c % 2]);
      }
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

  __device__ void hide(int pos, float (&s)[32]) const {
    if (pos + F::kTokens <= all_see) return;
#pragma unroll
    for (int k = 0; k < 16; ++k) {
      const int r = k / 2 * 8 + quarter * 2 + k % 2;
      const int seen = r < rows->rows ? rows->seen(r) : 0;
      if (pos + token >= seen) s[k / 2 * 4 + k % 2] = -INFINITY;
      if (pos + token + 8 >= seen) s[k / 2 * 4 + k % 2 + 2] = -INFINITY;
    }
  }

  // The largest of rows 8 n + 2 quarter and the next, among this warp's tokens.
  __device__ static float2 largest(const float (&s)[32], int n) {
    float2 most = {fmaxf(s[4 * n], s[4 * n + 2]), fmaxf(s[4 * n + 1], s[4 * n + 3])};
#pragma unroll
    for (int i = 4; i < 32; i *= 2) {
      most.x = fmaxf(most.x, __shfl_xor_sync(0xFFFFFFFFu, most.x, i));
      most.y = fmaxf(most.y, __shfl_xor_sync(0xFFFFFFFFu, most.y, i));
    }
    return most;
  }
  __device__ bool is_past(const float (&s)[32]) const {
    bool past = false;
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      const float2 reference = pair_of(F::kReferencesAt, n);
      past |= __fmul_rn(fmaxf(s[4 * n], s[4 * n + 2]), scale_log2) > reference.x + kReferenceSlack;
      past |=
          __fmul_rn(fmaxf(s[4 * n + 1], s[4 * n + 3]), scale_log2) > reference.y + kReferenceSlack;
    }
    return past;
  }
  // Where scores of either tile are far past the references: new ones. All threads together;
  // `scored`: this group has scores.
  __device__ void raise_references(const float (&s)[32], bool scored) {
    if (!any_of_threads(kAll, F::kWorkers, scored && is_past(s))) return;
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      float2 most = {-INFINITY, -INFINITY};
      if (scored) most = largest(s, n);
      if (eighth == 0)
        store_pair(pair_at(F::kOfWarpsAt + (group * 4 + warp) * F::kRowBytes, n), most);
    }
    sync_all();
    float2 own = {1, 1};
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      float2 most = {-INFINITY, -INFINITY};
#pragma unroll
      for (int w = 0; w < F::kWarps; ++w) {
        const float2 of = pair_of(F::kOfWarpsAt + w * F::kRowBytes, n);
        most = {fmaxf(most.x, of.x), fmaxf(most.y, of.y)};
      }
      const float2 before = pair_of(F::kReferencesAt, n);
      const float2 by = {
          between(before.x, next_reference(before.x, __fmul_rn(most.x, scale_log2))),
          between(before.y, next_reference(before.y, __fmul_rn(most.y, scale_log2)))};
      if (n == eighth) own = by;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        out[i][4 * n] *= by.x;
        out[i][4 * n + 1] *= by.y;
        out[i][4 * n + 2] *= by.x;
        out[i][4 * n + 3] *= by.y;
      }
    }
    sum[0] *= own.x;
    sum[1] *= own.y;
    sync_all();  // the references before have been read
    if (thread_of_all() < F::kRows) {
      float most = -INFINITY;
#pragma unroll
      for (int w = 0; w < F::kWarps; ++w) {
        most = fmaxf(most, load_float(base + F::kOfWarpsAt + w * F::kRowBytes + 4 * thread));
      }
      const std::uint32_t at = base + F::kReferencesAt + 4 * thread;
      store_float(at, next_reference(load_float(at), __fmul_rn(most, scale_log2)));
    }
    sync_all();
  }

  // Of 2 kHalf numbers a thread keeps one half, and adds that of a thread 2 kHalf away to it.
  template <int kHalf>
  __device__ void give_half(float (&x)[16]) const {
    const bool upper = (eighth & (kHalf / 2)) != 0;
#pragma unroll
    for (int k = 0; k < kHalf; ++k) {
      const float given = upper ? x[k] : x[k + kHalf], kept = upper ? x[k + kHalf] : x[k];
      x[k] = kept + __shfl_xor_sync(0xFFFFFFFFu, given, 2 * kHalf);
    }
  }

  // Scores become weights, in shared memory: [rows, tokens], of each eight tokens in the order of
  // the scores' rows.
  __device__ void soften(const float (&s)[32]) {
    const int lane = thread % 32;
    float sums[16];
#pragma unroll
    for (int m = 0; m < 8; m += 2) {
      std::uint32_t pairs[4];  // [n][token, token + 8]
#pragma unroll
      for (int n = m; n < m + 2; ++n) {
        const float2 reference = pair_of(F::kReferencesAt, n);
        const float2 zero_at = {reference.x == -INFINITY ? 0 : reference.x,
                                reference.y == -INFINITY ? 0 : reference.y};
        sums[2 * n] = sums[2 * n + 1] = 0;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const float* x = s + 4 * n + 2 * i;
          const std::uint32_t pair = pack_bf16(exp2_of(__fmaf_rn(x[0], scale_log2, -zero_at.x)),
                                               exp2_of(__fmaf_rn(x[1], scale_log2, -zero_at.y)));
          pairs[2 * (n - m) + i] = pair;
          sums[2 * n] += __uint_as_float(pair << 16);
          sums[2 * n + 1] += __uint_as_float(pair & 0xFFFF0000u);
        }
      }
      const int row = (m + lane / 16) * 8 + lane % 8;
      store_transposed(weights(group) + piece_at<F::kRows>(row, 0, 2 * warp + lane / 8 % 2),
                       pairs[0], pairs[1], pairs[2], pairs[3]);
    }
    // Over the warp's eighths, of which each is left with the sums of its own two rows.
    give_half<8>(sums);
    give_half<4>(sums);
    give_half<2>(sums);
    sum[0] += sums[0];
    sum[1] += sums[1];
  }

  __device__ void add_values(std::uint32_t tile, std::uint32_t weights_of_tile) {
    const std::uint32_t row =
        tile + static_cast<std::uint32_t>(spread_eight(2 * quarter) * kFp8RowBytes);
    const std::uint32_t columns = row + group * 256 + warp * 64 + eighth * 8;
    std::uint32_t a[2][16];
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      uint2 codes[4];  // of tokens, 4, 8 and 12 further
#pragma unroll
      for (int t = 0; t < 4; ++t) {
        asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];"
                     : "=r"(codes[t].x), "=r"(codes[t].y)
                     : "r"(columns + (16 * step + 4 * t) * kFp8RowBytes)
                     : "memory");
      }
      const ValueScales scales(row + 16 * step * kFp8RowBytes, group * 2 + warp / 2);
      std::uint32_t(&of_step)[16] = a[step % 2];
      if (step >= 2) {
        wait_products<1>();
        keep_registers(of_step);
      }
      scales.expand(codes, of_step);
      const std::uint64_t b = operand_along_rows(weights_of_tile) + 2 * step;
      begin_products();
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        multiply_scores(out[i], of_step[4 * i], of_step[4 * i + 1], of_step[4 * i + 2],
                        of_step[4 * i + 3], b, 1);
      }
      commit_products();
    }
    wait_products<0>();
    keep_registers(a[0]);
    keep_registers(a[1]);
  }

  // The sums of weights of the chunk, by the first 64 threads; `first` and `last` of the piece.
  __device__ void add_sums(std::int64_t partial, bool first, bool last,
                           float2* partial_rows) const {
    if (thread_of_all() >= F::kRows) return;
    float total = 0;
#pragma unroll
    for (int w = 0; w < F::kWarps; ++w) {
      total += load_float(base + F::kOfWarpsAt + w * F::kRowBytes + 4 * thread);
    }
    const float reference = load_float(base + F::kReferencesAt + 4 * thread);
    const std::uint32_t before = base + F::kPartialReferencesAt + turn * F::kRowBytes + 4 * thread;
    const std::uint32_t sum_at = base + F::kPartialSumsAt + 4 * thread;
    if (!first) {
      total = __fmaf_rn(load_float(sum_at), between(load_float(before), reference), total);
    }
    store_float(sum_at, total);
    if (last) partial_rows[partial + thread] = {reference, total};
  }

  __device__ void end_chunk(const Piece& piece, bool first, bool last, float* partial_out,
                            float2* partial_rows) {
    const RowGroup& g = *rows;
    const Deposit how = deposit_of(g, first, last);
    const bool result = how == Deposit::kResult || how == Deposit::kLastResult;
    const std::int64_t partial = static_cast<std::int64_t>(piece.partial) * F::kRows;
    store_pair(pair_at(F::kOfWarpsAt + (group * 4 + warp) * F::kRowBytes, eighth),
               {sum[0], sum[1]});
    if (thread_of_all() < F::kRows) {  // for the next chunk
      store_float(base + F::kPartialReferencesAt + (turn ^ 1) * F::kRowBytes + 4 * thread,
                  load_float(base + F::kReferencesAt + 4 * thread));
    }
    sync_all();
    add_sums(partial, first, last && !result, partial_rows);
    if (result) sync_all();
    float4* at = reinterpret_cast<float4*>(partial_out + partial * kLatentWidth) +
                 group * (32 * 128) + thread;
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      float2 carry = {0, 0};
      if (!first) {
        const float2 before =
            pair_of(F::kPartialReferencesAt + static_cast<int>(turn) * F::kRowBytes, n);
        const float2 reference = pair_of(F::kReferencesAt, n);
        carry = {between(before.x, reference.x), between(before.y, reference.y)};
      }
      if (!result) {
        const bool carried = __any_sync(0xFFFFFFFFu, carry.x != 1 || carry.y != 1);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float* o = out[i] + 4 * n;
          deposit(how, {o[0], o[1], o[2], o[3]}, at + (4 * n + i) * 128,
                  {carry.x, carry.y, carry.x, carry.y}, carried);
        }
        continue;
      }
      const float2 total = pair_of(F::kPartialSumsAt, n);
      const float by[2] = {1 / total.x, 1 / total.y};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float* o = out[i] + 4 * n;
        if (how == Deposit::kLastResult) {
          const float4 before = __ldcg(at + (4 * n + i) * 128);
          o[0] = __fmaf_rn(before.x, carry.x, o[0]);
          o[1] = __fmaf_rn(before.y, carry.y, o[1]);
          o[2] = __fmaf_rn(before.z, carry.x, o[2]);
          o[3] = __fmaf_rn(before.w, carry.y, o[3]);
        }
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          const int r = 8 * n + 2 * quarter + j, flat = g.first_row + r;
          if (r >= g.rows) continue;
          float* to = g.out + flat / g.heads * g.out_stride + flat % g.heads * kLatentWidth +
                      group * 256 + warp * 64 + eighth * 8 + 2 * i;
          *reinterpret_cast<float2*>(to) = {__fmaf_rn(o[j], by[j], 0.0f),  // + 0: no -0
                                            __fmaf_rn(o[2 + j], by[j], 0.0f)};
        }
      }
    }
    turn ^= 1;
  }
};

}  // namespace cachalot::cuda
