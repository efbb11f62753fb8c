// Causal attention over blocks, for every level: see attention_kernels.h.
//
// A task is (span, head, chunk of queries). It walks the key blocks from position 0; each is
// packed once (keys transposed, values by pairs) and stays in the first cache while the chunk's
// queries pass over it a few at a time: scores, online softmax, weighted values. Rows never see
// each other, so neither the chunk nor the number of threads changes a bit.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/attention_scratch.h"

namespace cachalot::cpu {

namespace {

constexpr int kMaxChunk = 1024;  // rows whose queries and sums stay in the second cache
constexpr int kMinChunk = 128;   // below it, packing keys would cost as much as using them
constexpr int kRowBlock = 24;    // rows whose scores (x 64 floats = 6 KiB) stay in the first
constexpr double kLog2E = 1.4426950408889634;
constexpr double kLn2 = 0.6931471805599453;

struct Chunk {
  AttentionSpan span;
  int head = 0;
  int begin = 0;  // first query of the chunk, in the span
  int rows = 0;
};

class ForwardTask {
 public:
  ForwardTask(const AttentionKernels& kernels, const Attention<float>& a, const Chunk& chunk)
      : k_(kernels),
        a_(a),
        chunk_(chunk),
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
          s.take(total_, chunk_.rows, kLaneBlock);
          s.take(alpha_, round_up(kRowBlock, kLaneBlock));
        }) {}

  void run() {
    k_.pack_rows({a_.q.row(chunk_.span.q_begin + chunk_.begin) + chunk_.head * width_, DType::kF32,
                  a_.q.stride, chunk_.rows, width_, q_, padded_words_, padded_words_});
    std::fill_n(max_, chunk_.rows, -std::numeric_limits<float>::infinity());
    std::fill_n(total_, chunk_.rows * kLaneBlock, 0.0f);
    const int first_seen = position(0) + 1;
    const int last_seen = first_seen + chunk_.rows - 1;
    for (int key = 0; key < last_seen; key += kKeyBlock) {
      const int keys = std::min(kKeyBlock, last_seen - key);
      pack_keys(key, keys);
      for (int row = std::max(0, key + 1 - first_seen); row < chunk_.rows; row += kRowBlock) {
        visit(key, row, std::min(kRowBlock, chunk_.rows - row));
      }
    }
    for (int row = 0; row < chunk_.rows; ++row) finish(row);
  }

 private:
  // Of a row of the chunk, in the span; also the last key it sees.
  int position(int row) const {
    return chunk_.span.kv_rows - chunk_.span.q_rows + chunk_.begin + row;
  }

  void pack_keys(int key, int keys) {
    const AttentionDims& d = a_.dims;
    const int first = chunk_.span.kv_begin + key;
    const float* kv = a_.kv.row(first) + chunk_.head * (d.nope + d.value);
    cachalot::cpu::pack_keys(k_, d, a_.kv, a_.k_rope, chunk_.head, first, keys, key_floats_,
                             key_rows_, padded_words_);
    // Rows past `keys` hold what was there before: no query sees those columns.
    k_.transpose(
        {key_rows_, padded_words_, round_up(keys, kLaneBlock), padded_words_, keys_, kKeyBlock});
    k_.pack_panel({kv + d.nope, DType::kF32, a_.kv.stride, keys, d.value, values_, value_, value_});
  }

  void visit(int key, int row, int rows) {
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
    float total = 0;
    for (int i = 0; i < kLaneBlock; ++i) total += total_[row * kLaneBlock + i];
    const int at = chunk_.span.q_begin + chunk_.begin + row;
    k_.scale(sums_ + static_cast<std::ptrdiff_t>(row) * value_, 1.0f / total,
             a_.out.row(at) + chunk_.head * a_.dims.value, a_.dims.value);
    if (a_.lse.cols != 0) {
      const double lse = double{max_[row]} * kLn2 + std::log(double{total});
      a_.lse.at(at, chunk_.head) = static_cast<float>(lse);
    }
  }

  const AttentionKernels& k_;
  const Attention<float>& a_;
  const Chunk chunk_;
  const int width_, words_, padded_words_, value_;
  std::uint32_t *q_, *key_rows_, *keys_, *values_, *p_;
  float *key_floats_, *scores_, *sums_, *max_, *total_, *alpha_;
  Scratch memory_;
};

int count_chunks(const Attention<float>& a, int size) {
  int count = 0;
  for (const AttentionSpan& s : a.spans) count += (s.q_rows + size - 1) / size * a.dims.heads;
  return count;
}

}  // namespace

void pack_keys(const AttentionKernels& kernels, const AttentionDims& d, MatView<const float> kv,
               MatView<const float> k_rope, int head, int first, int keys, float* joined,
               std::uint32_t* rows, int row_words) {
  const float* nope = kv.row(first) + head * (d.nope + d.value);
  const int whole = kLaneBlock * kernels.pair, width = d.nope + d.rope;
  if (d.nope % whole == 0 && d.rope % whole == 0) {
    const int nope_words = d.nope / kernels.pair, rope_words = d.rope / kernels.pair;
    kernels.pack_rows({nope, DType::kF32, kv.stride, keys, d.nope, rows, row_words, nope_words});
    if (d.rope == 0) return;
    kernels.pack_rows({k_rope.row(first), DType::kF32, k_rope.stride, keys, d.rope,
                       rows + nope_words, row_words, rope_words});
    return;
  }
  for (int i = 0; i < keys; ++i) {
    float* to = joined + static_cast<std::ptrdiff_t>(i) * width;
    std::copy_n(nope + i * kv.stride, d.nope, to);
    if (d.rope > 0) std::copy_n(k_rope.row(first + i), d.rope, to + d.nope);
  }
  kernels.pack_rows({joined, DType::kF32, width, keys, width, rows, row_words, row_words});
}

void run_attention(const AttentionIsa& isa, const Context& ctx, const Attention<float>& a) {
  // Large chunks pack keys less often; small ones keep all threads busy.
  int size = kMaxChunk;
  while (size > kMinChunk && count_chunks(a, size) < 4 * ctx.threads()) size /= 2;
  std::vector<Chunk> chunks;
  for (const AttentionSpan& span : a.spans) {
    // The last queries of a span see the most keys: the longest tasks start first.
    for (int begin = (span.q_rows - 1) / size * size; begin >= 0; begin -= size) {
      for (int head = 0; head < a.dims.heads; ++head) {
        chunks.push_back({span, head, begin, std::min(size, span.q_rows - begin)});
      }
    }
  }
  const AttentionKernels& kernels = isa.of(a.precision);
  ctx.for_each(static_cast<std::int64_t>(chunks.size()), /*grain=*/1, [&](std::int64_t i) {
    const Chunk& chunk = chunks[static_cast<std::size_t>(i)];
    if (chunk.rows > 0) ForwardTask(kernels, a, chunk).run();
  });
}

}  // namespace cachalot::cpu
