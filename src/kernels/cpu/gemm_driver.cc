#include "kernels/cpu/gemm_driver.h"

#include "kernels/cpu/simd.h"

#ifdef CACHALOT_X86
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "kernels/cpu/caches.h"

namespace cachalot::cpu {

namespace {

// Summation steps of one block of B: an A panel of it (14 rows x 384 x 4 bytes = 21 KiB) stays in a
// 32 or 48 KiB L1 cache while the panels of B stream by from L2.
constexpr int kBlockK = 384;
// Columns of one block of B, where a task packs it (few rows) and where it lies packed. 256 columns
// x kBlockK are 384 KiB of an L2 cache; A is then read from L3 once per 256 columns (1 GB/s).
constexpr int kBlockColumns = 128;
constexpr int kSharedColumns = 256;
// From so many rows on, B is packed once for all tasks: it is used often enough to be worth writing
// to L3 and reading back.
constexpr int kShareRows = 160;
// Packed operands of the problems in flight. A larger A is cut by rows; a B that does not fit is
// packed by its tasks.
constexpr std::size_t kPackedBytes = std::size_t{64} << 20;
// Rows of a task: enough to use a block of B while it is in L2, few enough that all threads have
// work; sums between blocks of K (rows x columns) stay in L2 too.
constexpr int kMinTaskRows = 112;
constexpr int kMaxTaskRows = 1024;
// Elements of k packed in one go where k is the far direction: bounds the pages in flight.
constexpr int kPackK = 64;
constexpr int kPackPanels = 8;
// Below this much, waking the other threads costs more than packing here.
constexpr std::int64_t kPackAlone = 1 << 15;

// Memory that is kept for the next product; in huge pages where there are any, because the panels
// of one task would fill the first TLB.
class Scratch {
 public:
  void* get(std::size_t bytes) {
    if (bytes > bytes_) {
      memory_.reset();
      bytes_ = 0;
      const std::size_t rounded = (bytes + kHugePage - 1) / kHugePage * kHugePage;
      memory_.reset(std::aligned_alloc(kHugePage, rounded));
      if (!memory_) throw std::bad_alloc();
      madvise(memory_.get(), rounded, MADV_HUGEPAGE);  // only advice
      bytes_ = rounded;
    }
    return memory_.get();
  }

 private:
  static constexpr std::size_t kHugePage = std::size_t{2} << 20;
  std::unique_ptr<void, FreeDeleter> memory_;
  std::size_t bytes_ = 0;
};

// Flush-to-zero and denormals-are-zero while it lives.
class FlushDenormals {
 public:
  explicit FlushDenormals(bool on) : on_(on), old_(on ? _mm_getcsr() : 0) {
    if (on_) _mm_setcsr(old_ | 0x8040u);
  }
  ~FlushDenormals() {
    if (on_) _mm_setcsr(old_);
  }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  bool on_;
  unsigned old_;
};

// A problem, or a run of rows of one, as it was cut to fit the packing buffer.
struct Part {
  const Gemm* g = nullptr;
  const Fp8Gemm* scaled = nullptr;  // the block-scaled problem, whose codes are g's operands
  int row = 0;
  int rows = 0;
  int panels = 0;
  std::int64_t steps = 0;
  std::uint32_t* a = nullptr;  // packed: [panel][steps, rows of the panel]
  std::uint32_t* b = nullptr;  // packed: [panel][steps, width], or null: the tasks do it
  bool share_b = false;
  bool direct = false;
  Steps kind = Steps::kFloat;

