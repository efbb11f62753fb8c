// cachalot bench comm: what ranks reach together: sums of gradients, rows sent to one another.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <functional>

#include "base/error.h"
#include "cli/command.h"
#include "cli/output.h"
#include "cli/started_ranks.h"
#include "runtime/runtime.h"

namespace cachalot::cli {

namespace {

using comm::Collectives;

struct Options {
  std::vector<double> mib{1, 16, 256};
  int turns = 11;
};

struct Measured {
  std::string name;
  std::size_t bytes = 0;  // of each rank's operand
  double seconds = 0;
  double moved = 0;  // bytes that each rank has to send, at least
};

// Operands of one size, and whether the operations do what they say.
class Case {
 public:
  Case(Collectives& ranks, Device* device, std::size_t bytes)
      : ranks_(ranks), device_(device), size_(ranks.size()) {
    const MemoryScope scope(device);
    // Whole rows for every rank.
    rows_ = std::max(
        1, static_cast<int>(bytes / (kCols * sizeof(float)) / static_cast<std::size_t>(size_)));
    from_.resize(rows_ * size_, kCols);
    to_.resize(rows_ * size_, kCols);
    part_.resize(rows_, kCols);
    counts_.assign(static_cast<std::size_t>(size_), rows_);
    fill();
  }

  std::size_t bytes() const { return from_.bytes(); }

  std::vector<Measured> measure(int turns) {
    check();
    const double share = static_cast<double>(size_ - 1) / size_;
    const auto all = static_cast<double>(bytes());
    std::vector<Measured> out;
    const auto add = [&](const char* name, double moved, const std::function<void()>& run) {
      out.push_back({name, bytes(), time(turns, run), moved});
    };
    add("all_reduce", 2 * share * all, [&] { ranks_.all_reduce(from_.span()); });
    add("all_gather", share * all, [&] { ranks_.all_gather<float>(part_.span(), to_.span()); });
    add("reduce_scatter", share * all,
        [&] { ranks_.reduce_scatter<float>(from_.span(), part_.span()); });
    add("all_to_all", share * all, [&] { exchange(); });
    add("broadcast", all, [&] { ranks_.broadcast(to_.span(), 0); });
    return out;
  }

 private:
  static constexpr int kCols = 256;

  // Small whole numbers, which add exactly: row r of rank p has p + r % 7.
  float value(int rank, int row) const { return static_cast<float>(rank + row % 7); }
  void fill() {
    const MemoryScope host(nullptr);
    Mat<float> x(from_.rows(), kCols);
    for (int i = 0; i < x.rows(); ++i) std::fill_n(x.row(i), kCols, value(ranks_.rank(), i));
    upload<float>(x.span(), from_);
    upload<float>(std::span<const float>(x.span()).first(part_.size()), part_);
  }
  void exchange() { ranks_.all_to_all<float>({from_.cview(), counts_, to_.view(), counts_}); }

  void expect(const Mat<float>& m, const char* what, const std::function<float(int)>& want) {
    const MemoryScope host(nullptr);
    Mat<float> got(m.rows(), m.cols());
    download<float>(m, got.span());
    for (int i = 0; i < got.rows(); ++i) {
      for (int j = 0; j < kCols; ++j) {
        if (got.at(i, j) == want(i)) continue;
        throw Error(Code::kInternal,
                    cat(what, " between ", size_, " ranks by ", ranks_.library(), ": row ", i,
                        " is ", got.at(i, j), " instead of ", want(i)));
      }
    }
  }
  void check() {
    const int me = ranks_.rank();
    exchange();  // row i came from rank i / rows_, as its row of this rank's part
    expect(to_, "all_to_all", [&](int i) { return value(i / rows_, me * rows_ + i % rows_); });
    ranks_.all_gather<float>(part_.span(), to_.span());
    expect(to_, "all_gather", [&](int i) { return value(i / rows_, i % rows_); });
    const auto sum = [&](int row) {
      float s = 0;
      for (int r = 0; r < size_; ++r) s += value(r, row);
      return s;
    };
    ranks_.reduce_scatter<float>(from_.span(), part_.span());
    expect(part_, "reduce_scatter", [&](int i) { return sum(me * rows_ + i); });
    ranks_.all_reduce(from_.span());
    expect(from_, "all_reduce", sum);
    ranks_.broadcast(to_.span(), size_ - 1);
    expect(to_, "broadcast", [&](int i) { return value(i / rows_, i % rows_); });
    fill();
  }

