// What memory bounds: the norm, SwiGLU, cross entropy, the optimiser, moving rows to experts and
// back. The ceiling of each is a plain pass with as many arrays read and written, of the same size,
// on the same threads.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "kernels/table.h"
#include "perf/bench_cases.h"
#include "perf/bench_fill.h"
#include "perf/peaks.h"

namespace cachalot::perf {

namespace {

constexpr int kRows = 4096, kCols = 2048;  // 32 MiB per matrix: past the caches of one core
constexpr double kMatrix = 4.0 * kRows * kCols;
constexpr int kPick = 8;  // experts per token
constexpr int kExperts = 256;

// Operands of one case: matrices x, y, z, u, v, and what goes beside them.
struct Data {
  std::vector<Mat<float>> m;
  std::vector<float> weight, rstd, dweight;
  Mat<float> cos, sin, few;  // few: [T, kPick]
  std::vector<std::int32_t> ids, argmax;
  Mat<std::int32_t> slot;  // [kRows / kPick, kPick]
  std::vector<double> loss;
  std::vector<Bf16> mean16, var16;
  double total = 0;

  Data(int matrices, int rows, int cols) {
    for (int i = 0; i < matrices; ++i) m.push_back(filled(rows, cols, i));
    const auto n = static_cast<std::size_t>(rows);
    weight = filled_vec(static_cast<std::size_t>(cols), 10);
    dweight.resize(static_cast<std::size_t>(cols));
    rstd.assign(n, 1.0f);
    cos = Mat<float>(rows, 32);  // a rotation: what it turns again and again keeps its size
    sin = Mat<float>(rows, 32);
    std::fill_n(cos.data(), cos.size(), 0.6f);
    std::fill_n(sin.data(), sin.size(), 0.8f);
    few = filled(rows, kPick, 13);
    loss.resize(n);
    argmax.resize(n);
    slot = Mat<std::int32_t>(rows / kPick, kPick);
    for (int t = 0; t < rows; ++t) {
      // 797 is prime to every power of two: each row once, none beside its neighbour.
      ids.push_back(static_cast<std::int32_t>((std::int64_t{t} * 797) % rows));
      if (t < rows / kPick * kPick) slot.data()[t] = ids.back();
    }
  }
  // Everything an op may have written.
  std::vector<std::span<const float>> results() const {
    std::vector<std::span<const float>> all{dweight, few.span()};
    for (const Mat<float>& x : m) all.push_back(x.span());
    return all;
  }
};

struct MemoryCase {
  const char* name;
  double bytes;  // read and written once
  int matrices, rows, cols;
  struct {
    int reads, writes;
    bool in_place;
    double bytes;  // of an array
  } pass;
  void (*run)(const Context&, Data&);
};

void norm(const Context& ctx, Data& d) {
  rms_norm(ctx, {d.m[0].cview(), d.weight, 1e-6f, d.m[1].view(), d.rstd});
}
void norm_backward(const Context& ctx, Data& d) {
  rms_norm_backward(
      ctx, {d.m[0].cview(), d.weight, d.rstd, d.m[1].cview(), d.m[2].view(), false, d.dweight});
}
void rotate(const Context& ctx, Data& d) {  // 64 of 192 columns, 10 heads
  rope(ctx, {d.m[0].view(), 10, 192, 128, d.cos.cview(), d.sin.cview(), false});
}
void gate(const Context& ctx, Data& d) {
  swiglu(ctx, {d.m[0].cview(), d.m[1].cview(), d.m[2].view()});
}
void gate_backward(const Context& ctx, Data& d) {
  swiglu_backward(ctx,
                  {d.m[0].cview(), d.m[1].cview(), d.m[2].cview(), d.m[3].view(), d.m[4].view()});
}
void look_up(const Context& ctx, Data& d) {
  embedding(ctx, {d.m[0].cview(), d.ids, d.m[1].view()});
}
void look_up_backward(const Context& ctx, Data& d) {
  embedding_backward(ctx, {d.ids, d.m[0].cview(), d.m[1].view()});
}
void drop(const Context& ctx, Data& d) {
  dropout(ctx, {{0.2, 1, 2, 3}, d.m[0].cview(), d.m[1].view()});
}
void squares(const Context& ctx, Data& d) { d.total = sum_squares(ctx, d.m[0].span()); }
void entropy(const Context& ctx, Data& d) {
  cross_entropy(ctx, {d.m[0].view(), d.ids, d.loss, d.argmax, true, 1});
}
void gather(const Context& ctx, Data& d) {
  gather_rows(ctx, GatherRows<float>{d.m[0].cview(), d.ids, d.m[1].view()});
}
void scatter(const Context& ctx, Data& d) {
  combine(ctx, {d.m[0].cview(), d.slot.cview(), d.few.cview().sub_rows(0, d.slot.rows()),
                d.m[1].view().sub_rows(0, d.slot.rows()), false});
}
void scatter_backward(const Context& ctx, Data& d) {
  const int tokens = d.slot.rows();
  combine_backward(ctx, {d.m[2].cview().sub_rows(0, tokens), d.m[0].cview(), d.slot.cview(),
                         d.few.cview().sub_rows(0, tokens), d.m[1].view(),
                         d.few.view().sub_rows(tokens, tokens)});
}
// Second moments are never negative: those of matrix 3 are squares here.
void optimise(const Context& ctx, Data& d) {
  if (d.total == 0) {
    for (float& x : d.m[3].span()) x *= x;
    d.total = 1;
  }
  adamw(ctx, {{}, 5, 1, d.m[0].span(), d.m[1].span(), d.m[2].span(), d.m[3].span()});
}
void optimise_bf16(const Context& ctx, Data& d) {
  if (d.total == 0) {
    for (const float x : d.m[0].span()) d.mean16.push_back(to_bf16(x));
    for (const float x : d.m[0].span()) d.var16.push_back(to_bf16(x * x));
    d.total = 1;
  }
  adamw(ctx, AdamW<float, Bf16>{{}, 5, 1, d.m[0].span(), d.m[1].span(), d.mean16, d.var16});
}
void average(const Context& ctx, Data& d) {
  weight_average(ctx, {0.999, d.m[0].span(), d.m[1].span()});
}
void choose(const Context& ctx, Data& d) {
  const RouteConfig config{kExperts, kPick, 8, 4, Scoring::kSigmoid, TopkMethod::kNoauxTc,
                           true,     2.5};
  static Mat<std::int32_t> index;
  index.resize(d.m[0].rows(), kPick);
  route(ctx, {config, d.m[0].cview(), {}, d.m[1].view(), index.view(), d.few.view()});
}
void balance(const Context& ctx, Data& d) {
  if (d.total == 0) {
    for (float& x : d.m[0].span()) x = std::abs(x);  // scores are positive
  }
  d.total = balance_loss(ctx, {d.m[0].cview(), 16, kPick, 1, d.m[1].view()});
}

constexpr MemoryCase kCases[] = {
    {"rms_norm", 2 * kMatrix, 2, kRows, kCols, {1, 1, false, kMatrix}, norm},
    {"rms_norm_backward", 3 * kMatrix, 3, kRows, kCols, {2, 1, false, kMatrix}, norm_backward},
    {"swiglu", 3 * kMatrix, 3, kRows, kCols, {2, 1, false, kMatrix}, gate},
    {"swiglu_backward", 5 * kMatrix, 5, kRows, kCols, {3, 2, false, kMatrix}, gate_backward},
    {"rope 64 of 192 columns",
     2 * kMatrix * 640 / kCols,
     1,
     kRows,
     kCols,
     {1, 1, true, kMatrix},
     rotate},
    {"embedding", 2 * kMatrix, 2, kRows, kCols, {1, 1, false, kMatrix}, look_up},
    {"embedding_backward", 3 * kMatrix, 2, kRows, kCols, {2, 1, true, kMatrix}, look_up_backward},
    {"dropout", 2 * kMatrix, 2, kRows, kCols, {1, 1, false, kMatrix}, drop},
    {"sum_squares", kMatrix, 1, kRows, kCols, {1, 0, false, kMatrix}, squares},
    {"cross_entropy vocab 8192", 2 * kMatrix, 1, 1024, 8192, {1, 1, true, kMatrix}, entropy},
    {"cross_entropy vocab 129280",
     8.0 * 64 * 129280,
     1,
     64,
     129280,
     {1, 1, true, kMatrix},
     entropy},
    {"adamw", 7 * kMatrix, 4, kRows, kCols, {4, 3, true, kMatrix}, optimise},
    {"adamw, moments in bf16", 5 * kMatrix, 2, kRows, kCols, {4, 3, true, kMatrix}, optimise_bf16},
    {"weight_average", 3 * kMatrix, 2, kRows, kCols, {2, 1, true, kMatrix}, average},
    {"gather_rows", 2 * kMatrix, 2, kRows, kCols, {1, 1, false, kMatrix}, gather},
    {"combine 8 to 1", 1.125 * kMatrix, 2, kRows, kCols, {8, 1, false, kMatrix / 8}, scatter},
    {"combine_backward 1 to 8",
     2.125 * kMatrix,
     3,
     kRows,
     kCols,
     {1, 1, false, kMatrix},
     scatter_backward},
    {"route 8 of 256",
     2.0 * 4 * kRows* kExperts,
     2,
     kRows,
     kExperts,
     {1, 1, false, 4.0 * kRows* kExperts},
     choose},
    {"balance_loss 256 experts",
     2.0 * 4 * kRows* kExperts,
     2,
     kRows,
     kExperts,
     {1, 1, false, 4.0 * kRows* kExperts},
     balance},
};

// Sizes are fixed, so one bound does for all: sums of a few thousand terms of about 1.
void check(const MemoryCase& c, const Data& got, const Data& want) {
  const auto a = got.results(), b = want.results();
  for (std::size_t i = 0; i < a.size(); ++i) {
    for (std::size_t j = 0; j < a[i].size(); ++j) {
      const double error = std::abs(double{a[i][j]} - double{b[i][j]});
      if (error <= 1e-4 * (1 + std::abs(double{b[i][j]}))) continue;
      throw Error(Code::kNumeric, cat("bench: ", c.name, " gives ", a[i][j], " instead of ",
                                      b[i][j], "; its speed means nothing"));
    }
  }
}

ReadyCase prepare(const MemoryCase& c, const BenchEnvironment& env) {
  const auto data = std::make_shared<Data>(c.matrices, c.rows, c.cols);
  const Context& ctx = env.ctx;
  {
    Data want(c.matrices, c.rows, c.cols);
    c.run({&kReferenceTable, ctx.pool}, want);
    c.run(ctx, *data);
    check(c, *data, want);
  }
  ReadyCase ready;
  ready.contestants.push_back({"cachalot", [&ctx, &c, data] { c.run(ctx, *data); }});
  const auto probe = std::make_shared<StreamProbe>(c.pass.reads, c.pass.writes, c.pass.in_place,
                                                   static_cast<std::size_t>(c.pass.bytes));
  ready.ceiling = [&ctx, probe] { return Ceilings{probe->gbps(ctx), 0}; };
  return ready;
}

}  // namespace

std::vector<BenchCase> memory_cases() {
  std::vector<BenchCase> cases;
  for (const MemoryCase& m : kCases) {
    BenchCase c;
    c.group = "memory";
    c.name = m.name;
    c.precision = "f32";
    c.memory = true;
    c.bytes = m.bytes;
    c.prepare = [&m](const BenchEnvironment& env) { return prepare(m, env); };
    cases.push_back(std::move(c));
  }
  return cases;
}

}  // namespace cachalot::perf
