// How problems are cut: which blocks, how many tasks, which operands are packed once.
#include <algorithm>
#include <vector>

#include "kernels/cpu/caches.h"
#include "kernels/cpu/gemm_parts.h"

#ifdef CACHALOT_X86
namespace cachalot::cpu {

namespace {

// Steps of one block of k. A panel of A (14 rows x 1024 x 4 bytes) then streams from L2, as B does:
// 3 lines per step of 28 multiply-adds. Shorter blocks keep it in L1, but load and store the sums
// more often, and C's rows often lie a power of two apart: that costs more.
constexpr int kBlockSteps = 1024;
// Words of a block of B: half of an L2 cache, 512 KiB of 1 MiB.
std::int64_t block_words() {
  constexpr std::int64_t kMost = 1 << 17;
  return std::min<std::int64_t>(kMost, static_cast<std::int64_t>(caches().l2 / 8));
}
// Its columns: the more, the fewer times A is packed.
constexpr int kMinColumns = 128;
constexpr int kMaxColumns = 512;
// B is packed once for all tasks only where several tasks of few rows would each pack it: written
// to memory and read back it costs more than packing again for every 512 rows.
constexpr int kShareRows = 160;
constexpr int kOwnRows = 512;
// A is packed once where at least this many blocks of columns would each pack it, and where its
// panels are columns of memory (a weight's gradient): rows of K as long as a power of two share few
// sets of a cache, which then fetches each line again for each of the panels that have a part in
// it.
constexpr int kShareBlocks = 4;
// Rows of a task: enough to use a block of B while it is in L2, few enough that all threads have
// work; sums between blocks of K (rows x columns) stay in L2 too.
constexpr int kMinTaskRows = 112;
constexpr int kMaxTaskRows = 1024;

int blocks_of(int n, int length) { return (n + length - 1) / length; }

// Columns of a block of a part's B, a whole number of panels.
int block_columns(const GemmIsa& isa, const Part& part) {
  const int nr = panel_columns(isa);
  const std::int64_t steps = part.words(KBlocks(part, part.g->k()).length);
  const std::int64_t columns = block_words() / std::max<std::int64_t>(steps, 1);
  return static_cast<int>(std::clamp<std::int64_t>(columns, kMinColumns, kMaxColumns)) / nr * nr;
}

// The last tasks, cut into pieces: threads that end one after the other wait for no more than one.
void cut_last(int count, std::vector<Task>& tasks) {
  constexpr int kPieces = 4, kMinPanels = 4;
  if (tasks.size() < 2 * static_cast<std::size_t>(count)) return;
  const auto whole = static_cast<std::ptrdiff_t>(tasks.size()) - count;  // then those to be cut
  for (int i = 0; i < count; ++i) {
    Task task = tasks[static_cast<std::size_t>(whole + i)];
    const int end = task.panel + task.panels;
    const int piece = std::max(blocks_of(task.panels, kPieces), kMinPanels);
    for (; task.panel < end; task.panel += piece) {
      task.panels = std::min(piece, end - task.panel);
      tasks.push_back(task);
    }
  }
  tasks.erase(tasks.begin() + whole, tasks.begin() + whole + count);
}

}  // namespace

KBlocks::KBlocks(const Part& part, int k) {
  const int per_word = part.kind == Steps::kPair ? 2 : 1;
  const int unit = part.scaled != nullptr ? kScaleTileSize : 2;
  count = std::max(1, blocks_of(k, kBlockSteps * per_word));
  length = std::max(unit, blocks_of(blocks_of(k, count), unit) * unit);
}

std::int64_t Plan::most_tasks(const GemmIsa& isa, const Part& part) {
  const int n = part.g->n();
  if (part.direct) return blocks_of(n, isa.lanes);
  return std::int64_t{blocks_of(n, kMinColumns)} *
         blocks_of(part.panels, std::max(1, kMinTaskRows / isa.max_rows));
}

void Plan::make(std::span<Part> parts, std::int64_t& words, std::vector<Task>& tasks) const {
  // Cores of a shared machine do not run equally fast: aim at several tasks per thread.
  const std::int64_t wanted = threads > 1 ? 6 * threads : 1;
  std::int64_t wide = 0;
  for (const Part& part : parts) {
    wide += std::int64_t{blocks_of(part.rows, kMinTaskRows)} *
            blocks_of(part.g->n(), block_columns(isa, part));
  }
  const bool narrow = wide < wanted;
  const auto columns_of = [&](const Part& part) {
    return narrow ? kMinColumns : block_columns(isa, part);
  };
  std::int64_t column_tasks = 0;
  for (const Part& part : parts) column_tasks += blocks_of(part.g->n(), columns_of(part));
  const auto cuts = static_cast<int>((wanted + column_tasks - 1) / column_tasks);
  const int nr = panel_columns(isa);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    Part& part = parts[i];
    const int n = part.g->n();
    const int rows = std::clamp(blocks_of(part.rows, cuts), kMinTaskRows, kMaxTaskRows);
    int block = columns_of(part);
    if (part.direct) {
      part.task_panels = part.panels;
      // Rows of B are read a vector of them at a time, where they lie.
      const int unit = part.g->trans_b && part.b == nullptr ? isa.lanes : nr;
      block = std::max(unit, std::min(kMinColumns, n / std::max(1, cuts) / unit * unit));
    } else {
      part.task_panels = std::max(1, rows / isa.max_rows);
      const std::int64_t b_words = part.steps * padded_columns(isa, n);
      part.share_b = part.b == nullptr && part.rows >= kShareRows && rows < kOwnRows &&
                     b_words <= kPackedWords - words;
      if (part.share_b) words += b_words;
      part.share_a = (part.g->trans_a || n > (kShareBlocks - 1) * block) &&
                     part.rows * part.steps <= kPackedWords - words;
      if (part.share_a) words += part.rows * part.steps;
    }
    for (int col = 0; col < n; col += block) {
      for (int p = 0; p < part.panels; p += part.task_panels) {
        tasks.push_back({static_cast<int>(i), p, std::min(part.task_panels, part.panels - p), col,
                         std::min(block, n - col)});
      }
    }
  }
  if (threads > 1) cut_last(threads, tasks);
}

}  // namespace cachalot::cpu
#endif
