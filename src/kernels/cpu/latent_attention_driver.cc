// Absorbed attention over the latent cache, for every level: see latent_kernels.h.
//
// Rows are (query, head) pairs: they all read the same cache rows, so a group of up to kGroup rows
// shares each block of 64 and a decoding step reads the cache once for all heads. Rows of the cache
// are multiplied where they lie; what is not in the product's format is decoded a block at a time,
// into memory that stays in the second cache.
//
// The context is cut into chunks of kContextChunk rows at absolute positions; each gives a partial
// softmax (max, sum, weighted rows), and a row's partials are merged in the order of the chunks.
// Of a group that is much of the work, chunks run in parallel and are merged at the end, so that
// all threads share one long sequence; the other groups are a task each, which merges as it goes.
// Both do the same arithmetic, bit for bit.
#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <vector>

#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/attention_scratch.h"

namespace cachalot::cpu {

namespace {

constexpr int kGroup = 128;
constexpr int kContextChunk = 256;                                  // a multiple of kLatentBlock
constexpr std::ptrdiff_t kPartialBytes = std::ptrdiff_t{64} << 20;  // of a wave of parallel chunks
constexpr double kLog2E = 1.4426950408889634;
static_assert(kKeyBlock == kLatentBlock);

// A problem, and its queries as elements: row (query * heads + head), query_bytes each.
struct Packed {
  const LatentAttention* problem = nullptr;
  const std::byte* q = nullptr;
};

// Rows [begin, begin + rows) of the (query, head) pairs of one problem.
struct Group {
  Packed packed;
  int begin = 0;
  int rows = 0;

  const LatentAttention& problem() const { return *packed.problem; }
  int seen(int row) const {
    const LatentAttention& a = problem();
    return a.cache.rows - a.q.rows + 1 + (begin + row) / a.heads;
  }
  int chunks() const { return (seen(rows - 1) + kContextChunk - 1) / kContextChunk; }
  std::int64_t work() const { return std::int64_t{rows} * seen(rows - 1); }
  int value() const { return round_up(problem().latent(), kLatentColumns); }
};

// The softmax of a row over a part of its context, not yet divided by its sum.
struct Partial {
  float* max;   // [rows]
  float* sum;   // [rows]
  float* rows;  // [rows, value], columns in the kernels' order
};

// into := into and part together; the order of the calls is the order of the context.
void merge(const LatentKernels& k, const Partial& part, const Partial& into, int row, int value,
           bool first) {
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
  k.merge(to, from, keep, take, value);
}

void store(const LatentKernels& k, const Group& g, const Partial& whole, int row) {
  const LatentAttention& a = g.problem();
  const int query = (g.begin + row) / a.heads, head = (g.begin + row) % a.heads;
  k.finish(whole.rows + static_cast<std::ptrdiff_t>(row) * g.value(), 1.0f / whole.sum[row],
           a.out.row(query) + static_cast<std::ptrdiff_t>(head) * a.latent(), a.latent());
}

class ChunkTask {
 public:
  // `merged`: also room for the merged rows of the group.
  ChunkTask(const AttentionKernels& kernels, const Group& group, bool merged)
      : k_(kernels),
        g_(group),
        a_(group.problem()),
        in_place_(k_.latent.in_place(a_.cache.layout.format)),
        q_bytes_(k_.latent.query_bytes(a_.width())),
        value_(group.value()),
        memory_([this, merged](Scratch& s) {
          if (!in_place_) s.take(block_, kLatentBlock, q_bytes_);
          s.take(scores_, g_.rows, kKeyBlock);
          s.take(p_, g_.rows, kKeyBlock);
          s.take(lanes_, g_.rows, kLaneBlock);
          s.take(alpha_, round_up(g_.rows, kLaneBlock));
          s.take(live_, g_.rows);
          take(s, part_);
          if (merged) take(s, whole_);
        }) {}

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
    for (int key = begin; key < end; key += kLatentBlock) {
      int row = first;
      while (row < g_.rows && g_.seen(row) <= key) ++row;
      visit(key, std::min(kLatentBlock, end - key), row, g_.rows - row, key > begin, to);
    }
    for (int row = first; row < g_.rows; ++row) {
      float sum = 0;
      for (int i = 0; i < kLaneBlock; ++i) sum += lanes_[row * kLaneBlock + i];
      to.sum[row] = sum;
    }
  }