  // The median over turns of the slowest rank's time, an operation of several behind one another.
  double time(int turns, const std::function<void()>& run) {
    constexpr int kEach = 4;
    std::vector<double> seconds;
    for (int t = 0; t <= turns; ++t) {
      ranks_.meet();
      const auto begin = std::chrono::steady_clock::now();
      for (int i = 0; i < kEach; ++i) run();
      if (device_ != nullptr) device_->wait();
      const double own =
          std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() / kEach;
      std::vector<double> all(static_cast<std::size_t>(size_), 0.0);
      all[static_cast<std::size_t>(ranks_.rank())] = own;
      ranks_.sum_numbers(all);
      if (t > 0) seconds.push_back(*std::max_element(all.begin(), all.end()));
    }
    std::nth_element(seconds.begin(), seconds.begin() + turns / 2, seconds.end());
    return seconds[static_cast<std::size_t>(turns / 2)];
  }

  Collectives& ranks_;
  Device* device_;
  int size_, rows_ = 0;
  Mat<float> from_, to_, part_;
  std::vector<int> counts_;
};

void print(const Globals& globals, const Collectives& ranks, const std::vector<Measured>& all) {
  if (globals.json) {
    Json list = Json::array();
    for (const Measured& m : all) {
      list.push_back({{"name", m.name},
                      {"bytes", m.bytes},
                      {"seconds", m.seconds},
                      {"gbps", 1e-9 * m.moved / m.seconds}});
    }
    return print_json({{"library", ranks.library()}, {"ranks", ranks.size()}, {"cases", list}});
  }
  print_line(fmt::format("{} ranks, {}", ranks.size(), ranks.library()));
  print_line(fmt::format("{:<16} {:>10} {:>10} {:>22}", "", "MiB", "ms", "GB/s out of each rank"));
  for (const Measured& m : all) {
    print_line(fmt::format("{:<16} {:>10.2f} {:>10.3f} {:>22.1f}", m.name,
                           static_cast<double>(m.bytes) / (1 << 20), 1e3 * m.seconds,
                           1e-9 * m.moved / m.seconds));
  }
}

void run(const Options& o, const Globals& globals) {
  StartedRanks started;
  started.run([&] {
    const runtime::Runtime rt({.threads = globals.threads,
                               .cpu = {},
                               .pin = {},
                               .on_device = true,
                               .device = started.number_here()});
    Device* device = rt.context().device;
    std::unique_ptr<Collectives> ranks = started.collectives(device);
    if (ranks == nullptr) {
      if (device == nullptr) {
        throw Error(Code::kUsage,
                    "one process on a CPU has nobody to send to: start several ranks (mpirun -n 2 "
                    "cachalot bench comm), or take a GPU (--device cuda)");
      }
      ranks = comm::nccl(comm::new_nccl_id(), 0, 1, *device);
    }
    std::vector<Measured> all;
    for (const double mib : o.mib) {
      Case c(*ranks, device, static_cast<std::size_t>(mib * (1 << 20)));
      const auto some = c.measure(o.turns);
      all.insert(all.end(), some.begin(), some.end());
    }
    if (started.first()) print(globals, *ranks, all);
  });
}

}  // namespace

void add_bench_comm(CLI::App& bench, Globals& globals) {
  CLI::App* command = add_command(
      bench, globals, "comm",
      "What the ranks that mpirun started reach together: sums, pieces, rows to one another");
  auto o = std::make_shared<Options>();
  command->add_option("--mib", o->mib, "Sizes of each rank's operand, separated by commas")
      ->delimiter(',')
      ->check(CLI::Range(0.001, 65536.0))
      ->type_name("MIB,...");
  command->add_option("--turns", o->turns, "Medians of so many")
      ->check(CLI::Range(1, 1000))
      ->type_name("N");
  on_run(command, globals, o, run);
}

}  // namespace cachalot::cli