  // Panels of nearly equal height, so that no tile is nearly empty.
  int panel_row(int p) const { return p * (rows / panels) + std::min(p, rows % panels); }
  int panel_rows(int p) const { return panel_row(p + 1) - panel_row(p); }
  std::uint32_t* panel(int p) const { return a + panel_row(p) * steps; }
  // Words of k elements: the steps, and one of scales after each 128.
  std::int64_t words(std::int64_t k) const {
    return steps_of(kind, k) +
           (scaled != nullptr ? numeric::blocks_of(static_cast<int>(k), kScaleTileSize) : 0);
  }
  // Elements of k to be packed in one go, of `k`.
  int chunk(bool k_is_row, int k) const {
    if (scaled != nullptr) return kScaleTileSize;
    return k_is_row ? kPackK : std::max(k, 1);
  }
};

struct PackTask {
  int part = 0;
  bool of_b = false;
  int panel = 0;
  int count = 0;
};

struct Task {
  int part = 0;
  int panel = 0;
  int panels = 0;
  int col = 0;
  int cols = 0;
};

const void* element(const MatRef& m, std::ptrdiff_t index) {
  return static_cast<const char*>(m.data) + index * static_cast<std::ptrdiff_t>(size_of(m.dtype));
}

// Packs lines [line, line + lines) of an operand, elements [k0, k1).
PackJob lines_of(const MatRef& m, bool k_is_row, int line, int lines, int k0, int k1, Steps steps) {
  PackJob job;
  job.dtype = m.dtype;
  job.line_stride = k_is_row ? 1 : m.stride;
  job.k_stride = k_is_row ? m.stride : 1;
  job.src = element(m, line * job.line_stride + k0 * job.k_stride);
  job.lines = lines;
  job.k_begin = k0;
  job.k_end = k1;
  job.steps = steps;
  return job;
}

// The step of scales of the lines of an operand [lines, K] or, k_is_row, [K, lines].
void put_scales(const Fp8View& m, bool k_is_row, int line, int lines, int width, int k0,
                std::uint32_t* dst) {
  for (int i = 0; i < lines; ++i) {
    dst[i] = std::bit_cast<std::uint32_t>(k_is_row ? m.scale_at(k0, line + i)
                                                   : m.scale_at(line + i, k0));
  }
  std::fill(dst + lines, dst + width, 0u);
}

// The same product of the codes themselves.
Gemm codes_of(const Fp8Gemm& g) {
  const auto ref = [](const Fp8View& m) {
    return MatRef(m.codes, DType::kF8E4M3, m.rows, m.cols, m.stride);
  };
  return {ref(g.a), ref(g.b), g.c, g.trans_a, g.trans_b, g.accumulate};
}

class Run {
 public:
  Run(const GemmIsa& isa, const Context& ctx, Precision precision)
      : isa_(isa),
        ctx_(ctx),
        bf16_(precision == Precision::kBF16),
        flush_(bf16_ && isa.flush_denormals_in_bf16) {}

  void all(std::span<const Gemm> problems) {
    clear();
    for (const Gemm& g : problems) {
      if (g.c.empty()) continue;
      add(g, nullptr);
    }
    flush_parts();
  }
  void all(std::span<const Fp8Gemm> problems) {
    clear();
    std::vector<Gemm>& codes = store().codes;
    codes.clear();
    codes.reserve(problems.size());  // parts point into it
    for (const Fp8Gemm& g : problems) {
      if (g.c.empty()) continue;
      codes.push_back(codes_of(g));
      add(codes.back(), &g);
    }
    flush_parts();
  }

 private:
  // Buffers of the calling thread, kept between calls.
  struct Store {
    std::vector<Part> parts;
    std::vector<PackTask> packs;
    std::vector<Task> tasks;
    std::vector<Gemm> codes;
    Scratch a;
  };
  static Store& store() {
    thread_local Store kept;
    return kept;
  }

  void clear() {
    store().parts.clear();
    words_ = 0;
  }

  void add(const Gemm& g, const Fp8Gemm* scaled) {
    Part part;
    part.g = &g;
    part.scaled = scaled;
    part.direct = scaled == nullptr && isa_.direct != nullptr && g.m() <= isa_.direct_rows;
    part.kind = !bf16_ ? Steps::kFloat : part.direct ? Steps::kWide : isa_.bf16;
    const std::int64_t steps = part.words(g.k());
    part.steps = steps;
    const std::int64_t limit = static_cast<std::int64_t>(kPackedBytes / sizeof(std::uint32_t));
    const std::int64_t fit =
        std::max<std::int64_t>(isa_.max_rows, limit / std::max<std::int64_t>(steps, 1));
    for (int row = 0; row < g.m();) {
      const int rows = static_cast<int>(std::min<std::int64_t>(g.m() - row, fit));
      if (words_ > 0 && words_ + rows * steps > limit) flush_parts();
      part.row = row;
      part.rows = rows;
      part.panels = (rows + isa_.max_rows - 1) / isa_.max_rows;
      const std::int64_t b_words = steps * ((g.n() + isa_.lanes - 1) / isa_.lanes * isa_.lanes);
      part.share_b = !part.direct && rows >= kShareRows && b_words <= limit - words_ - rows * steps;
      store().parts.push_back(part);
      words_ += rows * steps + (part.share_b ? b_words : 0);
      row += rows;
    }
  }

