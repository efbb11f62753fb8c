// Absorbed attention over the latent cache, for every level: see attention_kernels.h.
//
// Rows are (query, head) pairs: they all read the same cache rows, so a group of up to kGroup rows
// shares one block of 64 cache rows, and a decoding step reads the cache once for all heads. A
// block is packed a slice at a time, so that what is packed never leaves the first cache. The
// context is cut into chunks of kContextChunk rows at absolute positions; each gives a partial
// softmax (max, sum, weighted rows), and a row's partials are merged in the order of the chunks.
// Where there are fewer groups than threads, chunks run in parallel and are merged at the end;
// otherwise each task merges its own as it goes. Both do the same arithmetic, bit for bit.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/attention_scratch.h"

namespace cachalot::cpu {

namespace {

constexpr int kGroup = 128;
constexpr int kContextChunk = 1024;  // a multiple of kKeyBlock
constexpr int kSlice = 64;           // words of keys, columns of values packed at once: 16 KiB each
constexpr std::ptrdiff_t kPartialBytes = std::ptrdiff_t{64} << 20;  // of a wave of parallel chunks
constexpr double kLog2E = 1.4426950408889634;

// Rows [begin, begin + rows) of the (query, head) pairs of one problem.
struct Group {
  const LatentAttention* problem = nullptr;
  int begin = 0;
  int rows = 0;

  int seen(int row) const {
    const LatentAttention& a = *problem;
    return a.cache.rows - a.q.rows + 1 + (begin + row) / a.heads;
  }
  int chunks() const { return (seen(rows - 1) + kContextChunk - 1) / kContextChunk; }
  int value() const { return round_up(problem->latent, kLaneBlock); }
};

// The softmax of a row over a part of its context, not yet divided by its sum.
struct Partial {
  float* max;   // [rows]
  float* sum;   // [rows]
  float* rows;  // [rows, value]
};

// into := into and part together; the order of the calls is the order of the context.
void merge(const Partial& part, const Partial& into, int row, int value, bool first) {
  float* to = into.rows + static_cast<std::ptrdiff_t>(row) * value;
  const float* from = part.rows + static_cast<std::ptrdiff_t>(row) * value;
  if (first) {
    into.max[row] = part.max[row];
    into.sum[row] = part.sum[row];
    std::copy_n(from, value, to);
    return;
  }
  const float max = std::max(into.max[row], part.max[row]);
  const float keep = std::exp2(into.max[row] - max), take = std::exp2(part.max[row] - max);
  into.max[row] = max;
  into.sum[row] = into.sum[row] * keep + part.sum[row] * take;
  for (int c = 0; c < value; ++c) to[c] = to[c] * keep + from[c] * take;
}

void store(const AttentionKernels& k, const Group& g, const Partial& whole, int row) {
  const LatentAttention& a = *g.problem;
  const int query = (g.begin + row) / a.heads, head = (g.begin + row) % a.heads;
  k.scale(whole.rows + static_cast<std::ptrdiff_t>(row) * g.value(), 1.0f / whole.sum[row],
          a.out.row(query) + static_cast<std::ptrdiff_t>(head) * a.latent, a.latent);
}

class ChunkTask {
 public:
  // `merged`: also room for the merged rows of the group.
  ChunkTask(const AttentionKernels& kernels, const Group& group, bool merged)
      : k_(kernels),
        g_(group),
        a_(*group.problem),
        width_(a_.latent + a_.rope),
        words_(k_.words(width_)),
        row_words_(round_up(words_, kLaneBlock)),
        value_(group.value()),
        memory_([this, merged](Scratch& s) {
          s.take(q_, g_.rows, row_words_);
          s.take(key_rows_, kKeyBlock, kSlice);
          s.take(keys_, kSlice, kKeyBlock);
          s.take(values_, kKeyBlock, kSlice);
          s.take(scores_, g_.rows, kKeyBlock);
          s.take(p_, g_.rows, kKeyBlock);
          s.take(lanes_, g_.rows, kLaneBlock);
          s.take(alpha_, round_up(g_.rows, kLaneBlock));
          s.take(live_, g_.rows);
          take(s, part_);
          if (merged) take(s, whole_);
        }) {
    for (int row = 0; row < g_.rows; ++row) {
      const int query = (g_.begin + row) / a_.heads, head = (g_.begin + row) % a_.heads;
      k_.pack_rows({a_.q.row(query) + static_cast<std::ptrdiff_t>(head) * width_, DType::kF32,
                    width_, 1, width_, q_ + static_cast<std::ptrdiff_t>(row) * row_words_,
                    row_words_, row_words_});
    }
  }

