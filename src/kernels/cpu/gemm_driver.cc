#include "kernels/cpu/gemm_driver.h"

#include "kernels/cpu/simd.h"

#ifdef CACHALOT_X86
#include <algorithm>
#include <bit>
#include <vector>

#include "kernels/cpu/caches.h"
#include "kernels/cpu/scratch.h"

namespace cachalot::cpu {

namespace {

// Summation steps of one block of B: an A panel of it (14 rows x 384 x 4 bytes = 21 KiB) stays in a
// 32 or 48 KiB L1 cache while the panels of B stream by from L2.
constexpr int kBlockK = 384;
// Columns of one block of B: 256 x kBlockK words are 384 KiB of an L2 cache. Narrower ones where
// there would be too few tasks.
constexpr int kBlockColumns = 256;
constexpr int kNarrowColumns = 128;
// B is packed once for all tasks only where several tasks of few rows would each pack it: written
// to memory and read back it costs more than packing again for every 512 rows.
constexpr int kShareRows = 160;
constexpr int kOwnRows = 512;
// A is packed once where at least this many blocks of columns would each pack it.
constexpr int kShareBlocks = 4;
// Packed operands of the problems in flight. A B that does not fit is packed by its tasks.
constexpr std::int64_t kPackedWords = std::int64_t{16} << 20;
// Rows of a task: enough to use a block of B while it is in L2, few enough that all threads have
// work; sums between blocks of K (rows x columns) stay in L2 too.
constexpr int kMinTaskRows = 112;
constexpr int kMaxTaskRows = 1024;
// Elements of k packed in one go where k is the far direction: bounds the pages in flight.
constexpr int kPackK = 64;
constexpr int kPackPanels = 8;
// Below this much, waking the other threads costs more than packing here.
constexpr std::int64_t kPackAlone = 1 << 15;

// A problem, or a run of rows of one, as it was cut to fit the packing buffer.
struct Part {
  const Gemm* g = nullptr;
  const Fp8Gemm* scaled = nullptr;  // the block-scaled problem, whose codes are g's operands
  int row = 0;
  int rows = 0;
  int panels = 0;
  std::int64_t steps = 0;
  std::uint32_t* a = nullptr;  // packed: [panel][steps, its rows], or null: the tasks do it
  std::uint32_t* b = nullptr;  // packed: [panel][steps, width], or null: the tasks do it
  int task_panels = 1;
  bool share_a = false;
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

// Where the operand of a job goes on after `lines` more lines.
const void* element(const PackJob& job, int lines) {
  return static_cast<const char*>(job.src) +
         lines * job.line_stride * static_cast<std::ptrdiff_t>(size_of(job.dtype));
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

// Lines of memory that hold lines [line, line + lines), elements [k0, k1), of an operand.
Touch region_of(const MatRef& m, bool k_is_row, int line, int lines, int k0, int k1) {
  const auto width = static_cast<std::ptrdiff_t>(size_of(m.dtype));
  const std::ptrdiff_t row = k_is_row ? k0 : line, col = k_is_row ? line : k0;
  return Touch::of(static_cast<const char*>(m.data) + (row * m.stride + col) * width,
                   m.stride * width, k_is_row ? k1 - k0 : lines,
                   (k_is_row ? lines : k1 - k0) * width);
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
    HugeScratch packed;  // the panels of one task would fill the first TLB
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
    part.steps = part.words(g.k());
    part.rows = g.m();
    part.panels = (part.rows + isa_.max_rows - 1) / isa_.max_rows;
    if (part.direct) {
      if (words_ > 0 && words_ + part.rows * part.steps > kPackedWords) flush_parts();
      words_ += part.rows * part.steps;
    }
    store().parts.push_back(part);
  }

  void flush_parts() {
    if (store().parts.empty()) return;
    plan();
    pack_all();
    multiply_all();
    clear();
  }

  // Cuts the parts into tasks; decides where B is packed once.
  void plan() {
    Store& s = store();
    // Cores of a shared machine do not run equally fast: aim at several tasks per thread.
    const std::int64_t wanted = ctx_.threads() > 1 ? 6 * ctx_.threads() : 1;
    std::int64_t wide = 0;
    for (const Part& part : s.parts) {
      wide += std::int64_t{(part.rows + kMinTaskRows - 1) / kMinTaskRows} *
              ((part.g->n() + kBlockColumns - 1) / kBlockColumns);
    }
    columns_ = wide >= wanted ? kBlockColumns : kNarrowColumns;
    std::int64_t column_tasks = 0;
    for (const Part& part : s.parts) column_tasks += (part.g->n() + columns_ - 1) / columns_;
    const auto cuts = static_cast<int>((wanted + column_tasks - 1) / column_tasks);
    s.tasks.clear();
    for (std::size_t i = 0; i < s.parts.size(); ++i) {
      Part& part = s.parts[i];
      const int rows = std::clamp((part.rows + cuts - 1) / cuts, kMinTaskRows, kMaxTaskRows);
      part.task_panels = part.direct ? part.panels : std::max(1, rows / isa_.max_rows);
      const std::int64_t b_words = b_words_of(part);
      part.share_b = !part.direct && part.rows >= kShareRows && rows < kOwnRows &&
                     b_words <= kPackedWords - words_;
      if (part.share_b) words_ += b_words;
      part.share_a = !part.direct && part.g->n() > (kShareBlocks - 1) * columns_ &&
                     part.rows * part.steps <= kPackedWords - words_;
      if (part.share_a) words_ += part.rows * part.steps;
      add_tasks(static_cast<int>(i), part, cuts, s.tasks);
    }
  }
  std::int64_t b_words_of(const Part& part) const {
    return part.steps * ((part.g->n() + isa_.lanes - 1) / isa_.lanes * isa_.lanes);
  }

  void pack_all() {
    Store& s = store();
    if (words_ == 0) return;
    auto* to = s.packed.get<std::uint32_t>(static_cast<std::size_t>(words_));
    s.packs.clear();
    const int nr = isa_.lanes * isa_.max_vecs;
    for (std::size_t i = 0; i < s.parts.size(); ++i) {
      Part& part = s.parts[i];
      if (part.direct) {
        part.a = to;
        to += part.rows * part.steps;
        s.packs.push_back({static_cast<int>(i), false, 0, 1});
      }
      if (part.share_a) {
        part.a = to;
        to += part.rows * part.steps;
        for (int p = 0; p < part.panels; p += kPackPanels) {
          s.packs.push_back(
              {static_cast<int>(i), false, p, std::min(kPackPanels, part.panels - p)});
        }
      }
      if (part.share_b) {
        part.b = to;
        to += b_words_of(part);
        const int panels = (part.g->n() + nr - 1) / nr;
        for (int p = 0; p < panels; p += kPackPanels) {
          s.packs.push_back({static_cast<int>(i), true, p, std::min(kPackPanels, panels - p)});
        }
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
          for (int p = task.panel; p < task.panel + task.count; ++p) {
            pack_a(part, p, 0, part.g->k(), part.a + part.panel_row(p) * part.steps);
          }
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

  // Panel `p` of A, elements [k0, k1).
  void pack_a(const Part& part, int p, int k0, int k1, std::uint32_t* dst) const {
    const Gemm& g = *part.g;
    const int rows = part.panel_rows(p);
    pack_lines(part, g.a, part.scaled == nullptr ? nullptr : &part.scaled->a, g.trans_a,
               part.row + part.panel_row(p), rows, rows, 1, k0, k1, dst, 0);
  }

  // `panels` panels of `lines` lines of an operand each, `width` words per step; a panel's words
  // are `pitch` apart.
  void pack_lines(const Part& part, const MatRef& m, const Fp8View* scales, bool k_is_row, int line,
                  int lines, int width, int panels, int k0, int k1, std::uint32_t* dst,
                  std::ptrdiff_t pitch) const {
    const int chunk = part.chunk(k_is_row, k1 - k0);
    for (int k = k0; k < k1; k += chunk) {
      PackJob job = lines_of(m, k_is_row, line, lines, k, std::min(k1, k + chunk), part.kind);
      job.width = width;
      job.dst = dst + part.words(k - k0) * width;
      for (int p = 0; p < panels; ++p) {
        isa_.pack(job);
        if (scales != nullptr) {
          put_scales(*scales, k_is_row, line + p * lines, lines, width, k,
                     job.dst + steps_of(part.kind, job.k_end - k) * width);
        }
        job.src = element(job, lines);
        job.dst += pitch;
      }
    }
  }

  void multiply_all() {
    Store& s = store();
    const auto n = static_cast<std::int64_t>(s.tasks.size());
    // Neighbours go to one thread, which fetches the next one's operands in time.
    const std::int64_t grain = std::clamp<std::int64_t>(n / (12 * ctx_.threads()), 1, 8);
    ctx_.for_range(n, grain, [&](std::int64_t begin, std::int64_t end) {
      const FlushDenormalsScope flush(flush_);
      for (std::int64_t t = begin; t < end; ++t) {
        const Task& task = s.tasks[static_cast<std::size_t>(t)];
        const Part& part = s.parts[static_cast<std::size_t>(task.part)];
        if (part.direct) {
          direct(part, task);
        } else {
          multiply(part, task, t + 1 < end ? &s.tasks[static_cast<std::size_t>(t) + 1] : nullptr);
        }
      }
    });
  }

  void add_tasks(int index, const Part& part, int cuts, std::vector<Task>& tasks) const {
    const int n = part.g->n();
    const int nr = isa_.lanes * isa_.max_vecs;
    const int block = part.direct
                          ? std::max(nr, std::min(kNarrowColumns, n / std::max(1, cuts) / nr * nr))
                          : columns_;
    for (int col = 0; col < n; col += block) {
      for (int p = 0; p < part.panels; p += part.task_panels) {
        tasks.push_back(
            {index, p, std::min(part.task_panels, part.panels - p), col, std::min(block, n - col)});
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
    const Fp8View* scales = part.scaled == nullptr ? nullptr : &part.scaled->b;
    const int nr = isa_.lanes * isa_.max_vecs;
    const int full = task.cols / nr;
    const std::int64_t words = part.words(k1 - k0) * nr;
    pack_lines(part, g.b, scales, !g.trans_b, task.col, nr, nr, full, k0, k1, dst, words);
    const int left = task.cols - full * nr;
    if (left == 0) return;
    pack_lines(part, g.b, scales, !g.trans_b, task.col + full * nr, left,
               panel_width(task.cols, full), 1, k0, k1, dst + full * words, words);
  }

  // How a sum over k is cut: `count` blocks of equal length, even so that a pair of bf16 stays
  // together; or of whole scales.
  struct Blocks {
    int count, length;
    Blocks(const Part& part, int k) {
      const int unit = part.scaled != nullptr ? kScaleTileSize : 2;
      count = std::max(1, (k + kBlockK - 1) / kBlockK);
      length = std::max(unit, ((k + count - 1) / count + unit - 1) / unit * unit);
    }
  };

  // What a task reads of B first: its own block at k0, or that of the shared panels.
  Touch b_region(const Part& part, const Task& task, int k0, int k1) const {
    const int nr = isa_.lanes * isa_.max_vecs;
    if (!part.share_b) {
      return region_of(part.g->b, !part.g->trans_b, task.col, task.cols, k0, k1);
    }
    const auto word = static_cast<std::ptrdiff_t>(sizeof(std::uint32_t));
    return Touch::of(part.b + task.col * part.steps + part.words(k0) * nr, part.steps * nr * word,
                     task.cols / nr, part.words(k1 - k0) * nr * word);
  }
  Touch a_region(const Part& part, int p, int k0, int k1) const {
    if (part.share_a) {
      const std::int64_t rows = part.panel_rows(p);
      const auto word = static_cast<std::ptrdiff_t>(sizeof(std::uint32_t));
      return Touch::of(shared_a(part, p, k0), 0, 1, part.words(k1 - k0) * rows * word);
    }
    return region_of(part.g->a, part.g->trans_a, part.row + part.panel_row(p), part.panel_rows(p),
                     k0, k1);
  }

  const std::uint32_t* shared_a(const Part& part, int p, int k0) const {
    return part.a + part.panel_row(p) * part.steps + part.words(k0) * part.panel_rows(p);
  }

  void multiply(const Part& part, const Task& task, const Task* next_task) const {
    thread_local HugeScratch kept_a;
    thread_local HugeScratch kept_b;
    thread_local HugeScratch kept_sums;
    const auto words = [](HugeScratch& s, std::int64_t n) {
      return s.get<std::uint32_t>(static_cast<std::size_t>(n));
    };
    const int k = part.g->k();
    const int nr = isa_.lanes * isa_.max_vecs;
    const Blocks blocks(part, k);
    Block b;
    b.pitch = (task.cols + nr - 1) / nr * nr;
    std::uint32_t* a = words(kept_a, part.words(blocks.length) * isa_.max_rows);
    std::uint32_t* own_b =
        part.share_b ? nullptr : words(kept_b, part.words(blocks.length) * b.pitch);
    // Sums between the blocks of K lie in C, unless an accumulating product still needs it.
    // [row of the task, columns]
    const int first_row = part.panel_row(task.panel);
    const int task_rows = part.panel_row(task.panel + task.panels) - first_row;
    const bool one_panel = blocks.count == 1;
    b.sums_pitch = part.g->accumulate ? b.pitch : nr;
    auto* sums = kept_sums.get<float>(
        static_cast<std::size_t>((one_panel ? isa_.max_rows : task_rows) * b.sums_pitch));
    Touch next_b;
    for (int k0 = 0; k0 < k || b.first; k0 += blocks.length, b.first = false) {
      b.k0 = k0;
      b.k1 = std::min(k, k0 + blocks.length);
      b.last = b.k1 >= k;
      if (!part.share_b) pack_b(part, task, k0, b.k1, own_b);
      b.own = own_b;
      if (!b.last) {
        next_b = b_region(part, task, b.k1, std::min(k, b.k1 + blocks.length));
      } else if (next_task != nullptr) {
        const Part& other = store_->parts[static_cast<std::size_t>(next_task->part)];
        const int length = Blocks(other, other.g->k()).length;
        if (!other.direct) next_b = b_region(other, *next_task, 0, std::min(other.g->k(), length));
      }
      for (int p = task.panel; p < task.panel + task.panels; ++p) {
        if (!part.share_a) pack_a(part, p, k0, b.k1, a);
        Touch next_a;
        if (p + 1 < task.panel + task.panels) {
          next_a = a_region(part, p + 1, k0, b.k1);
        } else if (!b.last) {
          next_a = a_region(part, task.panel, b.k1, std::min(k, b.k1 + blocks.length));
        }
        float* sum = sums + (one_panel ? 0 : (part.panel_row(p) - first_row) * b.sums_pitch);
        panel_times_block(part, task, b, p, part.share_a ? shared_a(part, p, k0) : a, sum, next_a,
                          next_b);
      }
    }
  }

  // A block of B as a task walks over it.
  struct Block {
    int k0 = 0, k1 = 0;
    bool first = true, last = false;
    std::ptrdiff_t pitch = 0;
    std::ptrdiff_t sums_pitch = 0;
    const std::uint32_t* own = nullptr;
  };

  void panel_times_block(const Part& part, const Task& task, const Block& b, int p,
                         const std::uint32_t* a, float* sum, Touch& next_a, Touch& next_b) const {
    const Gemm& g = *part.g;
    const int nr = isa_.lanes * isa_.max_vecs;
    const std::int64_t steps = part.words(b.k1 - b.k0);
    for (int col = 0, j = 0; col < task.cols; col += nr, ++j) {
      const int width = panel_width(task.cols, j);
      const int cols = std::min(nr, task.cols - col);
      float* c = g.c.row(part.row + part.panel_row(p)) + task.col + col;
      TileJob tile;
      tile.rows = part.panel_rows(p);
      tile.vecs = width / isa_.lanes;
      tile.load = !b.first;
      tile.steps = steps;
      tile.scaled_steps = steps_of(part.kind, kScaleTileSize);
      tile.a = a;
      tile.b = part.share_b ? part.b + (task.col + col) * part.steps + part.words(b.k0) * width
                            : b.own + steps * col;
      // A tile that reaches beyond C (only the last columns do) sums beside it, too.
      const bool in_c = !g.accumulate && cols == width;
      tile.touch = next_a.rows > 0 ? &next_a : &next_b;
      tile.c = in_c ? c : g.accumulate ? sum + col : sum;
      tile.c_stride = in_c ? g.c.stride : b.sums_pitch;
      (part.scaled != nullptr ? isa_.scaled_tile : isa_.tile)(tile);
      if (b.last && !in_c) {
        isa_.store(tile.c, b.sums_pitch, tile.rows, cols, g.accumulate, c, g.c.stride);
      }
    }
  }

  const GemmIsa& isa_;
  const Context& ctx_;
  bool bf16_;
  bool flush_;
  int columns_ = kBlockColumns;
  const Store* store_ = &store();  // the caller's, for all threads
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
