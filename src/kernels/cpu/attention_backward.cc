// The gradient of causal attention over blocks, for every level: see attention_kernels.h.
//
// A task is (span, a few heads), one head after the other. Keys are the rows and queries the lanes
// of every block, so that the probabilities, recomputed from lse, come out in the layouts the next
// products read and nothing is transposed inside the loops:
//   S = K Q^T, dP = V dout^T;  dV += P dout, dK += dS Q;  dQ^T += K^T dS (in float, by key blocks).
// dk_rope of a head goes to a buffer of its own and is summed in head order at the end.
// Paper: FlashAttention-2 (arXiv 2307.08691), algorithm 2, with blocks transposed.
#include <algorithm>
#include <cmath>

#include "kernels/cpu/attention_fetch.h"
#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/attention_scratch.h"
#include "kernels/cpu/threads_have.h"

namespace cachalot::cpu {

namespace {

constexpr int kQueryBlock = 64;
constexpr int kStrip = 16;     // keys that share one first query: blocks on the diagonal are cut so
constexpr int kRowsAhead = 8;  // of a result, whose lines are fetched before they are written
constexpr double kLog2E = 1.4426950408889634;

void prefetch_write(const float* row, int cols) {
  for (int c = 0; c < cols; c += 16) __builtin_prefetch(row + c, 1);
}

class BackwardTask {
 public:
  BackwardTask(const AttentionKernels& kernels, const AttentionBackward<float>& a,
               const AttentionSpan& span, int head, int heads, MatView<float> dk_rope)
      : k_(kernels),
        a_(a),
        q_in_(queries_of(a)),
        kv_in_(keys_and_values_of(a)),
        span_(span),
        head_(head),
        end_(head + heads),
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
    for (; head_ < end_; ++head_) one_head();
  }
  std::size_t bytes() const { return memory_.bytes(); }

 private:
  void one_head() {
    for (int q = 0; q < queries_; q += kQueryBlock) pack_queries(q);
    const int offset = span_.kv_rows - span_.q_rows;  // position of query 0
    for (int key = 0; key < span_.kv_rows; key += kKeyBlock) {
      const int keys = std::min(kKeyBlock, span_.kv_rows - key);
      pack_keys(key, keys);
      std::fill_n(dk_, kKeyBlock * padded_, 0.0f);
      std::fill_n(dv_, kKeyBlock * value_, 0.0f);
      const int first = std::max(0, key - offset) / kQueryBlock * kQueryBlock;
      fetch_next(key, (queries_ - first) / kQueryBlock);
      for (int q = first; q < span_.q_rows; q += kQueryBlock) {
        block(key - offset - q, keys, q, /*first_keys=*/key == 0);
      }
      store_keys(key, keys);
    }
    store_queries();
  }

  // While the queries pass over the keys at `key`: the next keys, and a share of what the next head
  // begins with.
  void fetch_next(int key, int steps) {
    const AttentionDims& d = a_.dims;
    const int next = key + kKeyBlock, width = d.nope + d.value;
    if (next < span_.kv_rows) {
      fetch_.add(element_of(kv_in_, span_.kv_begin + next, head_ * width), kv_in_.stride,
                 std::min(kKeyBlock, span_.kv_rows - next), width, element_size(kv_in_));
    }
    if (head_ + 1 < end_) {
      const std::int64_t blocks = (span_.kv_rows + kKeyBlock - 1) / kKeyBlock;
      const std::int64_t block = key / kKeyBlock, rows = span_.q_rows;
      const int begin = static_cast<int>(rows * block / blocks);
      const int count = static_cast<int>(rows * (block + 1) / blocks) - begin;
      const int row = span_.q_begin + begin, value = (head_ + 1) * d.value;
      fetch_.add(element_of(q_in_, row, (head_ + 1) * width_), q_in_.stride, count, width_,
                 element_size(q_in_));
      fetch_.add(a_.dout.row(row) + value, a_.dout.stride, count, d.value);
      fetch_.add(a_.out.row(row) + value, a_.out.stride, count, d.value);
    }
    fetch_.spread(std::max(1, steps));
  }

