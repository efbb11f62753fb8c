// Block-scaled products beside the same ones in bf16, quantising and what it is fused with beside
// passes over as much memory.
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/rng.h"
#include "kernels/table.h"
#include "numeric/small_float.h"
#include "perf/bench_cases.h"
#include "perf/bench_fill.h"
#include "perf/peaks.h"

namespace cachalot::perf {

namespace {

using numeric::ScaleKind;

struct Shape {
  const char* name;
  int m, n, k;
  bool trans_a, trans_b;
  ScaleTile b;
  int problems = 1;
};

// linear: y = x W^T; dgrad: dx = dy W; wgrad: dW = dy^T x, both in tiles along the tokens.
constexpr Shape kShapes[] = {
    {"square 2048", 2048, 2048, 2048, false, true, ScaleTile::kBlock},
    {"linear 2048x8192x256", 2048, 8192, 256, false, true, ScaleTile::kBlock},
    {"linear 2048x1408x512", 2048, 1408, 512, false, true, ScaleTile::kBlock},
    {"dgrad 2048x512x1408", 2048, 512, 1408, false, false, ScaleTile::kBlock},
    {"wgrad 1408x512x2048", 1408, 512, 2048, true, false, ScaleTile::kColumn},
    {"wgrad 8192x256x2048", 8192, 256, 2048, true, false, ScaleTile::kColumn},
    {"experts 64 x 32x512x2048", 32, 512, 2048, false, true, ScaleTile::kBlock, 64},
    {"experts 64 x 32x2048x512", 32, 2048, 512, false, true, ScaleTile::kBlock, 64},
    {"experts 16 x 512x256x512", 512, 256, 512, false, true, ScaleTile::kBlock, 16},
};

// Operands in FP8, and the bf16 product of the same matrices: activations as floats, weights in
// bf16.
struct Operands {
  std::vector<Mat<float>> a, c;
  std::vector<Mat<Bf16>> b;
  std::vector<Fp8Mat> qa, qb;
  std::vector<Fp8Gemm> fp8;
  std::vector<Gemm> bf16;

  Operands(const Shape& s, const Context& ctx) {
    const auto count = static_cast<std::size_t>(s.problems);
    qa.resize(count);
    qb.resize(count);
    for (std::size_t i = 0; i < count; ++i) {
      const int seed = 2 * static_cast<int>(i);
      a.push_back(filled(s.trans_a ? s.k : s.m, s.trans_a ? s.m : s.k, seed));
      const Mat<float> w = filled(s.trans_b ? s.n : s.k, s.trans_b ? s.k : s.n, seed + 1);
      b.emplace_back(w.rows(), w.cols());
      for (std::size_t j = 0; j < w.size(); ++j) b[i].data()[j] = to_bf16(w.data()[j]);
      c.emplace_back(s.m, s.n);
      qa[i].resize(a[i].rows(), a[i].cols(), s.trans_a ? ScaleTile::kColumn : ScaleTile::kRow);
      qb[i].resize(w.rows(), w.cols(), s.b);
      quantize_fp8(ctx, {a[i].cview(), ScaleKind::kPow2, qa[i].out(), {}});
      quantize_fp8(ctx, {w.cview(), ScaleKind::kPow2, qb[i].out(), {}});
    }
    for (std::size_t i = 0; i < count; ++i) {
      fp8.push_back({qa[i].view(), qb[i].view(), c[i].view(), s.trans_a, s.trans_b, false});
      bf16.push_back({a[i].cview(), b[i].cview(), c[i].view(), s.trans_a, s.trans_b, false});
    }
  }
};

float value(const Fp8View& m, int i, int j) {
  return numeric::decode_e4m3(m.row(i)[j]) * m.scale_at(i, j);
}

// Sampled elements against their exact sums; |error| <= (k + 3) u sum |a b| for any order.
void check(const char* name, std::span<const Fp8Gemm> problems) {
  const Rng rng(98);
  for (std::uint64_t s = 0; s < 48; ++s) {
    const Fp8Gemm& g = problems[rng.below(3 * s, problems.size())];
    const int i = static_cast<int>(rng.below(3 * s + 1, static_cast<std::uint64_t>(g.m())));
    const int j = static_cast<int>(rng.below(3 * s + 2, static_cast<std::uint64_t>(g.n())));
    double sum = 0;
    double size = 0;
    for (int k = 0; k < g.k(); ++k) {  // powers of two: values are exact
      const double x = g.trans_a ? value(g.a, k, i) : value(g.a, i, k);
      const double y = g.trans_b ? value(g.b, j, k) : value(g.b, k, j);
      sum += x * y;
      size += std::abs(x * y);
    }
    if (std::abs(sum - double{g.c.at(i, j)}) <= (g.k() + 3) * 0x1p-24 * size) continue;
    throw Error(Code::kNumeric,
                cat("bench: the FP8 product is wrong in ", name, " at [", i, ", ", j,
                    "]: ", g.c.at(i, j), " instead of ", sum, "; its speed means nothing"));
  }
}

ReadyCase prepare_product(const Shape& shape, const BenchEnvironment& env) {
  const auto ops = std::make_shared<Operands>(shape, env.ctx);
  const Context& ctx = env.ctx;
  ReadyCase ready;
  ready.contestants.push_back({"cachalot", [&ctx, ops] { gemm_fp8(ctx, ops->fp8); }});
  ready.contestants.push_back(
      {"cachalot_bf16", [&ctx, ops] { gemm(ctx, Precision::kBF16, ops->bf16); }});
  ready.contestants[0].run();
  check(shape.name, ops->fp8);
  ready.ceiling = register_peak(ctx, Precision::kBF16);
  return ready;
}

constexpr int kRows = 4096, kCols = 2048;
constexpr std::size_t kElements = std::size_t{kRows} * kCols;

struct Data {
  std::vector<Mat<float>> m;
  std::vector<float> weight;
  Mat<Bf16> half;
  Fp8Mat rows, up, out, columns;
  Fp8Mat more_out[2], more_columns[2];

