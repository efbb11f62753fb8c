// The gradient of causal attention over blocks, for every level: see attention_kernels.h.
//
// A task is (span, head). Keys are the rows and queries the lanes of every block, so that the
// probabilities, recomputed from lse, come out in the layouts the next products read and nothing is
// transposed inside the loops:
//   S = K Q^T, dP = V dout^T;  dV += P dout, dK += dS Q;  dQ^T += K^T dS (in float, by key blocks).
// dk_rope of a head goes to a buffer of its own and is summed in head order at the end.
// Paper: FlashAttention-2 (arXiv 2307.08691), algorithm 2, with blocks transposed.
#include <algorithm>
#include <cmath>

#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/attention_scratch.h"

namespace cachalot::cpu {

namespace {

constexpr int kQueryBlock = 64;
constexpr int kStrip = 16;  // keys that share one first query: blocks on the diagonal are cut so
constexpr double kLog2E = 1.4426950408889634;

class BackwardTask {
 public:
  BackwardTask(const AttentionKernels& kernels, const AttentionBackward<float>& a,
               const AttentionSpan& span, int head, MatView<float> dk_rope)
      : k_(kernels),
        a_(a),
        span_(span),
        head_(head),
        dk_rope_(dk_rope),
        width_(a.dims.nope + a.dims.rope),
        words_(k_.words(width_)),
        value_words_(k_.words(a.dims.value)),
        row_words_(round_up(words_, kLaneBlock)),
        value_row_words_(round_up(value_words_, kLaneBlock)),
        padded_(round_up(width_, kLaneBlock)),
        value_(round_up(a.dims.value, kLaneBlock)),
        queries_(round_up(span.q_rows, kQueryBlock)),
        memory_([this](Scratch& s) {
          s.take(q_panel_, row_words_, queries_);
          s.take(dout_panel_, value_row_words_, queries_);
          s.take(q_words_, queries_, padded_);
          s.take(dout_words_, queries_, value_);
          s.take(dq_, padded_, queries_);
          s.take(lse2_, queries_);
          s.take(delta_, queries_);
          s.take(rows_, kKeyBlock, std::max(row_words_, value_row_words_));
          s.take(key_floats_, kKeyBlock, width_);
          s.take(key_rows_, kKeyBlock, row_words_);
          s.take(value_rows_, kKeyBlock, value_row_words_);
          s.take(key_words_, kKeyBlock, padded_);
          s.take(key_columns_, padded_, kKeyBlock);
          s.take(s_, kKeyBlock, kQueryBlock);
          s.take(dp_, kKeyBlock, kQueryBlock);
          s.take(p_rows_, kKeyBlock, kQueryBlock);
          s.take(ds_rows_, kKeyBlock, kQueryBlock);
          s.take(ds_panel_, kKeyBlock, kQueryBlock);
          s.take(dk_, kKeyBlock, padded_);
          s.take(dv_, kKeyBlock, value_);
        }) {}

  void run() {
    for (int q = 0; q < queries_; q += kQueryBlock) pack_queries(q);
    const int offset = span_.kv_rows - span_.q_rows;  // position of query 0
    for (int key = 0; key < span_.kv_rows; key += kKeyBlock) {
      const int keys = std::min(kKeyBlock, span_.kv_rows - key);
      pack_keys(key, keys);
      std::fill_n(dk_, kKeyBlock * padded_, 0.0f);
      std::fill_n(dv_, kKeyBlock * value_, 0.0f);
      const int first = std::max(0, key - offset) / kQueryBlock * kQueryBlock;
      for (int q = first; q < span_.q_rows; q += kQueryBlock) {
        block(key - offset - q, keys, q, /*first_keys=*/key == 0);
      }
      store_keys(key, keys);
    }
    store_queries();
  }

 private:
  const float* dout(int q) const { return a_.dout.row(span_.q_begin + q) + head_ * a_.dims.value; }

  void pack_queries(int q) {
    const int rows = std::min(kQueryBlock, span_.q_rows - q);
    const float* queries = a_.q.row(span_.q_begin + q) + head_ * width_;
    k_.pack_panel({queries, DType::kF32, a_.q.stride, rows, width_,
                   q_words_ + words_at(q) * padded_, padded_, padded_});
    k_.pack_panel({dout(q), DType::kF32, a_.dout.stride, rows, a_.dims.value,
                   dout_words_ + words_at(q) * value_, value_, value_});
    transposed(queries, a_.q.stride, rows, width_, row_words_, q_panel_ + q);
    transposed(dout(q), a_.dout.stride, rows, a_.dims.value, value_row_words_, dout_panel_ + q);
    for (int i = 0; i < kQueryBlock; ++i) {
      const bool real = i < rows;
      lse2_[q + i] =
          real ? static_cast<float>(double{a_.lse.at(span_.q_begin + q + i, head_)} * kLog2E) : 0;
      delta_[q + i] =
          real ? k_.dot(dout(q + i), a_.out.row(span_.q_begin + q + i) + head_ * a_.dims.value,
                        a_.dims.value)
               : 0;
    }
  }

