#include "kernels/cpu/quant_driver.h"

#include "kernels/cpu/simd.h"

#ifdef CACHALOT_X86
#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "kernels/cpu/scratch.h"

namespace cachalot::cpu {

namespace {

// Words of one block of W, per column: 256 words x 256 columns are 256 KiB of an L2 cache.
constexpr int kBlockWords = 256;
constexpr int kBlockColumns = 256;
// Rows of x that a task multiplies with the W it decoded; sums between blocks of K stay near.
constexpr int kTaskRows = 1024;
// Codes that a task of few rows reads. Large tasks first, since a list of many small ones is itself
// read from memory, behind everything that a pass streams through the caches; then ever smaller
// ones, so that threads end together. The smallest read several times what is fetched ahead, so
// that little of a stream is begun anew; less where threads would have fewer tasks than
// kDirectTasks.
constexpr std::int64_t kMostDirectBytes = 512 << 10;
constexpr std::int64_t kLeastDirectBytes = 64 << 10;
constexpr int kDirectTasks = 12;
constexpr int kDirectShares = 6;  // a task is a thread's share of what is left, cut in so many
// Packed rows of the problems in flight: 64 MiB.
constexpr std::int64_t kPackedWords = std::int64_t{16} << 20;
// Below this much, waking the other threads costs more than packing here.
constexpr std::int64_t kPackAlone = 1 << 14;

struct Part {
  const QuantLinear* q = nullptr;
  int row = 0;
  int rows = 0;
  int panels = 0;
  int tiles = 0;
  bool direct = false;
  bool same_x = false;  // as the part before: it is packed once
  std::uint32_t* packed = nullptr;

  // Panels of nearly equal height, so that no register tile is nearly empty.
  int panel_row(int p) const { return p * (rows / panels) + std::min(p, rows % panels); }
  int groups() const { return tiles * (kQuantTile / q->w.group); }
};

struct PanelTask {
  int part = 0;
  int panel = 0;
};

struct Task {
  int part = 0;
  int panel = 0;
  int panels = 0;
  int col = 0;
  int cols = 0;
};

class Run {
 public:
  Run(const QuantIsa& isa, const Context& ctx) : isa_(isa), ctx_(ctx) {}

  void all(std::span<const QuantLinear> problems) {
    Store& s = store();
    s.parts.clear();
    words_ = 0;
    for (const QuantLinear& q : problems) {
      if (q.y.empty()) continue;
      // A problem of many rows is cut, so that what is packed of it stays bounded.
      const std::int64_t row = row_words(q);
      const auto most = static_cast<int>(std::clamp<std::int64_t>(
          kPackedWords / std::max<std::int64_t>(row, 1), kTaskRows, std::int64_t{1} << 30));
      for (int begin = 0; begin < q.m(); begin += most) {
        const int rows = std::min(most, q.m() - begin);
        if (words_ > 0 && words_ + row * rows > kPackedWords) flush();
        add(q, begin, rows);
      }
    }
    flush();
  }

 private:
  struct Store {
    std::vector<Part> parts;
    std::vector<PanelTask> packs;
    std::vector<Task> tasks;
    std::vector<Task> near_tasks;           // the same by home
    std::vector<std::int64_t> home_begins;  // of each home in `tasks`, and their end
    HugeScratch packed;
  };
  static Store& store() {
    thread_local Store kept;
    return kept;
  }

  static bool is_direct(const QuantLinear& q) { return q.m() <= kQuantDirectRows; }
  static int tiles_of(const QuantLinear& q) {
    return is_direct(q) ? quant_direct_tiles(q.k()) : quant_tiles(q.k());
  }
  // Words of one row of x: its elements, and what QuantPanel has besides.
  std::int64_t row_words(const QuantLinear& q) const {
    const int tiles = tiles_of(q);
    const int side = isa_.integers ? tiles * (1 + kQuantTile / q.w.group) : is_direct(q) ? 1 : 0;
    return std::int64_t{tiles} * isa_.tile_words + side;
  }

