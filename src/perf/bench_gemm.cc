// Matrix products of training and decoding, and of other libraries.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/rng.h"
#include "kernels/gemm.h"
#include "perf/bench_cases.h"
#include "perf/bench_fill.h"
#include "perf/peaks.h"
#include "perf/peers.h"

namespace cachalot::perf {

namespace {

struct Shape {
  const char* name;
  Precision precision;
  int m, n, k;
  bool trans_a, trans_b;
  bool b_bf16;          // b in memory
  int problems = 1;     // of this shape, each with its own operands
  bool memory = false;  // bound by reading b
  bool peers = false;
  bool a_bf16 = false;  // a in memory, as the peers are given it
  bool packed = false;  // b packed before, outside the time
};

constexpr Precision kF = Precision::kF32;
constexpr Precision kH = Precision::kBF16;

// linear: y = x W^T; dgrad: dx = dy W; wgrad: dW = dy^T x. Weights of training are floats.
constexpr Shape kShapes[] = {
    {"square 2048", kF, 2048, 2048, 2048, false, true, false, 1, false, true},
    {"square 2048", kH, 2048, 2048, 2048, false, true, true, 1, false, true, true},
    {"square 2048, packed weights", kH, 2048, 2048, 2048, false, true, true, 1, false, true, true,
     true},
    {"square 2048, float activations", kH, 2048, 2048, 2048, false, true, true},
    {"linear 2048x1408x512", kF, 2048, 1408, 512, false, true, false, 1, false, true},
    {"linear 2048x256x256", kH, 2048, 256, 256, false, true, false},
    {"linear 2048x8192x256", kH, 2048, 8192, 256, false, true, false},
    {"linear 2048x1408x512", kH, 2048, 1408, 512, false, true, false},
    {"dgrad 2048x512x1408", kH, 2048, 512, 1408, false, false, false},
    {"wgrad 1408x512x2048", kH, 1408, 512, 2048, true, false, false},
    {"wgrad 8192x256x2048", kH, 8192, 256, 2048, true, false, false},
    {"experts 64 x 32x512x2048", kH, 32, 512, 2048, false, true, true, 64},
    {"experts 64 x 32x2048x512", kH, 32, 2048, 512, false, true, true, 64},
    {"experts 64 x 32x512x2048, packed weights", kH, 32, 512, 2048, false, true, true, 64, false,
     false, true, true},
    {"experts 64 x 32x2048x512, packed weights", kH, 32, 2048, 512, false, true, true, 64, false,
     false, true, true},
    {"experts 64 x 32x512x2048, float weights", kH, 32, 512, 2048, false, true, false, 64},
    {"experts 64 x 32x512x2048", kF, 32, 512, 2048, false, true, false, 64},
    {"experts dgrad 64 x 32x2048x512", kH, 32, 2048, 512, false, false, false, 64},
    {"experts wgrad 64 x 512x2048x32", kH, 512, 2048, 32, true, false, false, 64},
    {"experts 16 x 512x256x512", kH, 512, 256, 512, false, true, false, 16},
    {"decode 1 row 4096x4096 x 16", kH, 1, 4096, 4096, false, true, true, 16, true},
    {"decode 4 rows 4096x4096 x 16", kH, 4, 4096, 4096, false, true, true, 16, true},
    {"decode 1 row 4096x4096 x 8", kF, 1, 4096, 4096, false, true, false, 8, true},
};

// Operands and results of one shape.
struct Operands {
  Shape shape;
  std::vector<Mat<float>> a, b, c;
  std::vector<Mat<Bf16>> half, a_half;
  std::vector<PackedB> packed;
  std::vector<Gemm> problems;

