// Products with weights in 8 and 4 bits: few rows beside the machine's read ceiling, many rows
// beside its peak and the same product with bf16 weights; and how long making such weights takes.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/rng.h"
#include "kernels/gemm.h"
#include "kernels/quant_linear.h"
#include "kernels/quantize_groups.h"
#include "kernels/table.h"
#include "numeric/group_quant.h"
#include "perf/bench_cases.h"
#include "perf/bench_fill.h"
#include "perf/peaks.h"

namespace cachalot::perf {

namespace {

constexpr QuantActivations kHalf = QuantActivations::kBf16, kBytes = QuantActivations::kInt8;

// A kind of weights, by the name of its precision.
struct Kind {
  const char* name;
  QuantCode code;
  int group;
  QuantActivations activations;
};
constexpr Kind kKinds[] = {{"fp8", QuantCode::kE4m3, 128, kHalf},
                           {"int8", QuantCode::kInt8, 128, kHalf},
                           {"int4", QuantCode::kInt4, 64, kHalf},
                           {"w8a8", QuantCode::kInt8, 128, kBytes},
                           {"w4a8", QuantCode::kInt4, 64, kBytes}};

struct Shape {
  const char* name;
  int m, n, k, problems;
  bool memory;  // bound by reading w
};
constexpr Shape kShapes[] = {
    {"decode 1 row 4096x4096 x 32", 1, 4096, 4096, 32, true},
    {"decode 2 rows 4096x4096 x 32", 2, 4096, 4096, 32, true},
    {"decode 4 rows 4096x4096 x 32", 4, 4096, 4096, 32, true},
    {"decode 8 rows 4096x4096 x 32", 8, 4096, 4096, 32, true},
    {"decode 1 row 768x2048 x 256", 1, 768, 2048, 256, true},
    {"decode 1 row 2048x768 x 256", 1, 2048, 768, 256, true},
    {"linear 512x2048x2048", 512, 2048, 2048, 1, false},
    {"linear 512x4096x7168", 512, 4096, 7168, 1, false},
    {"experts 64 x 48x768x2048", 48, 768, 2048, 64, false},
    {"experts 64 x 48x2048x768", 48, 2048, 768, 64, false},
};

// Random codes: every one is a weight that a file may hold (but for the NaN of E4M3).
struct Operands {
  Shape shape;
  Kind kind;
  std::vector<Mat<float>> x, y;
  std::vector<Mat<std::uint8_t>> codes;
  std::vector<Mat<float>> floats;
  std::vector<Mat<Bf16>> halves, plain;
  std::vector<QuantLinear> problems, packed;
  std::vector<Mat<std::uint8_t>> panels;
  std::vector<Mat<Bf16>> panel_scales;
  std::vector<Gemm> bf16;

