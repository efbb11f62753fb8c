#include "kernels/cpu/gemm_driver.h"

#include "kernels/cpu/simd.h"

#ifdef CACHALOT_X86
#include <algorithm>
#include <vector>

#include "kernels/cpu/gemm_parts.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/threads_have.h"

namespace cachalot::cpu {

namespace {

constexpr int kPackPanels = 8;  // of a task that packs
// Parts, and tasks of them, that are planned at a time: room for these is there from the first call
// on, so that how rows fall on experts allocates nothing. What is more comes after the others.
constexpr std::size_t kMostParts = 1 << 10;
constexpr std::int64_t kMostTasks = 1 << 14;
constexpr std::size_t kCutTasks = 1 << 10;  // more, when the last ones are cut
// Below this much, waking the other threads costs more than packing here.
constexpr std::int64_t kPackAlone = 1 << 15;

// The same product of the codes themselves.
Gemm codes_of(const Fp8Gemm& g) {
  const auto ref = [](const Fp8View& m) {
    return MatRef(m.codes, DType::kF8E4M3, m.rows, m.cols, m.stride);
  };
  return {ref(g.a), ref(g.b), g.c, g.trans_a, g.trans_b, g.accumulate};
}

// Packs the panels of `tasks`; every thread takes some.
void pack_all(const GemmIsa& isa, const Context& ctx, std::span<const Part> parts,
              std::span<const PackTask> tasks, std::int64_t words) {
  const auto n = static_cast<std::int64_t>(tasks.size());
  const int nr = panel_columns(isa);
  ctx.for_range(n, words < kPackAlone ? n : 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const PackTask& task = tasks[static_cast<std::size_t>(i)];
      const Part& part = parts[static_cast<std::size_t>(task.part)];
      if (task.of_b) {
        const int col = task.panel * nr;
        pack_columns_of_b(isa, part, col, std::min(task.count * nr, part.g->n() - col), 0,
                          part.g->k(), task.to + col * part.steps);
        continue;
      }
      pack_panels_of_a(isa, part, task.panel, task.count, task.to);
    }
  });
}

void add_pack_tasks(int part, bool of_b, int panels, std::uint32_t* to,
                    std::vector<PackTask>& tasks) {
  for (int p = 0; p < panels; p += kPackPanels) {
    tasks.push_back({part, of_b, p, std::min(kPackPanels, panels - p), to});
  }
}

int panels_of_b(const GemmIsa& isa, const Part& part) {
  return (part.g->n() + panel_columns(isa) - 1) / panel_columns(isa);
}

