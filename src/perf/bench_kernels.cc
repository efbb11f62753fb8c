#include "perf/bench_kernels.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <thread>

#include "base/error.h"
#include "base/rng.h"
#include "kernels/gemm.h"
#include "perf/peaks.h"
#include "perf/peers.h"

namespace cachalot::perf {

namespace {

struct Shape {
  const char* name;
  Precision precision;
  int m, n, k;
  bool trans_a, trans_b;
  bool b_bf16;   // b in memory
  int problems;  // of this shape, each with its own operands
  bool memory;   // bound by reading b: GB/s, not GFLOP/s
  bool peers;
};

constexpr Precision kF = Precision::kF32;
constexpr Precision kH = Precision::kBF16;

// linear: y = x W^T; dgrad: dx = dy W; wgrad: dW = dy^T x. Weights of training are floats.
constexpr Shape kShapes[] = {
    {"square 2048", kF, 2048, 2048, 2048, false, true, false, 1, false, true},
    {"square 2048", kH, 2048, 2048, 2048, false, true, true, 1, false, true},
    {"linear 2048x1408x512", kF, 2048, 1408, 512, false, true, false, 1, false, true},
    {"linear 2048x256x256", kH, 2048, 256, 256, false, true, false, 1, false, false},
    {"linear 2048x8192x256", kH, 2048, 8192, 256, false, true, false, 1, false, false},
    {"linear 2048x1408x512", kH, 2048, 1408, 512, false, true, false, 1, false, false},
    {"dgrad 2048x512x1408", kH, 2048, 512, 1408, false, false, false, 1, false, false},
    {"wgrad 1408x512x2048", kH, 1408, 512, 2048, true, false, false, 1, false, false},
    {"wgrad 8192x256x2048", kH, 8192, 256, 2048, true, false, false, 1, false, false},
    {"experts 64 x 32x512x2048", kH, 32, 512, 2048, false, true, true, 64, false, false},
    {"experts 64 x 32x2048x512", kH, 32, 2048, 512, false, true, true, 64, false, false},
    {"experts 64 x 32x512x2048", kF, 32, 512, 2048, false, true, false, 64, false, false},
    {"decode 1 row 4096x4096 x 16", kH, 1, 4096, 4096, false, true, true, 16, true, false},
    {"decode 4 rows 4096x4096 x 16", kH, 4, 4096, 4096, false, true, true, 16, true, false},
    {"decode 1 row 4096x4096 x 8", kF, 1, 4096, 4096, false, true, false, 8, true, false},
};

using Clock = std::chrono::steady_clock;

double seconds(const std::function<void()>& f) {
  const auto begin = Clock::now();
  f();
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

double median(std::vector<double> x) {
  std::sort(x.begin(), x.end());
  return x[x.size() / 2];
}

// Operands and results of one shape.
struct Operands {
  Shape shape;
  std::vector<Mat<float>> a, b, c;
  std::vector<Mat<Bf16>> half;
  std::vector<Gemm> problems;

  explicit Operands(const Shape& s) : shape(s) {
    for (int i = 0; i < s.problems; ++i) {
      a.push_back(filled(s.trans_a ? s.k : s.m, s.trans_a ? s.m : s.k, 2 * i));
      c.emplace_back(s.m, s.n);
      Mat<float> w = filled(s.trans_b ? s.n : s.k, s.trans_b ? s.k : s.n, 2 * i + 1);
      if (s.b_bf16) {
        half.emplace_back(w.rows(), w.cols());
        for (std::size_t j = 0; j < w.size(); ++j) half.back().data()[j] = to_bf16(w.data()[j]);
      } else {
        b.push_back(std::move(w));
      }
    }
    for (std::size_t i = 0; i < a.size(); ++i) {
      const MatRef w = s.b_bf16 ? MatRef(half[i].cview()) : MatRef(b[i].cview());
      problems.push_back({a[i].cview(), w, c[i].view(), s.trans_a, s.trans_b, false});
    }
  }
  // Cheap numbers in (-1, 1) that bf16 holds exactly, so that every contestant multiplies the same.
  static Mat<float> filled(int rows, int cols, int seed) {
    Mat<float> m(rows, cols);
    std::uint32_t state = 12345u + static_cast<std::uint32_t>(seed);
    for (float& x : m.span()) {
      state = state * 1664525u + 1013904223u;
      x = (static_cast<float>(state >> 25) - 63.5f) / 64.0f;
    }
    return m;
  }
  float at(const MatRef& m, int i, int j) const {
    const std::ptrdiff_t x = i * m.stride + j;
    return m.dtype == DType::kBF16 ? to_float(static_cast<const Bf16*>(m.data)[x])
                                   : static_cast<const float*>(m.data)[x];
  }
  // Sampled elements against their exact sum; |error| <= (k + 1) u sum |a b| for any order.
  void check(const std::string& who) const {
    const Rng rng(99);
    for (std::uint64_t s = 0; s < 48; ++s) {
      const Gemm& g = problems[rng.below(3 * s, problems.size())];
      const int i = static_cast<int>(rng.below(3 * s + 1, static_cast<std::uint64_t>(g.m())));
      const int j = static_cast<int>(rng.below(3 * s + 2, static_cast<std::uint64_t>(g.n())));
      double sum = 0;
      double size = 0;
      for (int k = 0; k < g.k(); ++k) {
        const double x = at(g.a, g.trans_a ? k : i, g.trans_a ? i : k);
        const double y = at(g.b, g.trans_b ? j : k, g.trans_b ? k : j);
        sum += x * y;
        size += std::abs(x * y);
      }
      const double error = std::abs(sum - static_cast<double>(g.c.at(i, j)));
      if (!(error <= (g.k() + 1) * 0x1p-24 * size)) {
        throw Error(Code::kNumeric,
                    cat("bench: ", who, " is wrong in ", shape.name, " at [", i, ", ", j,
                        "]: ", g.c.at(i, j), " instead of ", sum, "; its speed means nothing"));
      }
    }
  }
  void clear() {
    for (Mat<float>& m : c) m.zero();
  }
  double flops() const { return 2.0 * shape.m * shape.n * shape.k * shape.problems; }
  double bytes() const {
    return static_cast<double>(shape.n) * shape.k * shape.problems * (shape.b_bf16 ? 2 : 4);
  }
};

struct Contestant {
  std::string name;
  std::function<void()> run;
  int repeats = 1;
  bool foreign = false;  // its threads may spin on: let them fall asleep
  std::vector<double> times;
};

class Bench {
 public:
  Bench(const runtime::Runtime& runtime, const KernelBenchOptions& options)
      : ctx_(runtime.context()), options_(options) {}

  KernelReport run(const std::function<void(const std::string&)>& progress) {
    for (const Shape& shape : kShapes) {
      const std::string name = shape.name;
      if (name.find(options_.filter) == std::string::npos) continue;
      progress(name + (shape.precision == kH ? " bf16" : " f32"));
      report_.cases.push_back(one(shape));
    }
    if (fma_.empty()) measure_peaks();
    if (reads_.empty()) reads_.push_back(reader().gbps(ctx_));
    report_.fma_gflops = median(fma_);
    report_.vdpbf16ps_gflops = median(bf16_);
    report_.read_gbps = median(reads_);
    std::sort(report_.notes.begin(), report_.notes.end());
    report_.notes.erase(std::unique(report_.notes.begin(), report_.notes.end()),
                        report_.notes.end());
    return std::move(report_);
  }

 private:
  void measure_peaks() {
    fma_.push_back(fma_gflops(ctx_));
    bf16_.push_back(bf16_gflops(ctx_));
  }
  const ReadProbe& reader() {
    if (!reader_) reader_ = std::make_unique<ReadProbe>();
    return *reader_;
  }

  CaseResult one(const Shape& shape) {
    Operands ops(shape);
    std::vector<Contestant> contestants;
    contestants.push_back(
        {"cachalot", [&] { gemm(ctx_, shape.precision, ops.problems); }, 1, false, {}});
    if (shape.peers) {
      Mat<float> w;  // peers take floats; one-off, so that both copies need not stay
      MatView<const float> weights;
      if (shape.b_bf16) {
        w.resize(ops.half[0].rows(), ops.half[0].cols());
        for (std::size_t i = 0; i < w.size(); ++i) w.data()[i] = to_float(ops.half[0].data()[i]);
        weights = w.cview();
        ops.b.push_back(std::move(w));
        weights = ops.b.back().cview();
      } else {
        weights = ops.b[0].cview();
      }
      const PeerProduct product{ops.a[0].cview(), weights, ops.c[0].view(), shape.precision,
                                ctx_.threads()};
      for (Peer& p : make_peers(product, report_.notes)) {
        contestants.push_back({std::move(p.name), std::move(p.run), 1, true, {}});
      }
    }
    for (Contestant& c : contestants) {  // right first, and warm
      ops.clear();
      c.run();
      ops.check(c.name);
      const double once = seconds(c.run);
      c.repeats = std::clamp(static_cast<int>(0.02 / std::max(once, 1e-6)), 1, 1000);
    }
    const std::size_t first_fma = fma_.size();
    const std::size_t first_read = reads_.size();
    for (int turn = 0; turn < options_.turns; ++turn) {
      for (Contestant& c : contestants) {
        if (c.name == "cachalot") {
          measure_peaks();
          if (shape.memory) reads_.push_back(reader().gbps(ctx_));
        }
        c.times.push_back(seconds([&] {
                            for (int i = 0; i < c.repeats; ++i) c.run();
                          }) /
                          c.repeats);
        if (c.foreign) std::this_thread::sleep_for(std::chrono::milliseconds(60));
      }
    }
    return result(ops, contestants, first_fma, first_read);
  }

  static std::vector<double> since(const std::vector<double>& x, std::size_t begin) {
    return {x.begin() + static_cast<std::ptrdiff_t>(begin), x.end()};
  }

  CaseResult result(const Operands& ops, const std::vector<Contestant>& contestants,
                    std::size_t first_fma, std::size_t first_read) const {
    const Shape& shape = ops.shape;
    const double work = (shape.memory ? ops.bytes() : ops.flops()) * 1e-9;
    CaseResult r;
    r.name = shape.name;
    r.precision = shape.precision == kH ? "bf16" : "f32";
    r.unit = shape.memory ? "gbps" : "gflops";
    r.value = work / median(contestants[0].times);
    const double fma = median(since(fma_, first_fma));
    const double pairs = median(since(bf16_, first_fma));
    if (shape.memory) {
      r.ceiling = median(since(reads_, first_read));
    } else {
      r.ceiling = shape.precision == kH ? std::max(fma, pairs) : fma;
    }
    if (r.ceiling > 0) r.fraction = r.value / r.ceiling;
    if (!shape.memory && shape.precision == kH && pairs > 0) r.vdpbf16ps = r.value / pairs;
    for (std::size_t i = 1; i < contestants.size(); ++i) {
      r.peers.push_back({contestants[i].name, work / median(contestants[i].times)});
    }
    return r;
  }

  const Context& ctx_;
  KernelBenchOptions options_;
  KernelReport report_;
  std::unique_ptr<ReadProbe> reader_;
  std::vector<double> fma_, bf16_, reads_;
};

}  // namespace

KernelReport bench_kernels(const runtime::Runtime& runtime, const KernelBenchOptions& options,
                           const std::function<void(const std::string&)>& progress) {
  return Bench(runtime, options).run(progress);
}

}  // namespace cachalot::perf