  void add(const QuantLinear& q, int row, int rows) {
    Part part;
    part.q = &q;
    part.row = row;
    part.rows = rows;
    part.tiles = tiles_of(q);
    part.direct = is_direct(q);
    part.panels = (rows + isa_.rows - 1) / isa_.rows;
    std::vector<Part>& parts = store().parts;
    part.same_x = !parts.empty() && row == 0 && rows == q.m() && same_words(*parts.back().q, q);
    if (!part.same_x) words_ += row_words(q) * rows;
    parts.push_back(part);
  }

  // Gate and up of an MLP have one input.
  static bool same_words(const QuantLinear& a, const QuantLinear& b) {
    return a.x.data == b.x.data && a.x.dtype == b.x.dtype && a.m() == b.m() &&
           (a.m() == 1 || a.x.stride == b.x.stride) && a.k() == b.k() && a.w.group == b.w.group &&
           a.w.code == b.w.code;
  }

  QuantPanel panel(const Part& part, int p) const {
    const int first = part.panel_row(p);
    QuantPanel a;
    a.rows = part.panel_row(p + 1) - first;
    a.words = part.packed + row_words(*part.q) * first;
    const std::ptrdiff_t rows = a.rows;
    std::uint32_t* behind = a.words + std::ptrdiff_t{part.tiles} * isa_.tile_words * rows;
    if (!isa_.integers) {
      a.scaled = part.direct ? behind : nullptr;
      return a;
    }
    a.scales = reinterpret_cast<float*>(behind);
    a.starts = reinterpret_cast<std::int32_t*>(a.scales + part.tiles * rows);
    return a;
  }

  void flush() {
    Store& s = store();
    if (s.parts.empty()) return;
    pack_all();
    plan();
    const auto n = static_cast<std::int64_t>(s.tasks.size());
    // Neighbours go to one thread, and each task fetches what the thread's next one begins with.
    const bool few_rows =
        std::all_of(s.parts.begin(), s.parts.end(), [](const Part& p) { return p.direct; });
    const std::int64_t grain =
        few_rows ? 1 : std::clamp<std::int64_t>(n / (24 * ctx_.threads()), 1, 32);
    ctx_.for_range_near(
        s.home_begins, grain, [&](std::int64_t begin, std::int64_t end, std::int64_t after) {
          const FlushDenormalsScope flush_denormals(isa_.flush_denormals);
          for (std::int64_t t = begin; t < end; ++t) {
            const std::int64_t next = t + 1 < end ? t + 1 : after;
            run(s.parts, s.tasks[static_cast<std::size_t>(t)],
                next == RangeFn::kNoChunk ? nullptr : &s.tasks[static_cast<std::size_t>(next)]);
          }
        });
    s.parts.clear();
    words_ = 0;
  }

  void pack_all() {
    Store& s = store();
    auto* to =
        s.packed.get<std::uint32_t>(static_cast<std::size_t>(std::max<std::int64_t>(words_, 1)));
    s.packs.clear();
    for (std::size_t i = 0; i < s.parts.size(); ++i) {
      Part& part = s.parts[i];
      if (part.same_x) {
        part.packed = s.parts[i - 1].packed;
        continue;
      }
      part.packed = to;
      to += row_words(*part.q) * part.rows;
      for (int p = 0; p < part.panels; ++p) s.packs.push_back({static_cast<int>(i), p});
    }
    const auto n = static_cast<std::int64_t>(s.packs.size());
    ctx_.for_range(n, words_ < kPackAlone ? n : 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const PanelTask& task = s.packs[static_cast<std::size_t>(i)];
        const Part& part = s.parts[static_cast<std::size_t>(task.part)];
        isa_.pack({part.q->x, part.row + part.panel_row(task.panel), part.q->w.code,
                   part.q->w.group, part.tiles, panel(part, task.panel)});
      }
    });
  }