  void flush_parts() {
    if (store().parts.empty()) return;
    pack_all();
    multiply_all();
    clear();
  }

  void pack_all() {
    Store& s = store();
    auto* a = static_cast<std::uint32_t*>(
        s.a.get(static_cast<std::size_t>(words_) * sizeof(std::uint32_t)));
    s.packs.clear();
    for (std::size_t i = 0; i < s.parts.size(); ++i) {
      Part& part = s.parts[i];
      part.a = a;
      a += part.rows * part.steps;
      for (int p = 0; p < part.panels; p += kPackPanels) {
        s.packs.push_back({static_cast<int>(i), false, p, std::min(kPackPanels, part.panels - p)});
      }
      if (!part.share_b) continue;
      part.b = a;
      const int nr = isa_.lanes * isa_.max_vecs;
      const int panels = (part.g->n() + nr - 1) / nr;
      a += part.steps * ((part.g->n() + isa_.lanes - 1) / isa_.lanes * isa_.lanes);
      for (int p = 0; p < panels; p += kPackPanels / 2) {
        s.packs.push_back({static_cast<int>(i), true, p, std::min(kPackPanels / 2, panels - p)});
      }
    }
    const auto n = static_cast<std::int64_t>(s.packs.size());
    ctx_.for_range(n, words_ < kPackAlone ? n : 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const PackTask& task = s.packs[static_cast<std::size_t>(i)];
        const Part& part = s.parts[static_cast<std::size_t>(task.part)];
        if (task.of_b) {
          pack_shared_b(part, task);
        } else {
          pack_a(part, task);
        }
      }
    });
  }

  void pack_shared_b(const Part& part, const PackTask& task) const {
    const int nr = isa_.lanes * isa_.max_vecs;
    Task columns;
    columns.col = task.panel * nr;
    columns.cols = std::min(task.count * nr, part.g->n() - columns.col);
    pack_b(part, columns, 0, part.g->k(), part.b + columns.col * part.steps);
  }

  void pack_a(const Part& part, const PackTask& task) const {
    const Gemm& g = *part.g;
    const int k = g.k();
    const int chunk = part.chunk(g.trans_a, k);
    for (int k0 = 0; k0 < k; k0 += chunk) {
      for (int p = task.panel; p < task.panel + task.count; ++p) {
        const int row = part.row + part.panel_row(p);
        const int rows = part.panel_rows(p);
        PackJob job = lines_of(g.a, g.trans_a, row, rows, k0, std::min(k, k0 + chunk), part.kind);
        job.width = rows;
        job.dst = part.panel(p) + part.words(k0) * rows;
        isa_.pack(job);
        if (part.scaled == nullptr) continue;
        put_scales(part.scaled->a, g.trans_a, row, rows, rows, k0,
                   job.dst + steps_of(part.kind, job.k_end - k0) * rows);
      }
    }
  }

  void multiply_all() {
    Store& s = store();
    s.tasks.clear();
    std::int64_t column_tasks = 0;
    for (const Part& part : s.parts)
      column_tasks += (part.g->n() + columns_of(part) - 1) / columns_of(part);
    // Cores of a shared machine do not run equally fast: aim at several tasks per thread.
    const std::int64_t wanted = ctx_.threads() > 1 ? 6 * ctx_.threads() : 1;
    const std::int64_t cuts = (wanted + column_tasks - 1) / column_tasks;
    for (std::size_t i = 0; i < s.parts.size(); ++i) {
      add_tasks(static_cast<int>(i), s.parts[i], static_cast<int>(cuts), s.tasks);
    }
    ctx_.for_range(static_cast<std::int64_t>(s.tasks.size()), 1,
                   [&](std::int64_t begin, std::int64_t end) {
                     const FlushDenormals flush(flush_);
                     for (std::int64_t t = begin; t < end; ++t) {
                       const Task& task = s.tasks[static_cast<std::size_t>(t)];
                       const Part& part = s.parts[static_cast<std::size_t>(task.part)];
                       if (part.direct) {
                         direct(part, task);
                       } else {
                         multiply(part, task);
                       }
                     }
                   });
  }