 private:
  struct Block {
    const std::byte* rows;
    std::ptrdiff_t stride;  // bytes
  };

  void take(Scratch& s, Partial& p) {
    s.take(p.max, g_.rows);
    s.take(p.sum, g_.rows);
    s.take(p.rows, g_.rows, value_);
  }

  Block block(int key, int keys) {
    const LatentLayout& layout = a_.cache.layout;
    const std::byte* rows = a_.cache.row(key);
    if (in_place_) return {rows, layout.row_bytes()};
    k_.latent.decode({layout, rows, keys, block_, q_bytes_});
    return {block_, q_bytes_};
  }

  // The half of the next block of the context that comes first, or second.
  LatentFetch next(int key, bool second) const {
    const int at = key + kLatentBlock;
    if (at >= a_.cache.rows) return {};
    const std::ptrdiff_t half = a_.cache.layout.block_bytes() / 2;
    return {a_.cache.row(at) + (second ? half : 0), half};
  }

  // Rows [row, row + rows) of the group against one block of the cache.
  void visit(int key, int keys, int row, int rows, bool add, const Partial& to) {
    for (int i = 0; i < rows; ++i) live_[i] = std::min(keys, g_.seen(row + i) - key);
    const Block b = block(key, keys);
    k_.latent.scores({.rows = rows,
                      .q = g_.packed.q + (g_.begin + row) * q_bytes_,
                      .q_stride = q_bytes_,
                      .keys = keys,
                      .k = b.rows,
                      .k_stride = b.stride,
                      .width = a_.width(),
                      .scores = scores_,
                      .stride = kKeyBlock,
                      .fetch = next(key, false)});
    k_.softmax({.rows = rows,
                .cols = round_up(keys, kLaneBlock),
                .live_of_row = live_,
                .factor = static_cast<float>(double{a_.scale} * kLog2E),
                .scores = scores_,
                .stride = kKeyBlock,
                .max = to.max + row,
                .alpha = alpha_,
                .sum = lanes_ + row * kLaneBlock,
                .p = p_,
                .p_stride = kKeyBlock});
    k_.latent.values({.rows = rows,
                      .p = p_,
                      .p_stride = kKeyBlock,
                      .keys = keys,
                      .v = b.rows,
                      .v_stride = b.stride,
                      .cols = a_.latent(),
                      .alpha = add ? alpha_ : nullptr,
                      .out = to.rows + static_cast<std::ptrdiff_t>(row) * value_,
                      .stride = value_,
                      .fetch = next(key, true)});
  }

  const AttentionKernels& k_;
  const Group g_;
  const LatentAttention& a_;
  const bool in_place_;
  const std::ptrdiff_t q_bytes_;
  const int value_;
  std::byte* block_ = nullptr;
  std::uint32_t* p_;
  float *scores_, *lanes_, *alpha_;
  int* live_;
  Partial part_{}, whole_{};
  Scratch memory_;
};

// Memory of a call, kept for the next one: the caller's thread has one of each kind.
struct Kept {
  std::unique_ptr<void, FreeDeleter> memory;
  std::size_t capacity = 0;
  std::byte* of(std::size_t bytes) {
    if (bytes > capacity) {
      memory.reset();
      capacity = 0;
      memory = aligned_bytes(bytes);
      capacity = bytes;
    }
    return static_cast<std::byte*>(memory.get());
  }
};

class Run {
 public:
  Run(const AttentionIsa& isa, const Context& ctx) : isa_(isa), ctx_(ctx) {}

  void run(std::span<const LatentAttention> problems) {
    pack(problems);
    std::vector<Group> groups, large;
    for (const Packed& p : packed_) {
      const int rows = p.problem->q.rows * p.problem->heads;
      for (int begin = 0; begin < rows; begin += kGroup) {
        groups.push_back({p, begin, std::min(kGroup, rows - begin)});
      }
    }
    std::int64_t all = 0;
    for (const Group& g : groups) all += g.work();
    const auto is_large = [&](const Group& g) {
      return ctx_.threads() > 1 && g.work() * 4 * ctx_.threads() > all;
    };
    std::copy_if(groups.begin(), groups.end(), std::back_inserter(large), is_large);
    std::erase_if(groups, is_large);
    run_waves(large);
    ctx_.for_each(static_cast<std::int64_t>(groups.size()), /*grain=*/1,
                  [&](std::int64_t i) { run_group(groups[static_cast<std::size_t>(i)]); });
  }