  const float* dout(int q) const { return a_.dout.row(span_.q_begin + q) + head_ * a_.dims.value; }

  void pack_queries(int q) {
    const int rows = std::min(kQueryBlock, span_.q_rows - q);
    const void* queries = element_of(q_in_, span_.q_begin + q, head_ * width_);
    k_.pack_panel({queries, q_in_.dtype, q_in_.stride, rows, width_,
                   q_words_ + words_at(q) * padded_, padded_, padded_});
    k_.pack_panel({dout(q), DType::kF32, a_.dout.stride, rows, a_.dims.value,
                   dout_words_ + words_at(q) * value_, value_, value_});
    transposed(queries, q_in_.dtype, q_in_.stride, rows, width_, row_words_,
               q_panel_ + q * row_words_);
    transposed(dout(q), DType::kF32, a_.dout.stride, rows, a_.dims.value, value_row_words_,
               dout_panel_ + q * value_row_words_);
    for (int i = 0; i < kQueryBlock; ++i) {
      lse2_[q + i] =
          i < rows ? static_cast<float>(double{a_.lse.at(span_.q_begin + q + i, head_)} * kLog2E)
                   : 0;
    }
    k_.dots({dout(q), a_.dout.stride, a_.out.row(span_.q_begin + q) + head_ * a_.dims.value,
             a_.out.stride, rows, a_.dims.value, delta_ + q});
    std::fill(delta_ + q + rows, delta_ + q + kQueryBlock, 0.0f);
  }

  // Rows to a panel [words, kQueryBlock]; rows that do not exist are zero.
  void transposed(const void* src, DType dtype, std::ptrdiff_t stride, int rows, int cols,
                  int row_words, std::uint32_t* panel) {
    k_.pack_rows({src, dtype, stride, rows, cols, rows_, row_words, row_words});
    std::fill_n(rows_ + rows * row_words, (kQueryBlock - rows) * row_words, 0u);
    k_.transpose({rows_, row_words, kQueryBlock, row_words, panel, kQueryBlock});
  }

  void pack_keys(int key, int keys) {
    const AttentionDims& d = a_.dims;
    const int first = span_.kv_begin + key;
    const int col = head_ * (d.nope + d.value);
    const void* kv = element_of(kv_in_, first, col);
    cachalot::cpu::pack_keys(k_, d, kv_in_, a_.k_rope, head_, first, keys, key_floats_, key_rows_,
                             row_words_);
    k_.pack_rows({element_of(kv_in_, first, col + d.nope), kv_in_.dtype, kv_in_.stride, keys,
                  d.value, value_rows_, value_row_words_, value_row_words_});
    // Columns past the keys are never multiplied: their words are beyond the sums.
    if (d.nope % kLaneBlock == 0 && d.rope % kLaneBlock == 0) {
      k_.pack_panel({kv, kv_in_.dtype, kv_in_.stride, keys, d.nope, key_words_, padded_, d.nope});
      if (d.rope > 0) {
        k_.pack_panel({a_.k_rope.row(first), DType::kF32, a_.k_rope.stride, keys, d.rope,
                       key_words_ + d.nope, padded_, d.rope});
      }
    } else {
      join_keys(d, kv_in_, a_.k_rope, head_, first, keys, key_floats_);
      k_.pack_panel({key_floats_, DType::kF32, width_, keys, width_, key_words_, padded_, padded_});
    }
    k_.transpose({key_words_, padded_, round_up(k_.words(keys), kLaneBlock), padded_, key_columns_,
                  kKeyBlock});
  }