  void plan() {
    Store& s = store();
    const int wanted = ctx_.threads() > 1 ? 6 * ctx_.threads() : 1;
    int columns = kBlockColumns;
    const auto tasks_of = [&](int width) {
      int count = 0;
      for (const Part& p : s.parts) count += p.direct ? 0 : (p.q->n() + width - 1) / width;
      return count;
    };
    while (columns > isa_.width && tasks_of(columns) < wanted) columns /= 2;
    s.tasks.clear();
    plan_direct();
    for (std::size_t i = 0; i < s.parts.size(); ++i) {
      const Part& part = s.parts[i];
      if (part.direct) continue;
      const int n = part.q->n();
      const int height = std::max(1, std::min(part.panels, kTaskRows / isa_.rows));
      for (int p = 0; p < part.panels; p += height) {
        for (int col = 0; col < n; col += columns) {
          s.tasks.push_back({static_cast<int>(i), p, std::min(height, part.panels - p), col,
                             std::min(columns, n - col)});
        }
      }
    }
    sort_by_home(s);
  }

  // Tasks whose weights lie on one node side by side, in their order; those without a home in equal
  // parts. Each task writes its own columns of y, so who does it is no part of the result.
  void sort_by_home(Store& s) const {
    const auto n = static_cast<std::int64_t>(s.tasks.size());
    s.home_begins.assign({0, n});
    if (ctx_.homes == nullptr || ctx_.homes->homes() < 2) return;
    const int homes = ctx_.homes->homes();
    std::vector<int> home(s.tasks.size());
    s.home_begins.assign(static_cast<std::size_t>(homes) + 1, 0);
    for (std::size_t t = 0; t < s.tasks.size(); ++t) {
      const Task& task = s.tasks[t];
      const QuantView& w = s.parts[static_cast<std::size_t>(task.part)].q->w;
      home[t] = ctx_.homes->home_of(w.row(task.col));
      if (home[t] < 0) home[t] = static_cast<int>(static_cast<std::int64_t>(t) * homes / n);
      ++s.home_begins[static_cast<std::size_t>(home[t]) + 1];
    }
    std::partial_sum(s.home_begins.begin(), s.home_begins.end(), s.home_begins.begin());
    std::vector<std::int64_t> next(s.home_begins.begin(), s.home_begins.end() - 1);
    s.near_tasks = s.tasks;
    for (std::size_t t = 0; t < home.size(); ++t) {
      s.tasks[static_cast<std::size_t>(next[static_cast<std::size_t>(home[t])]++)] =
          s.near_tasks[t];
    }
  }

  void plan_direct() {
    Store& s = store();
    const std::int64_t threads = ctx_.threads();
    std::int64_t left = 0;
    for (const Part& p : s.parts) left += p.direct ? bytes_of(p, p.q->n()) : 0;
    const std::int64_t least = std::min(kLeastDirectBytes, left / (kDirectTasks * threads));
    for (std::size_t i = 0; i < s.parts.size(); ++i) {
      const Part& part = s.parts[i];
      if (!part.direct) continue;
      const int n = part.q->n();
      for (int col = 0, width = 0; col < n; col += width) {
        const std::int64_t bytes =
            std::clamp(left / (kDirectShares * threads), least, kMostDirectBytes);
        width = std::min(direct_columns(part.q->w, bytes), n - col);
        left -= bytes_of(part, width);
        s.tasks.push_back({static_cast<int>(i), 0, part.panels, col, width});
      }
    }
  }
  static std::int64_t bytes_of(const Part& part, int columns) {
    return columns * static_cast<std::int64_t>(part.q->w.row_bytes());
  }
  // Whole vectors of outputs.
  static int direct_columns(const QuantView& w, std::int64_t bytes) {
    const std::int64_t lines = bytes / std::max<std::int64_t>(w.row_bytes(), 1);
    return static_cast<int>(std::clamp<std::int64_t>(lines / kQuantLanes * kQuantLanes, kQuantLanes,
                                                     std::max(w.rows, kQuantLanes)));
  }

