// One task of a product: a block of B in L2, panel after panel of A times it.
#include <algorithm>

#include "kernels/cpu/gemm_parts.h"
#include "kernels/cpu/scratch.h"

#ifdef CACHALOT_X86
namespace cachalot::cpu {

namespace {

// Buffers of a thread, kept between tasks.
struct TaskScratch {
  HugeScratch a, b, sums;
};
TaskScratch& task_scratch() {
  thread_local TaskScratch kept;
  return kept;
}

static_assert(HugeScratch::kHugePage >= kTaskBytes);

// A block of B as a task walks over it.
struct Block {
  int k0 = 0, k1 = 0;
  bool first = true, last = false;
  std::ptrdiff_t sums_pitch = 0;
  const std::uint32_t* own = nullptr;  // where the task packed it; null: it lies in part.b
};

bool sums_beside_c(const Gemm& g) { return g.accumulate || g.c_bf16.rows > 0; }

void panel_times_block(const GemmIsa& isa, const Part& part, const Task& task, const Block& b,
                       int p, const std::uint32_t* a, float* sum, Touch& next_a, Touch& next_b) {
  const Gemm& g = *part.g;
  const int nr = panel_columns(isa);
  const std::int64_t steps = part.words(b.k1 - b.k0);
  for (int col = 0, j = 0; col < task.cols; col += nr, ++j) {
    const int width = panel_width(isa, task.cols, j);
    const int cols = std::min(nr, task.cols - col);
    TileJob tile;
    tile.rows = part.panel_rows(p);
    tile.vecs = width / isa.lanes;
    tile.load = !b.first;
    tile.steps = steps;
    tile.scaled_steps = steps_of(part.kind, kScaleTileSize);
    tile.a = a;
    tile.b = b.own == nullptr ? part.packed_b(task.col + col) + part.words(b.k0) * width
                              : b.own + steps * col;
    // A tile that reaches beyond C (only the last columns do) sums beside it, too.
    const bool in_c = !sums_beside_c(g) && cols == width;
    const int c_row = part.panel_row(p), c_col = task.col + col;
    tile.touch = next_a.rows > 0 ? &next_a : &next_b;
    tile.c = in_c ? g.c.row(c_row) + c_col : sums_beside_c(g) ? sum + col : sum;
    tile.c_stride = in_c ? g.c.stride : b.sums_pitch;
    (part.scaled != nullptr ? isa.scaled_tile : isa.tile)(tile);
    if (!b.last || in_c) continue;
    if (g.c_bf16.rows > 0) {
      isa.store_bf16(tile.c, b.sums_pitch, tile.rows, cols, g.c_bf16.row(c_row) + c_col,
                     g.c_bf16.stride);
    } else {
      isa.store(tile.c, b.sums_pitch, tile.rows, cols, g.accumulate, g.c.row(c_row) + c_col,
                g.c.stride);
    }
  }
}

// What the thread reads of B after this task: the first block of the next one.
Touch begin_of(const GemmIsa& isa, const Part* part, const Task* task) {
  if (task == nullptr || part->direct) return {};
  const int k = part->g->k();
  return region_of_b(isa, *part, task->col, task->cols, 0, std::min(k, KBlocks(*part, k).length));
}

}  // namespace

void reserve_task_memory() {
  TaskScratch& kept = task_scratch();
  for (HugeScratch* s : {&kept.a, &kept.b, &kept.sums}) s->get<std::byte>(kTaskBytes);
}

void multiply_task(const GemmIsa& isa, const Part& part, const Task& task, const Part* next_part,
                   const Task* next) {
  TaskScratch& kept = task_scratch();
  const auto words = [](HugeScratch& s, std::int64_t n) {
    return s.get<std::uint32_t>(static_cast<std::size_t>(n));
  };
  const int k = part.g->k();
  const int nr = panel_columns(isa);
  const KBlocks blocks(part, k);
  const std::ptrdiff_t pitch = (task.cols + nr - 1) / nr * nr;
  Block b;
  std::uint32_t* own_a = words(kept.a, part.words(blocks.length) * isa.max_rows);
  std::uint32_t* own_b =
      part.b != nullptr ? nullptr : words(kept.b, part.words(blocks.length) * pitch);
  b.own = own_b;
  // Sums between the blocks of K lie in C, unless an accumulating product still needs it or it is
  // bf16.
  // [row of the task, columns]
  const int end = task.panel + task.panels;
  const int first_row = part.panel_row(task.panel);
  const bool one_panel = blocks.count == 1;
  b.sums_pitch = sums_beside_c(*part.g) ? pitch : nr;
  auto* sums = kept.sums.get<float>(static_cast<std::size_t>(
      (one_panel ? isa.max_rows : part.panel_row(end) - first_row) * b.sums_pitch));
  Touch next_b;
  for (int k0 = 0; k0 < k || b.first; k0 += blocks.length, b.first = false) {
    b.k0 = k0;
    b.k1 = std::min(k, k0 + blocks.length);
    b.last = b.k1 >= k;
    const int k2 = std::min(k, b.k1 + blocks.length);  // the next block's end
    if (own_b != nullptr) pack_columns_of_b(isa, part, task.col, task.cols, k0, b.k1, own_b);
    next_b = b.last ? begin_of(isa, next_part, next)
                    : region_of_b(isa, part, task.col, task.cols, b.k1, k2);
    for (int p = task.panel; p < end; ++p) {
      if (!part.share_a) pack_panel_of_a(isa, part, p, k0, b.k1, own_a);
      Touch next_a;
      if (p + 1 < end) {
        next_a = region_of_a(part, p + 1, k0, b.k1);
      } else if (!b.last) {
        next_a = region_of_a(part, task.panel, b.k1, k2);
      }
      float* sum = sums + (one_panel ? 0 : (part.panel_row(p) - first_row) * b.sums_pitch);
      panel_times_block(isa, part, task, b, p, part.share_a ? part.packed_a(p, k0) : own_a, sum,
                        next_a, next_b);
    }
  }
}

void direct_task(const GemmIsa& isa, const Part& part, const Task& task, const Part* next_part,
                 const Task* next) {
  const Gemm& g = *part.g;
  DirectJob job;
  job.rows = part.rows;
  job.cols = task.cols;
  job.k = g.k();
  job.steps = part.kind;
  job.a = part.a;
  job.accumulate = g.accumulate;
  job.c = g.c.row(0) + task.col;
  job.c_stride = g.c.stride;
  if (g.packed != nullptr) {
    job.packed = part.packed_b(task.col);
    if (next != nullptr && next_part->direct && next_part->b != nullptr) {
      job.packed_next = next_part->packed_b(next->col);
    }
    return isa.direct(job);
  }
  job.b = static_cast<const char*>(g.b.data) +
          (g.trans_b ? task.col * g.b.stride : std::ptrdiff_t{task.col}) *
              static_cast<std::ptrdiff_t>(size_of(g.b.dtype));
  job.b_dtype = g.b.dtype;
  job.b_stride = g.b.stride;
  job.trans_b = g.trans_b;
  isa.direct(job);
}

}  // namespace cachalot::cpu
#endif