  explicit Operands(const Shape& s) : shape(s) {
    for (int i = 0; i < s.problems; ++i) {
      a.push_back(filled(s.trans_a ? s.k : s.m, s.trans_a ? s.m : s.k, 2 * i));
      if (s.a_bf16) a_half.push_back(rounded(a.back()));
      c.emplace_back(s.m, s.n);
      Mat<float> w = filled(s.trans_b ? s.n : s.k, s.trans_b ? s.k : s.n, 2 * i + 1);
      if (s.b_bf16) half.push_back(rounded(w));
      if (!s.b_bf16 || s.peers) b.push_back(std::move(w));  // peers take floats
    }
    for (std::size_t i = 0; i < a.size(); ++i) {
      const MatRef w = s.b_bf16 ? MatRef(half[i].cview()) : MatRef(b[i].cview());
      const MatRef x = s.a_bf16 ? MatRef(a_half[i].cview()) : MatRef(a[i].cview());
      problems.push_back({x, w, c[i].view(), s.trans_a, s.trans_b, false});
    }
  }
  void pack(const Context& ctx) {
    packed.resize(problems.size());
    std::vector<PackB> jobs;
    for (std::size_t i = 0; i < problems.size(); ++i) {
      jobs.push_back({problems[i].b, shape.trans_b, &packed[i]});
      problems[i].packed = &packed[i];
    }
    pack_b(ctx, shape.precision, jobs);
  }
  static Mat<Bf16> rounded(const Mat<float>& m) {
    Mat<Bf16> half(m.rows(), m.cols());
    for (std::size_t j = 0; j < m.size(); ++j) half.data()[j] = to_bf16(m.data()[j]);
    return half;
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
};

void add_peers(const BenchEnvironment& env, Operands& ops, std::vector<Contestant>& contestants) {
  PeerProduct product{ops.a[0].cview(), ops.b[0].cview(), ops.c[0].view(), ops.shape.precision,
                      env.ctx.threads()};
  for (Peer& p : make_peers(product, env.notes)) {
    contestants.push_back({std::move(p.name), std::move(p.run)});
  }
  if (ops.shape.precision == kF) return;
  // A library without bf16 products for this machine is at its best in floats.
  product.precision = kF;
  for (Peer& p : make_peers(product, env.notes)) {
    contestants.push_back({p.name + "_f32", std::move(p.run)});
  }
}

ReadyCase prepare(const Shape& shape, const BenchEnvironment& env) {
  const auto ops = std::make_shared<Operands>(shape);
  if (shape.packed) ops->pack(env.ctx);
  ReadyCase ready;
  ready.contestants.push_back({"cachalot", [&env_ctx = env.ctx, ops] {
                                 gemm(env_ctx, ops->shape.precision, ops->problems);
                               }});
  if (shape.peers) add_peers(env, *ops, ready.contestants);
  for (const Contestant& c : ready.contestants) {
    ops->clear();
    c.run();
    ops->check(c.name);
  }
  if (shape.memory) {
    ready.ceiling = [&ctx = env.ctx, reader = std::make_shared<ReadProbe>()] {
      return Ceilings{reader->gbps(ctx), 0};
    };
  } else {
    ready.ceiling = register_peak(env.ctx, shape.precision);
  }
  return ready;
}

double bytes_of(const Shape& s) {
  const double b = (s.b_bf16 ? 2.0 : 4.0) * s.n * s.k;
  return s.problems * (s.memory ? b : b + (s.a_bf16 ? 2.0 : 4.0) * s.m * s.k + 4.0 * s.m * s.n);
}

}  // namespace

std::vector<BenchCase> gemm_cases() {
  std::vector<BenchCase> cases;
  for (const Shape& s : kShapes) {
    BenchCase c;
    c.group = "gemm";
    c.name = s.name;
    c.precision = s.precision == kH ? "bf16" : "f32";
    c.memory = s.memory;
    c.flops = 2.0 * s.m * s.n * s.k * s.problems;
    c.bytes = bytes_of(s);
    c.prepare = [&s](const BenchEnvironment& env) { return prepare(s, env); };
    cases.push_back(std::move(c));
  }
  return cases;
}

}  // namespace cachalot::perf