// No fewer than a part's tasks, of products or of packing.
std::int64_t most_tasks(const GemmIsa& isa, const Part& part) {
  const int panels_b = panels_of_b(isa, part);
  const std::int64_t packs = part.panels / kPackPanels + panels_b / kPackPanels + 2;
  return std::max(packs, Plan::most_tasks(isa, part));
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
    for (const Fp8Gemm& g : problems) {
      if (g.c.empty()) continue;
      if (codes.size() == kMostParts) {  // parts point into it: it may not grow
        flush_parts();
        codes.clear();
      }
      codes.push_back(codes_of(g));
      add(codes.back(), &g);
    }
    flush_parts();
  }

 private:
  // Buffers of the calling thread, kept between calls.
  struct Store {
    Store() {
      constexpr auto kTasks = static_cast<std::size_t>(kMostTasks) + kCutTasks;
      parts.reserve(kMostParts);
      codes.reserve(kMostParts);
      packs.reserve(kTasks);
      tasks.reserve(kTasks);
      runs.reserve(kTasks + 1);
      packed.get<std::uint32_t>(kPackedWords);  // addresses only, until they are written to
    }
    std::vector<Part> parts;
    std::vector<PackTask> packs;
    std::vector<Task> tasks;
    std::vector<int> runs;  // first task of each run, and the end
    std::vector<Gemm> codes;
    HugeScratch packed;       // the panels of one task would fill the first TLB
    ThreadsHave task_memory;  // of the pool's threads
  };
  static Store& store() {
    thread_local Store kept;
    return kept;
  }

  void clear() {
    store().parts.clear();
    store().tasks.clear();
    words_ = 0;
    task_count_ = 0;
  }

  void add(const Gemm& g, const Fp8Gemm* scaled) {
    Part part;
    part.g = &g;
    part.scaled = scaled;
    part.direct = scaled == nullptr && (g.packed == nullptr || packed_direct()) &&
                  g.c_bf16.rows == 0 && isa_.direct != nullptr && g.m() <= isa_.direct_rows;
    part.kind = !bf16_ ? Steps::kFloat : part.direct ? direct_steps(g) : isa_.bf16;
    part.steps = part.words(g.k());
    part.rows = g.m();
    part.panels = (part.rows + isa_.max_rows - 1) / isa_.max_rows;
    if (g.packed != nullptr) part.b = g.packed->words.data();
    const std::int64_t tasks = most_tasks(isa_, part);
    if (store().parts.size() == kMostParts || task_count_ + tasks > kMostTasks) flush_parts();
    task_count_ += tasks;
    if (part.direct) {
      if (words_ > 0 && words_ + part.rows * part.steps > kPackedWords) {
        flush_parts();
        task_count_ = tasks;
      }
      words_ += part.rows * part.steps;
    }
    store().parts.push_back(part);
  }

  bool packed_direct() const {
    return isa_.direct_takes_packed && bf16_ && isa_.bf16 == Steps::kPair;
  }
  Steps direct_steps(const Gemm& g) const {
    if (g.packed != nullptr) return Steps::kPair;
    return isa_.direct_takes_pairs && g.b.dtype == DType::kBF16 ? Steps::kPair : Steps::kWide;
  }

  void flush_parts() {
    Store& s = store();
    if (s.parts.empty()) return;
    Plan{isa_, ctx_.threads()}.make(s.parts, words_, s.tasks);
    pack_shared();
    multiply_all();
    clear();
  }

  // Gate and up of an MLP have one input, and all experts have it where one token is decoded.
  static bool has_same_rows(const Part& before, const Part& part) {
    const MatRef &x = before.g->a, &y = part.g->a;
    const bool packed_alike = before.direct == part.direct && before.share_a == part.share_a &&
                              (part.direct || part.share_a) && before.kind == part.kind &&
                              before.scaled == nullptr && part.scaled == nullptr;
    return packed_alike && x.data == y.data && x.dtype == y.dtype && x.rows == y.rows &&
           x.cols == y.cols && before.g->trans_a == part.g->trans_a &&
           (part.rows == 1 || x.stride == y.stride);
  }

  void pack_shared() {
    Store& s = store();
    if (words_ == 0) return;
    auto* to = s.packed.get<std::uint32_t>(static_cast<std::size_t>(words_));
    s.packs.clear();
    for (std::size_t i = 0; i < s.parts.size(); ++i) {
      Part& part = s.parts[i];
      const auto index = static_cast<int>(i);
      if (i > 0 && has_same_rows(s.parts[i - 1], part)) {
        part.a = s.parts[i - 1].a;
      } else if (part.direct || part.share_a) {
        part.a = to;
        to += part.rows * part.steps;
        add_pack_tasks(index, false, part.panels, part.a, s.packs);
      }
      if (part.share_b) {
        add_pack_tasks(index, true, panels_of_b(isa_, part), to, s.packs);
        to += part.steps * padded_columns(isa_, part.g->n());
      }
    }
    pack_all(isa_, ctx_, s.parts, s.packs, words_);
    for (const PackTask& task : s.packs) {
      if (task.of_b) s.parts[static_cast<std::size_t>(task.part)].b = task.to;
    }
  }

  // Neighbours go to one thread, which fetches the next one's operands in time; towards the end a
  // thread takes fewer, so that all end together.
  void plan_runs() {
    Store& s = store();
    s.runs.assign(1, 0);
    const auto n = static_cast<int>(s.tasks.size());
    for (int begin = 0; begin < n; begin = s.runs.back()) {
      s.runs.push_back(begin + std::clamp((n - begin) / (6 * ctx_.threads()), 1, 8));
    }
  }

  void multiply_all() {
    plan_runs();
    store().task_memory.at_least(ctx_, kTaskBytes, reserve_task_memory);
    const Store& s = store();  // the caller's, for all threads
    const auto part_of = [&](const Task& t) {
      return s.parts.data() + static_cast<std::size_t>(t.part);
    };
    const auto first_of = [&](std::int64_t run) {
      return s.tasks.data() + s.runs[static_cast<std::size_t>(run)];
    };
    const auto runs = static_cast<std::int64_t>(s.runs.size()) - 1;
    ctx_.for_range(runs, 1, [&](std::int64_t run, std::int64_t end_run, std::int64_t after) {
      const FlushDenormalsScope flush(flush_);
      const Task* const end = first_of(end_run);
      for (const Task* task = first_of(run); task < end; ++task) {
        const Task* next = task + 1 < end               ? task + 1
                           : after != RangeFn::kNoChunk ? first_of(after)
                                                        : nullptr;
        if (part_of(*task)->direct) {
          direct_task(isa_, *part_of(*task), *task, next != nullptr ? part_of(*next) : nullptr,
                      next);
        } else {
          multiply_task(isa_, *part_of(*task), *task, next != nullptr ? part_of(*next) : nullptr,
                        next);
        }
      }
    });
  }

  const GemmIsa& isa_;
  const Context& ctx_;
  bool bf16_;
  bool flush_;
  std::int64_t words_ = 0;
  std::int64_t task_count_ = 0;  // at most, of the parts so far
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

void run_pack_b(const GemmIsa& isa, const Context& ctx, Precision precision,
                std::span<const PackB> jobs) {
  std::vector<Gemm> problems;
  std::vector<Part> parts;
  std::vector<PackTask> tasks;
  problems.reserve(jobs.size());  // parts point into it
  std::int64_t words = 0;
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    const PackB& job = jobs[i];
    problems.push_back({{}, job.b, {nullptr, 0, job.n(), 0}, false, job.trans_b, false});
    problems.back().a.cols = job.k();
    Part part;
    part.g = &problems.back();
    part.kind = precision == Precision::kBF16 ? isa.bf16 : Steps::kFloat;
    part.steps = part.words(job.k());
    parts.push_back(part);
    // [blocks of columns, words of each]
    job.out->words.resize(padded_columns(isa, job.n()) / isa.lanes,
                          static_cast<int>(part.steps) * isa.lanes);
    words += part.steps * padded_columns(isa, job.n());
    add_pack_tasks(static_cast<int>(i), true, panels_of_b(isa, part), job.out->words.data(), tasks);
  }
  pack_all(isa, ctx, parts, tasks, words);
}

}  // namespace cachalot::cpu
#endif