  explicit Data(const Context& ctx) {
    for (int i = 0; i < 3; ++i) m.push_back(filled(kRows, kCols, i));
    m.emplace_back(kRows, kCols);
    weight = filled_vec(kCols, 10);
    half.resize(kRows, kCols);
    rows.resize(kRows, kCols, ScaleTile::kRow);
    up.resize(kRows, kCols, ScaleTile::kRow);
    out.resize(kRows, kCols, ScaleTile::kRow);
    columns.resize(kRows, kCols, ScaleTile::kColumn);
    for (Fp8Mat& m : more_out) m.resize(kRows, kCols, ScaleTile::kRow);
    for (Fp8Mat& m : more_columns) m.resize(kRows, kCols, ScaleTile::kColumn);
    quantize_fp8(ctx, {m[0].cview(), ScaleKind::kPow2, rows.out(), {}});
    quantize_fp8(ctx, {m[1].cview(), ScaleKind::kPow2, up.out(), {}});
  }
};

// What a pass writes.
constexpr unsigned kOut = 1, kColumns = 2, kFloats = 4, kHalf = 8, kMoreOut = 16, kMoreColumns = 32;

// `one`: as it runs; `parts`: the same by the ops it is made of, or by the reference.
struct PassCase {
  const char* name;
  int reads, writes;  // bytes per element
  unsigned results;
  void (*one)(const Context&, Data&);
  void (*parts)(const Context&, Data&);
};

void quantize_as(const Context& ctx, Data& d, const Mat<float>& x, ScaleKind kind, bool columns,
                 bool rows) {
  QuantizeFp8 job{x.cview(), kind, columns ? d.columns.out() : d.out.out(), {}};
  if (columns && rows) job.also = d.out.out();
  quantize_fp8(ctx, job);
}
template <ScaleKind kKind, bool kColumns, bool kBoth>
void quantize(const Context& ctx, Data& d) {
  quantize_as(ctx, d, d.m[0], kKind, kColumns, kBoth);
}
template <ScaleKind kKind, bool kColumns, bool kBoth>
void quantize_reference(const Context& ctx, Data& d) {
  quantize_as({&kReferenceTable, ctx.pool}, d, d.m[0], kKind, kColumns, kBoth);
}
void requantize(const Context& ctx, Data& d) {
  requantize_fp8(ctx, {d.rows.view(), ScaleKind::kPow2, d.columns.out()});
}
void requantize_reference(const Context& ctx, Data& d) {
  requantize({&kReferenceTable, ctx.pool}, d);
}
void multiply_out(const Context& ctx, Data& d) {
  dequantize_fp8(ctx, {d.rows.view(), d.m[3].view(), {}});
}
void multiply_out_half(const Context& ctx, Data& d) {
  dequantize_fp8(ctx, {d.rows.view(), {}, d.half.view()});
}
void multiply_out_reference(const Context& ctx, Data& d) {
  dequantize_fp8({&kReferenceTable, ctx.pool}, {d.rows.view(), d.m[3].view(), d.half.view()});
}
void norm(const Context& ctx, Data& d) {
  rms_norm_fp8(ctx, {{d.m[0].cview(), d.weight, 1e-6f, {}, {}}, ScaleKind::kPow2, d.out.out()});
}
void norm_parts(const Context& ctx, Data& d) {
  rms_norm(ctx, RmsNorm<float>{d.m[0].cview(), d.weight, 1e-6f, d.m[3].view(), {}});
  quantize_as(ctx, d, d.m[3], ScaleKind::kPow2, false, false);
}
void gate(const Context& ctx, Data& d) {
  swiglu_fp8(ctx, SwigluFp8{d.m[0].cview(), d.m[1].cview(), {}, {}, ScaleKind::kPow2, d.out.out()});
}
void gate_parts(const Context& ctx, Data& d) {
  swiglu(ctx, {d.m[0].cview(), d.m[1].cview(), d.m[3].view()});
  quantize_as(ctx, d, d.m[3], ScaleKind::kPow2, false, false);
}
void gate_kept(const Context& ctx, Data& d) {
  swiglu_fp8(ctx, SwigluFp8{{}, {}, d.rows.view(), d.up.view(), ScaleKind::kPow2, d.columns.out()});
}
void gate_kept_parts(const Context& ctx, Data& d) {
  swiglu_fp8_ref(ctx, std::vector{SwigluFp8{
                          {}, {}, d.rows.view(), d.up.view(), ScaleKind::kPow2, d.columns.out()}});
}
SwigluFp8 gate_kept_job(Data& d) {
  SwigluFp8 a{d.m[0].cview(), d.m[1].cview(), {}, {}, ScaleKind::kPow2, d.out.out()};
  a.keep_gate = d.more_out[0].out();
  a.keep_up = d.more_out[1].out();
  return a;
}
void gate_and_keep(const Context& ctx, Data& d) { swiglu_fp8(ctx, gate_kept_job(d)); }
void gate_and_keep_parts(const Context& ctx, Data& d) {
  swiglu_fp8_ref(ctx, std::vector{gate_kept_job(d)});
}
SwigluBackwardFp8 gate_backward_job(Data& d) {
  SwigluBackwardFp8 a;
  a.gate = d.rows.view();
  a.up = d.up.view();
  a.dout = d.m[2].cview();
  a.dgate = d.more_out[0].out();
  a.dup = d.more_out[1].out();
  a.dgate_columns = d.more_columns[0].out();
  a.dup_columns = d.more_columns[1].out();
  a.hidden_columns = d.columns.out();
  return a;
}
void gate_backward(const Context& ctx, Data& d) { swiglu_backward_fp8(ctx, gate_backward_job(d)); }
void gate_backward_parts(const Context& ctx, Data& d) {
  swiglu_backward_fp8_ref(ctx, std::vector{gate_backward_job(d)});
}

constexpr ScaleKind kPow2 = ScaleKind::kPow2, kPlain = ScaleKind::kPlain;
constexpr PassCase kPasses[] = {
    {"quantize 1x128", 4, 1, kOut, quantize<kPow2, false, false>,
     quantize_reference<kPow2, false, false>},
    {"quantize 128x1", 4, 1, kColumns, quantize<kPow2, true, false>,
     quantize_reference<kPow2, true, false>},
    {"quantize both", 4, 2, kOut | kColumns, quantize<kPow2, true, true>,
     quantize_reference<kPow2, true, true>},
    {"quantize both, float scales", 4, 2, kOut | kColumns, quantize<kPlain, true, true>,
     quantize_reference<kPlain, true, true>},
    {"requantize to 128x1", 1, 1, kColumns, requantize, requantize_reference},
    {"dequantize to f32", 1, 4, kFloats, multiply_out, multiply_out_reference},
    {"dequantize to bf16", 1, 2, kHalf, multiply_out_half, multiply_out_reference},
    {"rms_norm to fp8", 4, 1, kOut, norm, norm_parts},
    {"swiglu to fp8", 8, 1, kOut, gate, gate_parts},
    {"swiglu from fp8 to 128x1", 2, 1, kColumns, gate_kept, gate_kept_parts},
    {"swiglu to fp8, inputs kept", 8, 3, kOut | kMoreOut, gate_and_keep, gate_and_keep_parts},
    {"swiglu_backward in fp8", 6, 5, kColumns | kMoreOut | kMoreColumns, gate_backward,
     gate_backward_parts},
};

bool same(const Fp8Mat& a, const Fp8Mat& b) {
  const Fp8View x = a.view(), y = b.view();
  const auto scales = static_cast<std::size_t>(scale_rows(x.tile, x.rows)) *
                      static_cast<std::size_t>(scale_cols(x.tile, x.cols));
  return std::memcmp(x.codes, y.codes, kElements) == 0 &&
         std::memcmp(x.scales, y.scales, scales * sizeof(float)) == 0;
}
template <class T>
bool same(const Mat<T>& a, const Mat<T>& b) {
  return std::memcmp(a.data(), b.data(), kElements * sizeof(T)) == 0;
}

bool same(const Fp8Mat (&a)[2], const Fp8Mat (&b)[2]) {
  return same(a[0], b[0]) && same(a[1], b[1]);
}

bool right(unsigned results, const Data& got, const Data& want) {
  return ((results & kOut) == 0 || same(got.out, want.out)) &&
         ((results & kColumns) == 0 || same(got.columns, want.columns)) &&
         ((results & kMoreOut) == 0 || same(got.more_out, want.more_out)) &&
         ((results & kMoreColumns) == 0 || same(got.more_columns, want.more_columns)) &&
         ((results & kFloats) == 0 || same(got.m[3], want.m[3])) &&
         ((results & kHalf) == 0 || same(got.half, want.half));
}

ReadyCase prepare_pass(const PassCase& c, const BenchEnvironment& env) {
  const Context& ctx = env.ctx;
  const auto data = std::make_shared<Data>(ctx);
  {
    Data want(ctx);
    c.parts(ctx, want);
    c.one(ctx, *data);
    if (!right(c.results, *data, want)) {
      throw Error(Code::kNumeric, cat("bench: ", c.name,
                                      " differs from what it is made of; its speed means nothing"));
    }
  }
  ReadyCase ready;
  ready.contestants.push_back({"cachalot", [&ctx, &c, data] { c.one(ctx, *data); }});
  const auto probe = std::make_shared<StreamProbe>(c.reads, c.writes, false, kElements);
  ready.ceiling = [&ctx, probe] { return Ceilings{probe->gbps(ctx), 0}; };
  return ready;
}

}  // namespace

std::vector<BenchCase> fp8_cases() {
  std::vector<BenchCase> cases;
  for (const Shape& s : kShapes) {
    BenchCase c;
    c.group = "gemm_fp8";
    c.name = s.name;
    c.precision = "fp8";
    c.flops = 2.0 * s.m * s.n * s.k * s.problems;
    c.bytes = s.problems * (1.0 * s.n * s.k + 1.0 * s.m * s.k + 4.0 * s.m * s.n);
    c.prepare = [&s](const BenchEnvironment& env) { return prepare_product(s, env); };
    cases.push_back(std::move(c));
  }
  for (const PassCase& p : kPasses) {
    BenchCase c;
    c.group = "fp8";
    c.name = p.name;
    c.precision = "fp8";
    c.memory = true;
    c.bytes = static_cast<double>(kElements) * (p.reads + p.writes);
    c.prepare = [&p](const BenchEnvironment& env) { return prepare_pass(p, env); };
    cases.push_back(std::move(c));
  }
  return cases;
}

}  // namespace cachalot::perf