  // What a task reads of W: tiles [tile, tile + tiles) of its columns; of few rows, what it begins
  // with.
  Touch region(const Part& part, const Task& task, int tile, int tiles) const {
    const QuantView& w = part.q->w;
    if (part.direct) return quant_direct_touch(w, task.col, std::min(task.cols, kQuantLanes));
    if (w.panels) {
      constexpr int kRows = QuantView::kPanelRows;
      return Touch::of(w.row(task.col) + tile * w.panel_bytes(), w.stride,
                       (task.cols + kRows - 1) / kRows, tiles * w.panel_bytes());
    }
    const std::ptrdiff_t tile_bytes = kQuantTile * w.bits() / 8;
    const std::ptrdiff_t begin = tile * tile_bytes;
    return Touch::of(w.row(task.col) + begin, w.stride, task.cols,
                     std::min(w.row_bytes() - begin, tiles * tile_bytes));
  }

  void run(const std::vector<Part>& parts, const Task& task, const Task* next) const {
    const Part& part = parts[static_cast<std::size_t>(task.part)];
    Touch touch;
    if (next != nullptr) {
      const Part& other = parts[static_cast<std::size_t>(next->part)];
      touch = region(other, *next, 0, other.direct ? other.tiles : block_tiles());
    }
    if (part.direct) {
      direct(part, task, touch);
    } else {
      multiply(part, task, touch);
    }
  }

  void direct(const Part& part, const Task& task, Touch touch) const {
    thread_local HugeScratch kept;
    QuantDirectJob job;
    job.a = panel(part, 0);
    job.w = &part.q->w;
    job.line = task.col;
    job.lines = task.cols;
    job.accumulate = part.q->accumulate;
    job.scales =
        kept.get<float>(static_cast<std::size_t>(std::max(1, part.groups())) * kQuantLanes);
    job.c = part.q->y.row(part.row) + task.col;
    job.c_stride = part.q->y.stride;
    job.touch = &touch;
    isa_.direct(job);
  }

  int block_tiles() const { return kBlockWords / isa_.tile_words; }

  void multiply(const Part& part, const Task& task, Touch next) const {
    thread_local HugeScratch kept_b, kept_scales, kept_sums;
    const QuantLinear& q = *part.q;
    const int pitch = (task.cols + isa_.width - 1) / isa_.width * isa_.width;
    const int group_tiles = kQuantTile / q.w.group;
    const auto pitch_words = static_cast<std::size_t>(pitch);
    auto* b = kept_b.get<std::uint32_t>(kBlockWords * pitch_words);
    auto* scales =
        kept_scales.get<float>(static_cast<std::size_t>(block_tiles() * group_tiles) * pitch_words);
    const int first = part.panel_row(task.panel);
    const int rows = part.panel_row(task.panel + task.panels) - first;
    const bool straight = !q.accumulate && task.cols % kQuantLanes == 0;
    float* sums = straight ? q.y.row(part.row + first) + task.col
                           : kept_sums.get<float>(static_cast<std::size_t>(rows) * pitch_words);
    const std::ptrdiff_t sums_stride = straight ? q.y.stride : pitch;
    bool load = false;
    const auto expands = [&](int p, int col) {
      return p == task.panel && part.tiles > 0 && q.w.panels && task.cols - col > kQuantLanes &&
             panel(part, p).rows <= isa_.fresh_rows;
    };
    // K may be 0: y is still written.
    for (int tile = 0; tile < part.tiles || !load; tile += block_tiles(), load = true) {
      const int tiles = std::min(block_tiles(), part.tiles - tile);
      const auto unpack_of = [&](int col) {
        QuantUnpackJob job;
        job.w = &q.w;
        job.line = task.col + col;
        job.lines = std::min(isa_.width, task.cols - col);
        job.width = width_of(job.lines);
        job.tile = tile;
        job.tiles = tiles;
        job.words = b + std::ptrdiff_t{tiles} * isa_.tile_words * col;
        job.scales = scales + std::ptrdiff_t{tiles} * group_tiles * col;
        return job;
      };
      for (int col = 0; col < task.cols; col += isa_.width) {
        QuantUnpackJob job = unpack_of(col);
        if (expands(task.panel, col)) job.words = nullptr;
        isa_.unpack(job);
      }
      const int left = part.tiles - tile - tiles;
      Touch touch =
          left > 0 ? region(part, task, tile + tiles, std::min(left, block_tiles())) : next;
      for (int p = task.panel; p < task.panel + task.panels; ++p) {
        QuantTileJob job;
        job.tiles = tiles;
        job.group = q.w.group;
        job.load = load;
        job.a = panel(part, p);
        advance(job.a, tile, group_tiles);
        job.c_stride = sums_stride;
        job.touch = &touch;
        float* c = sums + (part.panel_row(p) - first) * sums_stride;
        for (int col = 0; col < task.cols; col += isa_.width) {
          job.vecs = width_of(task.cols - col) / kQuantLanes;
          job.b = b + std::ptrdiff_t{tiles} * isa_.tile_words * col;
          job.b_scales = scales + std::ptrdiff_t{tiles} * group_tiles * col;
          job.c = c + col;
          const QuantUnpackJob fresh = unpack_of(col);
          job.fresh = expands(p, col) ? &fresh : nullptr;
          isa_.tile(job);
        }
      }
    }
    if (straight) return;
    isa_.store(sums, sums_stride, rows, task.cols, q.accumulate,
               q.y.row(part.row + first) + task.col, q.y.stride);
  }

