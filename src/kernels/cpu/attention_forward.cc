// Causal attention over blocks, for every level: see attention_kernels.h.
//
// A task is (span, a few heads, chunk of queries), one head after the other. It walks the key
// blocks from position 0; each is packed once (keys transposed, values by pairs) and stays in the
// first cache while the chunk's queries pass over it a few at a time: scores, online softmax,
// weighted values. Rows never see each other, so neither the chunk nor the number of threads
// changes a bit.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cpu/attention_fetch.h"
#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/attention_scratch.h"
#include "kernels/cpu/threads_have.h"

namespace cachalot::cpu {

namespace {

constexpr int kMaxChunk = 1024;  // rows whose queries and sums stay in the second cache
constexpr int kMinChunk = 128;   // below it, packing keys would cost as much as using them
constexpr int kRowBlock = 24;    // rows whose scores (x 64 floats = 6 KiB) stay in the first
constexpr double kLog2E = 1.4426950408889634;
constexpr double kLn2 = 0.6931471805599453;

struct Chunk {
  AttentionSpan span;
  int head = 0;  // the first of
  int heads = 1;
  int begin = 0;  // first query of the chunk, in the span
  int rows = 0;
};

class ForwardTask {
 public:
  ForwardTask(const AttentionKernels& kernels, const Attention<float>& a, const Chunk& chunk)
      : k_(kernels),
        a_(a),
        q_in_(queries_of(a)),
        kv_in_(keys_and_values_of(a)),
        chunk_(chunk),
        head_(chunk.head),
        width_(a.dims.nope + a.dims.rope),
        words_(k_.words(width_)),
        padded_words_(round_up(words_, kLaneBlock)),
        value_(round_up(a.dims.value, kLaneBlock)),
        memory_([this](Scratch& s) {
          s.take(q_, chunk_.rows, padded_words_);
          s.take(key_floats_, kKeyBlock, width_);
          s.take(key_rows_, kKeyBlock, padded_words_);
          s.take(keys_, padded_words_, kKeyBlock);
          s.take(values_, kKeyBlock, value_);
          s.take(scores_, kRowBlock, kKeyBlock);
          s.take(p_, kRowBlock, kKeyBlock);
          s.take(sums_, chunk_.rows, value_);
          s.take(max_, chunk_.rows);
          s.take(total_, round_up(chunk_.rows, kLaneBlock), kLaneBlock);
          s.take(row_total_, round_up(chunk_.rows, kLaneBlock));
          s.take(alpha_, round_up(kRowBlock, kLaneBlock));
        }) {}

  void run() {
    for (; head_ < chunk_.head + chunk_.heads; ++head_) one_head();
  }
  std::size_t bytes() const { return memory_.bytes(); }

 private:
  void one_head() {
    k_.pack_rows({queries(head_), q_in_.dtype, q_in_.stride, chunk_.rows, width_, q_, padded_words_,
                  padded_words_});
    std::fill_n(max_, chunk_.rows, -std::numeric_limits<float>::infinity());
    std::fill_n(total_, round_up(chunk_.rows, kLaneBlock) * kLaneBlock, 0.0f);
    const int first_seen = position(0) + 1;
    const int last_seen = first_seen + chunk_.rows - 1;
    for (int key = 0; key < last_seen; key += kKeyBlock) {
      const int keys = std::min(kKeyBlock, last_seen - key);
      pack_keys(key, keys);
      fetch_next(key, last_seen);
      for (int row = std::max(0, key + 1 - first_seen); row < chunk_.rows; row += kRowBlock) {
        visit(key, row, std::min(kRowBlock, chunk_.rows - row));
      }
    }
    k_.lane_sums(total_, round_up(chunk_.rows, kLaneBlock), row_total_);
    for (int row = 0; row < chunk_.rows; ++row) finish(row);
  }