  const Partial& part() const { return part_; }
  const Partial& whole() const { return whole_; }
  // First row that sees this chunk: rows are in rising order of what they see.
  int first_row(int chunk) const {
    int row = 0;
    while (row < g_.rows && g_.seen(row) <= chunk * kContextChunk) ++row;
    return row;
  }

  void run(int chunk, const Partial& to) {
    const int begin = chunk * kContextChunk;
    const int end = std::min(begin + kContextChunk, g_.seen(g_.rows - 1));
    const int first = first_row(chunk);
    std::fill_n(to.max, g_.rows, -std::numeric_limits<float>::infinity());
    std::fill_n(lanes_, g_.rows * kLaneBlock, 0.0f);
    for (int key = begin; key < end; key += kKeyBlock) {
      const int keys = std::min(kKeyBlock, end - key);
      int row = first;
      while (row < g_.rows && g_.seen(row) <= key) ++row;
      visit(a_.cache.sub_rows(key, keys), key, row, g_.rows - row, key > begin, to);
    }
    for (int row = first; row < g_.rows; ++row) {
      float sum = 0;
      for (int i = 0; i < kLaneBlock; ++i) sum += lanes_[row * kLaneBlock + i];
      to.sum[row] = sum;
    }
  }

 private:
  struct Panel {
    const std::uint32_t* data;
    std::ptrdiff_t stride;
  };

  void take(Scratch& s, Partial& p) {
    s.take(p.max, g_.rows);
    s.take(p.sum, g_.rows);
    s.take(p.rows, g_.rows, value_);
  }

  static const void* column(const MatRef& m, int col) {
    return static_cast<const char*>(m.data) + static_cast<std::size_t>(col) * size_of(m.dtype);
  }

  // Rows [row, row + rows) of the group against one block of the cache.
  void visit(const MatRef& block, int key, int row, int rows, bool add, const Partial& to) {
    for (int i = 0; i < rows; ++i) live_[i] = std::min(kKeyBlock, g_.seen(row + i) - key);
    const int seen = live_[rows - 1], cols = round_up(seen, kLaneBlock);
    for (int word = 0; word < words_; word += kSlice) score_slice(block, row, rows, word, cols);
    k_.softmax({.rows = rows,
                .cols = cols,
                .live_of_row = live_,
                .factor = static_cast<float>(double{a_.scale} * kLog2E),
                .scores = scores_,
                .stride = kKeyBlock,
                .max = to.max + row,
                .alpha = alpha_,
                .sum = lanes_ + row * kLaneBlock,
                .p = p_,
                .p_stride = kKeyBlock});
    for (int col = 0; col < a_.latent; col += kSlice) {
      const Panel values = pack_values(block, col);
      k_.product({.rows = rows,
                  .cols = round_up(std::min(kSlice, a_.latent - col), kLaneBlock),
                  .words = k_.words(seen),
                  .add = add,
                  .row_scale = add ? alpha_ : nullptr,
                  .a = p_,
                  .a_stride = kKeyBlock,
                  .b = values.data,
                  .b_stride = values.stride,
                  .c = to.rows + static_cast<std::ptrdiff_t>(row) * value_ + col,
                  .c_stride = value_});
    }
  }

  // scores_ (+)= the words [word, word + kSlice) of queries and keys.
  void score_slice(const MatRef& block, int row, int rows, int word, int cols) {
    const int words = std::min(kSlice, words_ - word), width = round_up(words, kLaneBlock);
    const int first = word * k_.pair;  // column of the cache
    k_.pack_rows({column(block, first), block.dtype, block.stride, block.rows,
                  std::min(width_ - first, words * k_.pair), key_rows_, kSlice, width});
    k_.transpose({key_rows_, kSlice, round_up(block.rows, kLaneBlock), width, keys_, kKeyBlock});
    k_.product({.rows = rows,
                .cols = cols,
                .words = words,
                .add = word > 0,
                .a = q_ + static_cast<std::ptrdiff_t>(row) * row_words_ + word,
                .a_stride = row_words_,
                .b = keys_,
                .b_stride = kKeyBlock,
                .c = scores_,
                .c_stride = kKeyBlock});
  }

  // Columns [col, col + kSlice) of the values; float rows serve as they lie.
  Panel pack_values(const MatRef& block, int col) {
    if (block.dtype == DType::kF32 && k_.exact && a_.latent % kLaneBlock == 0) {
      return {static_cast<const std::uint32_t*>(column(block, col)), block.stride};
    }
    const int cols = std::min(kSlice, a_.latent - col);
    k_.pack_panel({column(block, col), block.dtype, block.stride, block.rows, cols, values_, kSlice,
                   round_up(cols, kLaneBlock)});
    return {values_, kSlice};
  }