  Operands(const Shape& s, const Kind& k) : shape(s), kind(k) {
    const Rng rng(17);
    for (int i = 0; i < s.problems; ++i) {
      QuantView w;
      w.code = k.code;
      w.rows = s.n;
      w.cols = s.k;
      w.group = k.group;
      w.stride = w.row_bytes();
      w.scale_stride = w.groups();
      Mat<std::uint8_t>& c = codes.emplace_back(s.n, static_cast<int>(w.stride));
      std::uint64_t state = rng.bits(static_cast<std::uint64_t>(i)) | 1;
      for (std::uint8_t& b : c.span()) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        b = static_cast<std::uint8_t>(state >> 56);
        if (k.code == QuantCode::kE4m3 && (b & 0x7F) == 0x7F) b = 0x81;
      }
      w.codes = c.data();
      // Powers of two, so that the same weights are exact in bf16.
      floats.emplace_back(w.scale_rows(), w.groups());
      halves.emplace_back(w.scale_rows(), w.groups());
      for (std::size_t j = 0; j < floats.back().size(); ++j) {
        floats.back().data()[j] = j % 3 == 0 ? 0.25f : 0.5f;
        halves.back().data()[j] = to_bf16(floats.back().data()[j]);
      }
      w.scales = k.code == QuantCode::kE4m3 ? static_cast<const void*>(floats.back().data())
                                            : static_cast<const void*>(halves.back().data());
      x.push_back(filled(s.m, s.k, i));
      y.emplace_back(s.m, s.n);
      problems.push_back({x.back().cview(), w, y.back().view(), false});
    }
    if (s.memory) return;
    for (QuantLinear& p : problems) {
      Mat<Bf16>& w = plain.emplace_back(s.n, s.k);
      for (int i = 0; i < s.n; ++i) {
        for (int j = 0; j < s.k; ++j) {
          w.at(i, j) = to_bf16(numeric::decode_code(k.code, p.w.row(i), j) * p.w.scale_at(i, j));
        }
      }
      bf16.push_back(linear(p.x, w.cview(), p.y));
    }
  }
};

// The same problems with weights in panels, as they are laid out at load.
void lay_out(const Context& ctx, Operands& ops) {
  for (const QuantLinear& p : ops.problems) {
    QuantView to = panels_of(p.w);
    to.codes = ops.panels.emplace_back(1, static_cast<int>(to.code_span())).data();
    if (to.scales == nullptr) {
      to.scales =
          ops.panel_scales.emplace_back(1, static_cast<int>(to.scale_span() / sizeof(Bf16))).data();
    }
    const PackQuant job{p.w, to};
    pack_quant(ctx, std::span<const PackQuant>(&job, 1));
    ops.packed.push_back(p);
    ops.packed.back().w = to;
  }
}

// Sampled rows of problems against the reference, bit for bit.
void check(const Operands& ops) {
  const Rng rng(97);
  for (std::uint64_t s = 0; s < 4; ++s) {
    QuantLinear p = ops.problems[rng.below(3 * s, ops.problems.size())];
    const int row = static_cast<int>(rng.below(3 * s + 1, static_cast<std::uint64_t>(p.m())));
    const int most = std::min(p.n(), 300);
    const int col =
        static_cast<int>(rng.below(3 * s + 2, static_cast<std::uint64_t>(p.n() - most + 1)));
    Mat<float> want(1, most);
    const float* got = p.y.row(row) + col;
    p.x = p.x.sub_rows(row, 1);
    p.w = p.w.sub_rows(col, most);
    p.y = want.view();
    quant_linear_ref(Context{}, ops.kind.activations, std::span<const QuantLinear>(&p, 1));
    for (int j = 0; j < most; ++j) {
      if (got[j] == want.at(0, j)) continue;
      throw Error(Code::kNumeric, cat("bench: ", ops.shape.name, " ", ops.kind.name,
                                      " is wrong at [", row, ", ", col + j, "]: ", got[j],
                                      " instead of ", want.at(0, j), "; its speed means nothing"));
    }
  }
}

ReadyCase prepare(const Shape& shape, const Kind& kind, const BenchEnvironment& env) {
  const auto ops = std::make_shared<Operands>(shape, kind);
  const Context& ctx = env.ctx;
  ReadyCase ready;
  ready.contestants.push_back(
      {"cachalot", [&ctx, ops] { quant_linear(ctx, ops->kind.activations, ops->problems); }});
  ready.contestants[0].run();
  check(*ops);
  if (quant_panels_are_fast(ctx)) {
    lay_out(ctx, *ops);
    ready.contestants.push_back({"cachalot_packed", [&ctx, ops] {
                                   quant_linear(ctx, ops->kind.activations, ops->packed);
                                 }});
    ready.contestants[1].run();
    check(*ops);
  }
  if (shape.memory) {
    ready.ceiling = [&ctx, reader = std::make_shared<ReadProbe>()] {
      return Ceilings{reader->gbps(ctx), 0};
    };
    return ready;
  }
  ready.contestants.push_back(
      {"cachalot_bf16", [&ctx, ops] { gemm(ctx, Precision::kBF16, ops->bf16); }});
  ready.ceiling = register_peak(ctx, Precision::kBF16);
  return ready;
}

// Floats to integers, beside the definition. It tries scales: ten in 4 bits and two in 8, each
// twice, with 13 operations per number. Six of them are in double, where a vector holds half as
// many, so the peak of floats is out of reach.
constexpr int kRows = 1024, kCols = 2048;
constexpr double fits(int bits) { return bits == 4 ? 20 : 4; }
constexpr double kOperations = 13;

struct Made {
  Mat<std::uint8_t> codes;
  Mat<Bf16> scales;
  QuantizeGroups job;