  const void* queries(int head, int row = 0) const {
    return element_of(q_in_, chunk_.span.q_begin + chunk_.begin + row, head * width_);
  }
  const void* keys_and_values(int key, int head, int col = 0) const {
    return element_of(kv_in_, chunk_.span.kv_begin + key,
                      head * (a_.dims.nope + a_.dims.value) + col);
  }
  // While the queries pass over the block at `key`: the next block, in the end that of the next
  // head, with its queries.
  void fetch_next(int key, int last_seen) {
    const int next = key + kKeyBlock, width = a_.dims.nope + a_.dims.value;
    if (next < last_seen) {
      fetch_.add(keys_and_values(next, head_), kv_in_.stride, std::min(kKeyBlock, last_seen - next),
                 width, element_size(kv_in_));
    } else if (head_ + 1 < chunk_.head + chunk_.heads) {
      fetch_.add(keys_and_values(0, head_ + 1), kv_in_.stride, std::min(kKeyBlock, last_seen),
                 width, element_size(kv_in_));
    }
    if (head_ + 1 < chunk_.head + chunk_.heads) {
      // A share of the next head's queries with every block.
      const int blocks = (last_seen + kKeyBlock - 1) / kKeyBlock, block = key / kKeyBlock;
      const int begin = static_cast<int>(std::int64_t{chunk_.rows} * block / blocks);
      const int end = static_cast<int>(std::int64_t{chunk_.rows} * (block + 1) / blocks);
      fetch_.add(queries(head_ + 1, begin), q_in_.stride, end - begin, width_, element_size(q_in_));
    }
    const int first_row = std::max(0, key - position(0));
    fetch_.spread((chunk_.rows - first_row + kRowBlock - 1) / kRowBlock);
  }

  // Of a row of the chunk, in the span; also the last key it sees.
  int position(int row) const {
    return chunk_.span.kv_rows - chunk_.span.q_rows + chunk_.begin + row;
  }

  void pack_keys(int key, int keys) {
    const AttentionDims& d = a_.dims;
    const int first = chunk_.span.kv_begin + key;
    cachalot::cpu::pack_keys(k_, d, kv_in_, a_.k_rope, head_, first, keys, key_floats_, key_rows_,
                             padded_words_);
    // Rows past `keys` hold what was there before: no query sees those columns.
    k_.transpose(
        {key_rows_, padded_words_, round_up(keys, kLaneBlock), padded_words_, keys_, kKeyBlock});
    k_.pack_panel({keys_and_values(key, head_, d.nope), kv_in_.dtype, kv_in_.stride, keys, d.value,
                   values_, value_, value_});
  }

  void visit(int key, int row, int rows) {
    fetch_.step();
    const int live = std::min(kKeyBlock, position(row) + 1 - key);
    const int seen = std::min(kKeyBlock, live + rows - 1);  // by the last row
    const int cols = round_up(seen, kLaneBlock);
    k_.product({.rows = rows,
                .cols = cols,
                .words = words_,
                .a = q_ + static_cast<std::ptrdiff_t>(row) * padded_words_,
                .a_stride = padded_words_,
                .b = keys_,
                .b_stride = kKeyBlock,
                .c = scores_,
                .c_stride = kKeyBlock});
    k_.softmax({.rows = rows,
                .cols = cols,
                .live = live,
                .factor = static_cast<float>(double{a_.scale} * kLog2E),
                .scores = scores_,
                .stride = kKeyBlock,
                .max = max_ + row,
                .alpha = alpha_,
                .sum = total_ + row * kLaneBlock,
                .p = p_,
                .p_stride = kKeyBlock});
    k_.product({.rows = rows,
                .cols = value_,
                .words = k_.words(seen),
                .add = key > 0,
                .row_scale = key > 0 ? alpha_ : nullptr,
                .a = p_,
                .a_stride = kKeyBlock,
                .b = values_,
                .b_stride = value_,
                .c = sums_ + static_cast<std::ptrdiff_t>(row) * value_,
                .c_stride = value_});
  }

  void finish(int row) {
    const float total = row_total_[row];
    const int at = chunk_.span.q_begin + chunk_.begin + row;
    float* out = a_.out.row(at) + head_ * a_.dims.value;
    for (int c = 0; c < a_.dims.value; c += kLaneBlock) {
      __builtin_prefetch(out + 8 * a_.out.stride + c, 1);
    }
    k_.scale(sums_ + static_cast<std::ptrdiff_t>(row) * value_, 1.0f / total, out, a_.dims.value);
    if (a_.lse.cols != 0) {
      const double lse = double{max_[row]} * kLn2 + std::log(double{total});
      a_.lse.at(at, head_) = static_cast<float>(lse);
    }
  }