  // Rows of floats to columns [words, kQueryBlock] of a panel with queries_ columns; rows that do
  // not exist are zero.
  void transposed(const float* src, std::ptrdiff_t stride, int rows, int cols, int row_words,
                  std::uint32_t* panel) {
    k_.pack_rows({src, DType::kF32, stride, rows, cols, rows_, row_words, row_words});
    std::fill_n(rows_ + rows * row_words, (kQueryBlock - rows) * row_words, 0u);
    k_.transpose({rows_, row_words, kQueryBlock, row_words, panel, queries_});
  }

  void pack_keys(int key, int keys) {
    const AttentionDims& d = a_.dims;
    const int first = span_.kv_begin + key;
    const float* kv = a_.kv.row(first) + head_ * (d.nope + d.value);
    for (int i = 0; i < keys; ++i) {
      float* to = key_floats_ + static_cast<std::ptrdiff_t>(i) * width_;
      std::copy_n(kv + i * a_.kv.stride, d.nope, to);
      if (d.rope > 0) std::copy_n(a_.k_rope.row(first + i), d.rope, to + d.nope);
    }
    k_.pack_rows(
        {key_floats_, DType::kF32, width_, keys, width_, key_rows_, row_words_, row_words_});
    k_.pack_rows({kv + d.nope, DType::kF32, a_.kv.stride, keys, d.value, value_rows_,
                  value_row_words_, value_row_words_});
    // Columns past the keys are never multiplied: their words are beyond the sums.
    k_.pack_panel({key_floats_, DType::kF32, width_, keys, width_, key_words_, padded_, padded_});
    k_.transpose({key_words_, padded_, round_up(k_.words(keys), kLaneBlock), padded_, key_columns_,
                  kKeyBlock});
  }

  // `diagonal`: query lane of the block that sits at key 0 of the block; lanes from there on see
  // it.
  void block(int diagonal, int keys, int q, bool first_keys) {
    const int rows = std::min(kQueryBlock, span_.q_rows - q);
    const int cols = round_up(rows, kLaneBlock);
    for (int k = 0; k < keys; k += kStrip) {
      const int from = std::max(0, diagonal + k) / kLaneBlock * kLaneBlock;
      if (from < cols)
        strip(k, std::min(kStrip, keys - k), q, from, cols, rows, diagonal + k - from);
    }
    // dQ^T: the lanes see keys up to their own position only.
    for (int lane = 0; lane < cols;) {
      int to = lane + kLaneBlock;
      const int seen = seen_keys(diagonal, keys, lane);
      while (to < cols && seen_keys(diagonal, keys, to) == seen) to += kLaneBlock;
      k_.product({.rows = width_,
                  .cols = to - lane,
                  .words = k_.words(seen),
                  .add = !first_keys,
                  .a = key_columns_,
                  .a_stride = kKeyBlock,
                  .b = ds_panel_ + lane,
                  .b_stride = kQueryBlock,
                  .c = dq_ + q + lane,
                  .c_stride = queries_});
      lane = to;
    }
  }
  // Keys of the block that some of the lanes [lane, lane + kLaneBlock) see, whole strips.
  static int seen_keys(int diagonal, int keys, int lane) {
    const int last = lane + kLaneBlock - 1 - diagonal;  // the last lane sees keys 0 .. last
    return last < 0 ? 0 : std::min(keys, round_up(last + 1, kStrip));
  }