  Made(const Mat<float>& x, int bits, int group) : job{x.cview(), bits, group, {}, {}} {
    codes.resize(kRows, job.row_bytes());
    scales.resize(kRows, job.groups());
    job.codes = codes.view();
    job.scales = scales.view();
  }
};

ReadyCase prepare_making(int bits, int group, const BenchEnvironment& env) {
  const Context& ctx = env.ctx;
  const auto x = std::make_shared<Mat<float>>(filled(kRows, kCols, 1));
  const auto got = std::make_shared<Made>(*x, bits, group);
  const auto want = std::make_shared<Made>(*x, bits, group);
  const Context defined{&kReferenceTable, ctx.pool};
  ReadyCase ready;
  ready.contestants.push_back({"cachalot", [&ctx, x, got] { quantize_groups(ctx, got->job); }});
  ready.contestants.push_back(
      {"definition", [defined, x, want] { quantize_groups(defined, want->job); }});
  for (const Contestant& c : ready.contestants) c.run();
  if (!std::ranges::equal(got->codes.span(), want->codes.span()) ||
      !std::ranges::equal(got->scales.span(), want->scales.span(), {}, &Bf16::bits, &Bf16::bits)) {
    throw Error(Code::kNumeric,
                "bench: quantize_groups differs from its definition; its speed means nothing");
  }
  ready.ceiling = register_peak(ctx, Precision::kF32);
  return ready;
}

// Bytes of w per element, scales included.
double width_of(const Kind& k) {
  if (k.code == QuantCode::kE4m3) return 1.0 + 4.0 / (128 * 128);
  return (k.code == QuantCode::kInt4 ? 0.5 : 1.0) + 2.0 / k.group;
}

}  // namespace

std::vector<BenchCase> quant_cases() {
  std::vector<BenchCase> cases;
  for (const Shape& s : kShapes) {
    for (const Kind& k : kKinds) {
      BenchCase c;
      c.group = "quant_linear";
      c.name = s.name;
      c.precision = k.name;
      c.memory = s.memory;
      c.flops = 2.0 * s.m * s.n * s.k * s.problems;
      c.bytes = s.problems * (width_of(k) * s.n * s.k + (s.memory ? 0 : 4.0 * s.m * (s.k + s.n)));
      c.prepare = [&s, &k](const BenchEnvironment& env) { return prepare(s, k, env); };
      cases.push_back(std::move(c));
    }
  }
  for (const Kind& k : kKinds) {
    if (k.code == QuantCode::kE4m3 || k.activations == kBytes) continue;
    const int bits = k.code == QuantCode::kInt4 ? 4 : 8, group = bits == 4 ? 32 : 128;
    BenchCase c;
    c.group = "quantize_groups";
    c.name = cat("1024x2048 in groups of ", group);
    c.precision = k.name;
    c.flops = 1.0 * kRows * kCols * kOperations * fits(bits);
    c.bytes = 1.0 * kRows * kCols * (4 + width_of({k.name, k.code, group, k.activations}));
    c.prepare = [bits, group](const BenchEnvironment& env) {
      return prepare_making(bits, group, env);
    };
    cases.push_back(std::move(c));
  }
  return cases;
}

}  // namespace cachalot::perf