  const AttentionKernels& k_;
  const Attention<float>& a_;
  const MatRef q_in_, kv_in_;
  const Chunk chunk_;
  int head_;
  RowFetcher fetch_;
  const int width_, words_, padded_words_, value_;
  std::uint32_t *q_, *key_rows_, *keys_, *values_, *p_;
  float *key_floats_, *scores_, *sums_, *max_, *total_, *row_total_, *alpha_;
  Scratch memory_;
};

int count_chunks(const Attention<float>& a, int size) {
  int count = 0;
  for (const AttentionSpan& s : a.spans) count += (s.q_rows + size - 1) / size * a.dims.heads;
  return count;
}

// Small chunks of one head and the next share a task, which then fetches one head's rows while it
// works on the other.
int heads_per_task(const Attention<float>& a, int size, int threads) {
  const int chunks = count_chunks(a, size);
  int heads = 1;
  while (heads < 8 && 2 * heads <= a.dims.heads && chunks / (2 * heads) >= 8 * threads) heads *= 2;
  return heads;
}

}  // namespace

void join_keys(const AttentionDims& d, const MatRef& kv, MatView<const float> k_rope, int head,
               int first, int keys, float* joined) {
  for (int i = 0; i < keys; ++i) {
    const void* nope = element_of(kv, first + i, head * (d.nope + d.value));
    float* to = joined + static_cast<std::ptrdiff_t>(i) * (d.nope + d.rope);
    if (kv.dtype == DType::kBF16) {
      const auto* half = static_cast<const Bf16*>(nope);
      std::transform(half, half + d.nope, to, [](Bf16 x) { return to_float(x); });
    } else {
      std::copy_n(static_cast<const float*>(nope), d.nope, to);
    }
    if (d.rope > 0) std::copy_n(k_rope.row(first + i), d.rope, to + d.nope);
  }
}

void pack_keys(const AttentionKernels& kernels, const AttentionDims& d, const MatRef& kv,
               MatView<const float> k_rope, int head, int first, int keys, float* joined,
               std::uint32_t* rows, int row_words) {
  const void* nope = element_of(kv, first, head * (d.nope + d.value));
  const int whole = kLaneBlock * kernels.pair, width = d.nope + d.rope;
  if (d.nope % whole == 0 && d.rope % whole == 0) {
    const int nope_words = d.nope / kernels.pair, rope_words = d.rope / kernels.pair;
    kernels.pack_rows({nope, kv.dtype, kv.stride, keys, d.nope, rows, row_words, nope_words});
    if (d.rope == 0) return;
    kernels.pack_rows({k_rope.row(first), DType::kF32, k_rope.stride, keys, d.rope,
                       rows + nope_words, row_words, rope_words});
    return;
  }
  join_keys(d, kv, k_rope, head, first, keys, joined);
  kernels.pack_rows({joined, DType::kF32, width, keys, width, rows, row_words, row_words});
}

void run_attention(const AttentionIsa& isa, const Context& ctx, const Attention<float>& a) {
  // Large chunks pack keys less often; small ones keep all threads busy.
  int size = kMaxChunk;
  while (size > kMinChunk && count_chunks(a, size) < 4 * ctx.threads()) size /= 2;
  const int heads = heads_per_task(a, size, ctx.threads());
  thread_local std::vector<Chunk> kept;  // a training step allocates nothing
  std::vector<Chunk>& chunks = kept;
  chunks.clear();
  for (const AttentionSpan& span : a.spans) {
    // The last queries of a span see the most keys: the longest tasks start first.
    for (int begin = (span.q_rows - 1) / size * size; begin >= 0; begin -= size) {
      for (int head = 0; head < a.dims.heads; head += heads) {
        chunks.push_back({span, head, std::min(heads, a.dims.heads - head), begin,
                          std::min(size, span.q_rows - begin)});
      }
    }
  }
  if (chunks.empty()) return;
  const AttentionKernels& kernels = isa.of(a.precision);
  // A task's memory follows its queries alone.
  const Chunk& largest = *std::max_element(
      chunks.begin(), chunks.end(), [](const Chunk& x, const Chunk& y) { return x.rows < y.rows; });
  thread_local ThreadsHave have;
  have.at_least(ctx, ForwardTask(kernels, a, largest).bytes(),
                [&] { ForwardTask(kernels, a, largest); });
  ctx.for_each(static_cast<std::int64_t>(chunks.size()), /*grain=*/1, [&](std::int64_t i) {
    const Chunk& chunk = chunks[static_cast<std::size_t>(i)];
    if (chunk.rows > 0) ForwardTask(kernels, a, chunk).run();
  });
}

}  // namespace cachalot::cpu