  const AttentionKernels& k_;
  const Group g_;
  const LatentAttention& a_;
  const int width_, words_, row_words_, value_;
  std::uint32_t *q_, *key_rows_, *keys_, *values_, *p_;
  float *scores_, *lanes_, *alpha_;
  int* live_;
  Partial part_{}, whole_{};
  Scratch memory_;
};

void run_group(const AttentionKernels& kernels, const Group& g) {
  ChunkTask task(kernels, g, /*merged=*/true);
  for (int chunk = 0; chunk < g.chunks(); ++chunk) {
    task.run(chunk, task.part());
    for (int row = task.first_row(chunk); row < g.rows; ++row) {
      merge(task.part(), task.whole(), row, g.value(), chunk == 0);
    }
  }
  for (int row = 0; row < g.rows; ++row) store(kernels, g, task.whole(), row);
}

// Few groups: their chunks in parallel, in waves whose partial rows fit kPartialBytes.
class SplitRun {
 public:
  SplitRun(const AttentionIsa& isa, const Context& ctx) : isa_(isa), ctx_(ctx) {}

  void run(std::span<const Group> groups) {
    std::vector<Group> wave;
    std::ptrdiff_t bytes = 0;
    for (const Group& g : groups) {
      const std::ptrdiff_t more = floats(g) * static_cast<std::ptrdiff_t>(sizeof(float));
      if (!wave.empty() && bytes + more > kPartialBytes) {
        run_wave(wave);
        wave.clear();
        bytes = 0;
      }
      wave.push_back(g);
      bytes += more;
    }
    run_wave(wave);
  }

 private:
  struct Task {
    Group group;
    int chunk;
    Partial part;
  };

  static std::ptrdiff_t floats(const Group& g) {
    return std::ptrdiff_t{g.chunks()} * g.rows * (g.value() + 2);
  }

  void run_wave(std::span<const Group> wave) {
    std::ptrdiff_t total = 0;
    for (const Group& g : wave) total += floats(g);
    const auto memory = aligned_bytes(static_cast<std::size_t>(total) * sizeof(float));
    auto* next = static_cast<float*>(memory.get());
    std::vector<Task> tasks;
    std::vector<std::pair<std::size_t, int>> rows;  // (first task of the group, row)
    for (const Group& g : wave) {
      for (int row = 0; row < g.rows; ++row) rows.emplace_back(tasks.size(), row);
      for (int chunk = 0; chunk < g.chunks(); ++chunk) {
        const std::ptrdiff_t values = std::ptrdiff_t{g.rows} * g.value();
        tasks.push_back({g, chunk, {next + values, next + values + g.rows, next}});
        next += values + 2 * g.rows;
      }
    }
    ctx_.for_each(static_cast<std::int64_t>(tasks.size()), /*grain=*/1, [&](std::int64_t i) {
      const Task& t = tasks[static_cast<std::size_t>(i)];
      ChunkTask(kernels(t.group), t.group, /*merged=*/false).run(t.chunk, t.part);
    });
    ctx_.for_each(static_cast<std::int64_t>(rows.size()), /*grain=*/8, [&](std::int64_t i) {
      const auto [first, row] = rows[static_cast<std::size_t>(i)];
      const Group& g = tasks[first].group;
      const Partial& whole = tasks[first].part;
      for (int chunk = 1; chunk < g.chunks() && g.seen(row) > chunk * kContextChunk; ++chunk) {
        merge(tasks[first + static_cast<std::size_t>(chunk)].part, whole, row, g.value(), false);
      }
      store(kernels(g), g, whole, row);
    });
  }
  const AttentionKernels& kernels(const Group& g) const { return isa_.of(g.problem->precision); }

  const AttentionIsa& isa_;
  const Context& ctx_;
};

}  // namespace

void run_latent_attention(const AttentionIsa& isa, const Context& ctx,
                          std::span<const LatentAttention> problems) {
  std::vector<Group> groups;
  for (const LatentAttention& a : problems) {
    const int rows = a.q.rows * a.heads;
    for (int begin = 0; begin < rows; begin += kGroup) {
      groups.push_back({&a, begin, std::min(kGroup, rows - begin)});
    }
  }
  if (static_cast<int>(groups.size()) < 4 * ctx.threads() && ctx.threads() > 1) {
    SplitRun(isa, ctx).run(groups);
    return;
  }
  ctx.for_each(static_cast<std::int64_t>(groups.size()), /*grain=*/1, [&](std::int64_t i) {
    const Group& g = groups[static_cast<std::size_t>(i)];
    run_group(isa.of(g.problem->precision), g);
  });
}

}  // namespace cachalot::cpu