  // Keys [k, k + keys) of the block against the queries [q + from, q + cols).
  void strip(int k, int keys, int q, int from, int cols, int rows, int first) {
    const int lanes = cols - from, at = k * kQueryBlock;
    k_.product({.rows = keys,
                .cols = lanes,
                .words = words_,
                .a = key_rows_ + k * row_words_,
                .a_stride = row_words_,
                .b = q_panel_ + q + from,
                .b_stride = queries_,
                .c = s_ + at,
                .c_stride = kQueryBlock});
    k_.product({.rows = keys,
                .cols = lanes,
                .words = value_words_,
                .a = value_rows_ + k * value_row_words_,
                .a_stride = value_row_words_,
                .b = dout_panel_ + q + from,
                .b_stride = queries_,
                .c = dp_ + at,
                .c_stride = kQueryBlock});
    k_.gradient({.rows = keys,
                 .cols = lanes,
                 .first = first,
                 .factor = static_cast<float>(double{a_.scale} * kLog2E),
                 .s = s_ + at,
                 .dp = dp_ + at,
                 .stride = kQueryBlock,
                 .lse2 = lse2_ + q + from,
                 .delta = delta_ + q + from,
                 .p_rows = p_rows_ + at,
                 .ds_rows = ds_rows_ + at,
                 .row_stride = kQueryBlock,
                 .ds_panel = ds_panel_ + k_.words(k) * kQueryBlock + from,
                 .panel_stride = kQueryBlock});
    const int words = k_.words(rows - from);
    k_.product({.rows = keys,
                .cols = value_,
                .words = words,
                .add = true,
                .a = p_rows_ + at,
                .a_stride = kQueryBlock,
                .b = dout_words_ + words_at(q + from) * value_,
                .b_stride = value_,
                .c = dv_ + k * value_,
                .c_stride = value_});
    k_.product({.rows = keys,
                .cols = padded_,
                .words = words,
                .add = true,
                .a = ds_rows_ + at,
                .a_stride = kQueryBlock,
                .b = q_words_ + words_at(q + from) * padded_,
                .b_stride = padded_,
                .c = dk_ + k * padded_,
                .c_stride = padded_});
  }
  std::ptrdiff_t words_at(int query) const { return k_.words(query); }

  void store_keys(int key, int keys) {
    const AttentionDims& d = a_.dims;
    for (int i = 0; i < keys; ++i) {
      float* dkv = a_.dkv.row(span_.kv_begin + key + i) + head_ * (d.nope + d.value);
      k_.scale(dk_ + i * padded_, a_.scale, dkv, d.nope);
      std::copy_n(dv_ + i * value_, d.value, dkv + d.nope);
      if (d.rope > 0) {
        k_.scale(dk_ + i * padded_ + d.nope, a_.scale,
                 dk_rope_.row(span_.kv_begin + key + i) + head_ * d.rope, d.rope);
      }
    }
  }

  void store_queries() {
    // Sixteen queries at a time, through memory that the keys no longer need.
    float* block = dk_;  // [kKeyBlock, padded_]
    for (int q = 0; q < span_.q_rows; q += kKeyBlock) {
      k_.transpose({reinterpret_cast<const std::uint32_t*>(dq_ + q), queries_, padded_, kKeyBlock,
                    reinterpret_cast<std::uint32_t*>(block), padded_});
      for (int i = 0; i < std::min(kKeyBlock, span_.q_rows - q); ++i) {
        k_.scale(block + i * padded_, a_.scale, a_.dq.row(span_.q_begin + q + i) + head_ * width_,
                 width_);
      }
    }
  }

  const AttentionKernels& k_;
  const AttentionBackward<float>& a_;
  const AttentionSpan span_;
  const int head_;
  const MatView<float> dk_rope_;  // [S, H * R]
  const int width_, words_, value_words_, row_words_, value_row_words_, padded_, value_, queries_;
  std::uint32_t *q_panel_, *dout_panel_, *q_words_, *dout_words_, *rows_;
  std::uint32_t *key_rows_, *value_rows_, *key_words_, *key_columns_;
  std::uint32_t *p_rows_, *ds_rows_, *ds_panel_;
  float *dq_, *lse2_, *delta_, *key_floats_, *s_, *dp_, *dk_, *dv_;
  Scratch memory_;
};

}  // namespace

void run_attention_backward(const AttentionIsa& isa, const Context& ctx,
                            const AttentionBackward<float>& a) {
  const int heads = a.dims.heads, rope = a.dims.rope;
  Mat<float> dk_rope;  // per head; not kept: as large as kv's rope part for all heads
  dk_rope.resize(a.k_rope.rows, heads * rope);
  const AttentionKernels& kernels = isa.of(a.precision);
  ctx.for_each(static_cast<std::int64_t>(a.spans.size()) * heads, /*grain=*/1, [&](std::int64_t i) {
    const AttentionSpan& span = a.spans[static_cast<std::size_t>(i / heads)];
    if (span.kv_rows > 0) {
      BackwardTask(kernels, a, span, static_cast<int>(i % heads), dk_rope.view()).run();
    }
  });
  for (const AttentionSpan& span : a.spans) {
    ctx.for_each(span.kv_rows, /*grain=*/64, [&](std::int64_t j) {
      const float* from = dk_rope.row(span.kv_begin + j);
      float* to = a.dk_rope.row(span.kv_begin + j);
      std::copy_n(from, rope, to);
      for (int h = 1; h < heads; ++h) {
        for (int c = 0; c < rope; ++c) to[c] += from[h * rope + c];
      }
    });
  }
}

}  // namespace cachalot::cpu