  static int columns_of(const Part& part) { return part.share_b ? kSharedColumns : kBlockColumns; }

  void add_tasks(int index, const Part& part, int cuts, std::vector<Task>& tasks) const {
    const int n = part.g->n();
    const int nr = isa_.lanes * isa_.max_vecs;
    int block = columns_of(part);
    int task_panels = part.panels;
    if (part.direct) {
      block = std::max(nr, std::min(kBlockColumns, n / std::max(1, cuts) / nr * nr));
    } else {
      const int rows = std::clamp((part.rows + cuts - 1) / cuts, kMinTaskRows, kMaxTaskRows);
      task_panels = std::max(1, rows / isa_.max_rows);
    }
    for (int col = 0; col < n; col += block) {
      for (int p = 0; p < part.panels; p += task_panels) {
        tasks.push_back(
            {index, p, std::min(task_panels, part.panels - p), col, std::min(block, n - col)});
      }
    }
  }

  void direct(const Part& part, const Task& task) const {
    const Gemm& g = *part.g;
    DirectJob job;
    job.rows = part.rows;
    job.cols = task.cols;
    job.k = g.k();
    job.steps = part.kind;
    job.a = part.a;
    job.b = element(g.b, g.trans_b ? task.col * g.b.stride : task.col);
    job.b_dtype = g.b.dtype;
    job.b_stride = g.b.stride;
    job.trans_b = g.trans_b;
    job.accumulate = g.accumulate;
    job.c = g.c.row(part.row) + task.col;
    job.c_stride = g.c.stride;
    isa_.direct(job);
  }

  // Columns of panel `j` of a block of `cols`: full tiles, then one as narrow as it can be.
  int panel_width(int cols, int j) const {
    const int nr = isa_.lanes * isa_.max_vecs;
    const int left = cols - j * nr;
    return left >= nr ? nr : (left + isa_.lanes - 1) / isa_.lanes * isa_.lanes;
  }

  void pack_b(const Part& part, const Task& task, int k0, int k1, std::uint32_t* dst) const {
    const Gemm& g = *part.g;
    const int nr = isa_.lanes * isa_.max_vecs;
    const int panels = (task.cols + nr - 1) / nr;
    const int chunk = part.chunk(!g.trans_b, k1 - k0);
    const std::int64_t block_steps = part.words(k1 - k0);
    for (int k = k0; k < k1; k += chunk) {
      for (int j = 0; j < panels; ++j) {
        const int col = task.col + j * nr;
        PackJob job = lines_of(g.b, !g.trans_b, col, std::min(nr, task.cols - j * nr), k,
                               std::min(k1, k + chunk), part.kind);
        job.width = panel_width(task.cols, j);
        job.dst = dst + block_steps * nr * j + part.words(k - k0) * job.width;
        isa_.pack(job);
        if (part.scaled == nullptr) continue;
        put_scales(part.scaled->b, !g.trans_b, col, job.lines, job.width, k,
                   job.dst + steps_of(part.kind, job.k_end - k) * job.width);
      }
    }
  }