  int width_of(int cols) const {
    return std::min(isa_.width, (cols + kQuantLanes - 1) / kQuantLanes * kQuantLanes);
  }

  // To where tile `tile` begins.
  void advance(QuantPanel& a, int tile, int group_tiles) const {
    a.words += std::ptrdiff_t{tile} * isa_.tile_words * a.rows;
    if (!isa_.integers) return;
    a.scales += std::ptrdiff_t{tile} * a.rows;
    a.starts += std::ptrdiff_t{tile} * group_tiles * a.rows;
  }

  const QuantIsa& isa_;
  const Context& ctx_;
  std::int64_t words_ = 0;
};

// Of 16 rows, side by side; of rows that there are not the last one's, behind K zeros.
void pack_scales(const PackQuant& job, int block) {
  const QuantView &from = job.from, &to = job.to;
  const int line = block * kQuantLanes, lines = std::min(kQuantLanes, from.rows - line);
  const int groups = static_cast<int>(to.scale_stride / kQuantLanes);
  auto* scales = const_cast<Bf16*>(static_cast<const Bf16*>(to.scales)) + block * to.scale_stride;
  for (int g = 0; g < groups; ++g) {
    for (int r = 0; r < kQuantLanes; ++r) {
      const int row = line + std::min(r, lines - 1);
      scales[g * kQuantLanes + r] =
          g < from.groups() ? static_cast<const Bf16*>(from.scales)[row * from.scale_stride + g]
                            : Bf16{};
    }
  }
}

}  // namespace

void run_quant_linear(const QuantIsa& isa, const Context& ctx,
                      std::span<const QuantLinear> problems) {
  Run(isa, ctx).all(problems);
}

void run_pack_quant(const Context& ctx, std::span<const PackQuant> jobs,
                    void (*codes)(const PackQuant& job, int block)) {
  constexpr int kRows = QuantView::kPanelRows;
  std::vector<std::pair<const PackQuant*, int>> blocks;
  for (const PackQuant& job : jobs) {
    for (int b = 0; b * kRows < job.from.rows; ++b) blocks.emplace_back(&job, b);
  }
  const auto n = static_cast<std::int64_t>(blocks.size());
  ctx.for_range(n, 8, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const auto& [job, block] = blocks[static_cast<std::size_t>(i)];
      codes(*job, block);
      if (job->from.code != QuantCode::kE4m3) pack_scales(*job, block);
    }
  });
}

}  // namespace cachalot::cpu
#endif