 private:
  struct Task {
    Group group;
    int chunk;
    Partial part;
  };

  const AttentionKernels& kernels(const LatentAttention& a) const { return isa_.of(a.precision); }
  const AttentionKernels& kernels(const Group& g) const { return kernels(g.problem()); }

  void pack(std::span<const LatentAttention> problems) {
    std::size_t bytes = 0;
    for (const LatentAttention& a : problems) bytes += packed_bytes(a);
    thread_local Kept memory;
    std::byte* next = memory.of(bytes);
    for (const LatentAttention& a : problems) {
      const LatentKernels& k = kernels(a).latent;
      const std::ptrdiff_t each = k.query_bytes(a.width());
      ctx_.for_each(std::int64_t{a.q.rows} * a.heads, /*grain=*/64, [&](std::int64_t row) {
        k.query(a.q.row(row / a.heads) + row % a.heads * a.width(), a.width(), next + row * each);
      });
      packed_.push_back({&a, next});
      next += packed_bytes(a);
    }
  }
  std::size_t packed_bytes(const LatentAttention& a) const {
    return static_cast<std::size_t>(kernels(a).latent.query_bytes(a.width())) *
           static_cast<std::size_t>(a.q.rows) * static_cast<std::size_t>(a.heads);
  }

  void run_group(const Group& g) const {
    const AttentionKernels& k = kernels(g);
    ChunkTask task(k, g, /*merged=*/true);
    for (int chunk = 0; chunk < g.chunks(); ++chunk) {
      task.run(chunk, task.part());
      for (int row = task.first_row(chunk); row < g.rows; ++row) {
        merge(k.latent, task.part(), task.whole(), row, g.value(), chunk == 0);
      }
    }
    for (int row = 0; row < g.rows; ++row) store(k.latent, g, task.whole(), row);
  }

  // Few groups: their chunks in parallel, in waves whose partial rows fit kPartialBytes.
  void run_waves(std::span<const Group> groups) const {
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
    if (!wave.empty()) run_wave(wave);
  }

  static std::ptrdiff_t floats(const Group& g) {
    return std::ptrdiff_t{g.chunks()} * round_up(g.rows * (g.value() + 2), 16);
  }

  void run_wave(std::span<const Group> wave) const {
    std::ptrdiff_t total = 0;
    for (const Group& g : wave) total += floats(g);
    thread_local Kept memory;
    auto* next =
        reinterpret_cast<float*>(memory.of(static_cast<std::size_t>(total) * sizeof(float)));
    std::vector<Task> tasks;
    std::vector<std::pair<std::size_t, int>> rows;  // (first task of the group, row)
    for (const Group& g : wave) {
      for (int row = 0; row < g.rows; ++row) rows.emplace_back(tasks.size(), row);
      for (int chunk = 0; chunk < g.chunks(); ++chunk) {
        const std::ptrdiff_t values = std::ptrdiff_t{g.rows} * g.value();
        tasks.push_back({g, chunk, {next + values, next + values + g.rows, next}});
        next += floats(g) / g.chunks();
      }
    }
    ctx_.for_each(static_cast<std::int64_t>(tasks.size()), /*grain=*/1, [&](std::int64_t i) {
      const Task& t = tasks[static_cast<std::size_t>(i)];
      ChunkTask(kernels(t.group), t.group, /*merged=*/false).run(t.chunk, t.part);
    });
    ctx_.for_each(static_cast<std::int64_t>(rows.size()), /*grain=*/8, [&](std::int64_t i) {
      const auto [first, row] = rows[static_cast<std::size_t>(i)];
      const Group& g = tasks[first].group;
      const LatentKernels& k = kernels(g).latent;
      const Partial& whole = tasks[first].part;
      for (int chunk = 1; chunk < g.chunks() && g.seen(row) > chunk * kContextChunk; ++chunk) {
        merge(k, tasks[first + static_cast<std::size_t>(chunk)].part, whole, row, g.value(), false);
      }
      store(k, g, whole, row);
    });
  }

  const AttentionIsa& isa_;
  const Context& ctx_;
  std::vector<Packed> packed_;
};

}  // namespace

void run_latent_attention(const AttentionIsa& isa, const Context& ctx,
                          std::span<const LatentAttention> problems) {
  Run(isa, ctx).run(problems);
}

}  // namespace cachalot::cpu
