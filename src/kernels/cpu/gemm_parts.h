// What a call of the products' driver is cut into, and how its operands become panels.
//
// A part is a problem as the driver sees it; a task is (part, rows, columns). Panels are described
// in gemm_driver.h.
//
// Threads: plans are made by the caller; what a task reads of them does not change meanwhile.
#pragma once

#include "kernels/cpu/gemm_driver.h"
#include "kernels/cpu/simd.h"

#ifdef CACHALOT_X86
#include <algorithm>

namespace cachalot::cpu {

struct Part {
  const Gemm* g = nullptr;
  const Fp8Gemm* scaled = nullptr;  // the block-scaled problem, whose codes are g's operands
  int rows = 0;
  int panels = 0;
  std::int64_t steps = 0;            // words of a line over all of k
  std::uint32_t* a = nullptr;        // packed: [panel][steps, its rows], or null: the tasks do it
  const std::uint32_t* b = nullptr;  // packed: [panel][steps, width], or null: the tasks do it
  int task_panels = 1;
  bool share_a = false;  // packed once for all tasks
  bool share_b = false;
  bool direct = false;
  Steps kind = Steps::kFloat;

  // Panels of nearly equal height, so that no tile is nearly empty.
  int panel_row(int p) const { return p * (rows / panels) + std::min(p, rows % panels); }
  int panel_rows(int p) const { return panel_row(p + 1) - panel_row(p); }
  // Words of k elements: the steps, and one of scales after each 128.
  std::int64_t words(std::int64_t k) const {
    return steps_of(kind, k) +
           (scaled != nullptr ? numeric::blocks_of(static_cast<int>(k), kScaleTileSize) : 0);
  }
  // Columns [col, col + 1) of a packed B begin here; `col` is a multiple of a panel's width.
  const std::uint32_t* packed_b(int col) const { return b + col * steps; }
  // Elements [k0, ..) of panel p of a packed A.
  const std::uint32_t* packed_a(int p, int k0) const {
    return a + panel_row(p) * steps + words(k0) * panel_rows(p);
  }
};

struct Task {
  int part = 0;
  int panel = 0;
  int panels = 0;
  int col = 0;
  int cols = 0;
};

// Panels [panel, panel + count) of an operand that is packed before the tasks run.
struct PackTask {
  int part = 0;
  bool of_b = false;
  int panel = 0;
  int count = 0;
  std::uint32_t* to = nullptr;  // panel 0 of the operand
};

// How a sum over k is cut: `count` blocks of equal length, even so that a pair of bf16 stays
// together; or of whole scales.
struct KBlocks {
  int count, length;
  KBlocks(const Part& part, int k);
};

// Columns of a whole panel of B, and of panel `j` of a block of `cols`: full ones, then one as
// narrow as it can be.
inline int panel_columns(const GemmIsa& isa) { return isa.lanes * isa.max_vecs; }
inline int panel_width(const GemmIsa& isa, int cols, int j) {
  const int left = cols - j * panel_columns(isa);
  return left >= panel_columns(isa) ? panel_columns(isa)
                                    : (left + isa.lanes - 1) / isa.lanes * isa.lanes;
}
inline int padded_columns(const GemmIsa& isa, int cols) {
  return (cols + isa.lanes - 1) / isa.lanes * isa.lanes;
}

// Panel `p` of A, elements [k0, k1).
void pack_panel_of_a(const GemmIsa& isa, const Part& part, int p, int k0, int k1,
                     std::uint32_t* dst);
// Panels [p, p + count) of A, all of k, to their places in the packed A that begins at `a`.
void pack_panels_of_a(const GemmIsa& isa, const Part& part, int p, int count, std::uint32_t* a);
// Columns [col, col + cols) of B, elements [k0, k1), panel after panel.
void pack_columns_of_b(const GemmIsa& isa, const Part& part, int col, int cols, int k0, int k1,
                       std::uint32_t* dst);
// The memory that a task reads of these, wherever it lies.
Touch region_of_a(const Part& part, int p, int k0, int k1);
Touch region_of_b(const GemmIsa& isa, const Part& part, int col, int cols, int k0, int k1);

// Cuts parts into tasks and decides which operands are packed once for all of them. `words` counts
// those that are, on the way in and out.
struct Plan {
  const GemmIsa& isa;
  int threads;
  void make(std::span<Part> parts, std::int64_t& words, std::vector<Task>& tasks) const;
  // No fewer than it makes of one part, but for the last ones, which it may cut.
  static std::int64_t most_tasks(const GemmIsa& isa, const Part& part);
};
// Words of packed operands kept at a time. A B that does not fit is packed by its tasks.
constexpr std::int64_t kPackedWords = std::int64_t{16} << 20;

// One task; `next` and its part, which the same thread comes to afterwards, or null.
void multiply_task(const GemmIsa& isa, const Part& part, const Task& task, const Part* next_part,
                   const Task* next);
void direct_task(const GemmIsa& isa, const Part& part, const Task& task, const Part* next_part,
                 const Task* next);
// The calling thread's memory for any task: each of its blocks fits in one huge page (gemm_plan.cc
// cuts them so).
void reserve_task_memory();
constexpr std::size_t kTaskBytes = std::size_t{2} << 20;

}  // namespace cachalot::cpu
#endif