  // `diagonal`: query lane of the block that sits at key 0 of the block; lanes from there on see
  // it.
  void block(int diagonal, int keys, int q, bool first_keys) {
    fetch_.step();
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
                  .c = dq_ + q * padded_ + lane,
                  .c_stride = kQueryBlock});
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
                .b = q_panel_ + q * row_words_ + from,
                .b_stride = kQueryBlock,
                .c = s_ + at,
                .c_stride = kQueryBlock});
    k_.product({.rows = keys,
                .cols = lanes,
                .words = value_words_,
                .a = value_rows_ + k * value_row_words_,
                .a_stride = value_row_words_,
                .b = dout_panel_ + q * value_row_words_ + from,
                .b_stride = kQueryBlock,
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
      prefetch_write(dkv + kRowsAhead * a_.dkv.stride, d.nope + d.value);
      k_.scale(dk_ + i * padded_, a_.scale, dkv, d.nope);
      std::copy_n(dv_ + i * value_, d.value, dkv + d.nope);
      if (d.rope > 0) {
        k_.scale(dk_ + i * padded_ + d.nope, a_.scale,
                 dk_rope_.row(span_.kv_begin + key + i) + head_ * d.rope, d.rope);
      }
    }
  }

  void store_queries() {
    // A block of queries at a time, through memory that the keys no longer need.
    static_assert(kQueryBlock <= kKeyBlock);
    float* block = dk_;  // [kKeyBlock, padded_]
    for (int q = 0; q < span_.q_rows; q += kQueryBlock) {
      k_.transpose({reinterpret_cast<const std::uint32_t*>(dq_ + q * padded_), kQueryBlock, padded_,
                    kQueryBlock, reinterpret_cast<std::uint32_t*>(block), padded_});
      for (int i = 0; i < std::min(kQueryBlock, span_.q_rows - q); ++i) {
        float* dq = a_.dq.row(span_.q_begin + q + i) + head_ * width_;
        prefetch_write(dq + kRowsAhead * a_.dq.stride, width_);
        k_.scale(block + i * padded_, a_.scale, dq, width_);
      }
    }
  }

  const AttentionKernels& k_;
  const AttentionBackward<float>& a_;
  const MatRef q_in_, kv_in_;
  const AttentionSpan span_;
  int head_;
  const int end_;
  RowFetcher fetch_;
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
  thread_local Mat<float> kept;  // a training step allocates nothing
  kept.resize(a.k_rope.rows, heads * rope);
  const MatView<float> dk_rope = kept.view();  // per head
  const AttentionKernels& kernels = isa.of(a.precision);
  const auto spans = static_cast<std::int64_t>(a.spans.size());
  int shared = 1;  // heads per task: one fetches for the next
  while (shared < 8 && 2 * shared <= heads &&
         spans * heads / (2 * shared) >= 8 * std::int64_t{ctx.threads()}) {
    shared *= 2;
  }
  const std::int64_t groups = (heads + shared - 1) / shared;
  if (spans * groups == 0) return;
  // A task's memory follows its queries alone.
  const AttentionSpan& largest = *std::max_element(
      a.spans.begin(), a.spans.end(),
      [](const AttentionSpan& x, const AttentionSpan& y) { return x.q_rows < y.q_rows; });
  thread_local ThreadsHave have;
  have.at_least(ctx, BackwardTask(kernels, a, largest, 0, shared, dk_rope).bytes(),
                [&] { BackwardTask(kernels, a, largest, 0, shared, dk_rope); });
  ctx.for_each(spans * groups, /*grain=*/1, [&](std::int64_t i) {
    const AttentionSpan& span = a.spans[static_cast<std::size_t>(i / groups)];
    const int head = static_cast<int>(i % groups) * shared;
    if (span.kv_rows > 0) {
      BackwardTask(kernels, a, span, head, std::min(shared, heads - head), dk_rope).run();
    }
  });
  for (const AttentionSpan& span : a.spans) {
    ctx.for_each(span.kv_rows, /*grain=*/64, [&](std::int64_t j) {
      kernels.head_sums(dk_rope.row(span.kv_begin + j), heads, rope,
                        a.dk_rope.row(span.kv_begin + j));
    });
  }
}

}  // namespace cachalot::cpu