  void multiply(const Part& part, const Task& task) const {
    thread_local Scratch kept_b;
    thread_local Scratch kept_sums;
    const Gemm& g = *part.g;
    const int k = g.k();
    const int nr = isa_.lanes * isa_.max_vecs;
    const int panels = (task.cols + nr - 1) / nr;
    const int blocks = std::max(1, (k + kBlockK - 1) / kBlockK);
    // Blocks of equal length, even so that a pair of bf16 stays together; or of whole scales.
    const int unit = part.scaled != nullptr ? kScaleTileSize : 2;
    const int block = std::max(unit, ((k + blocks - 1) / blocks + unit - 1) / unit * unit);
    const auto tile_of = part.scaled != nullptr ? isa_.scaled_tile : isa_.tile;
    auto* b = part.share_b
                  ? nullptr
                  : static_cast<std::uint32_t*>(kept_b.get(
                        sizeof(std::uint32_t) * static_cast<std::size_t>(part.words(block)) *
                        static_cast<std::size_t>(panels * nr)));
    // Sums between the blocks of K: they may not lie in C, which an accumulating product still
    // needs. [row of the task, panels * nr]
    const int first_row = part.panel_row(task.panel);
    const int task_rows = part.panel_row(task.panel + task.panels) - first_row;
    const std::ptrdiff_t pitch = panels * nr;
    const int kept_rows = blocks > 1 ? task_rows : isa_.max_rows;
    auto* sums = static_cast<float*>(kept_sums.get(
        sizeof(float) * static_cast<std::size_t>(kept_rows) * static_cast<std::size_t>(pitch)));
    for (int k0 = 0, first = 1; k0 < k || first != 0; k0 += block, first = 0) {
      const int k1 = std::min(k, k0 + block);
      const bool last = k1 >= k;
      if (!part.share_b) pack_b(part, task, k0, k1, b);
      const std::int64_t block_steps = part.words(k1 - k0);
      // Panel j of the block, whoever packed it.
      const std::int64_t b_panel = nr * (part.share_b ? part.steps : block_steps);
      const std::uint32_t* b_first = part.share_b ? part.b + task.col * part.steps : b;
      for (int p = task.panel; p < task.panel + task.panels; ++p) {
        const int row = part.panel_row(p);
        const int rows = part.panel_rows(p);
        const std::uint32_t* a = part.panel(p) + part.words(k0) * rows;
        float* sum = sums + (blocks > 1 ? (row - first_row) * pitch : 0);
        // While a panel is worked on, the next one comes from L3 to L2.
        const std::ptrdiff_t next_step = (rows * 4 + panels - 1) / panels;
        const std::ptrdiff_t tiles_share = next_step * block_steps;
        const char* next = reinterpret_cast<const char*>(
            p + 1 < task.panel + task.panels
                ? part.panel(p + 1) + part.words(k0) * part.panel_rows(p + 1)
                : part.panel(task.panel) + part.words(k1) * part.panel_rows(task.panel));
        for (int j = 0; j < panels; ++j) {
          const int col = j * nr;
          const int cols = std::min(nr, task.cols - col);
          float* c = g.c.row(part.row + row) + task.col + col;
          TileJob tile;
          tile.rows = rows;
          tile.vecs = panel_width(task.cols, j) / isa_.lanes;
          tile.load = first == 0;
          tile.steps = block_steps;
          tile.scaled_steps = steps_of(part.kind, kScaleTileSize);
          tile.a = a;
          tile.b = b_first + b_panel * j +
                   (part.share_b ? part.words(k0) * panel_width(task.cols, j) : 0);
          const bool straight = blocks == 1 && !g.accumulate && cols == tile.vecs * isa_.lanes;
          tile.next = next + j * tiles_share;
          tile.next_step = next_step;
          tile.c = straight ? c : sum + col;
          tile.c_stride = straight ? g.c.stride : pitch;
          tile_of(tile);
          if (last && !straight) {
            isa_.store(sum + col, pitch, rows, cols, g.accumulate, c, g.c.stride);
          }
        }
      }
    }
  }

  const GemmIsa& isa_;
  const Context& ctx_;
  bool bf16_;
  bool flush_;
  std::int64_t words_ = 0;
};

}  // namespace

void run_gemm(const GemmIsa& isa, const Context& ctx, Precision precision,
              std::span<const Gemm> problems) {
  Run(isa, ctx, precision).all(problems);
}

void run_gemm_fp8(const GemmIsa& isa, const Context& ctx, std::span<const Fp8Gemm> problems) {
  // Sums of products of codes are multiples of 2^-18: there are no denormals to flush, and those
  // of the scales are kept.
  GemmIsa exact = isa;
  exact.flush_denormals_in_bf16 = false;
  Run(exact, ctx, Precision::kBF16).all(problems);
}

}  // namespace cachalot::cpu
#endif
