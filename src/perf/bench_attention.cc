// Causal attention, forward and backward, and the absorbed form of decoding.
//
// FLOPs counted: half of the T x T block. Forward 2 products, backward 5 (the scores again, dP, dV,
// dQ, dK): 2 (D + V) and 2 (3 D + 2 V) per pair of query and key, D = N + R.
#include <cmath>

#include "base/error.h"
#include "base/rng.h"
#include "kernels/attention.h"
#include "kernels/latent_attention.h"
#include "kernels/latent_blocks.h"
#include "perf/bench_cases.h"
#include "perf/bench_fill.h"
#include "perf/peaks.h"

namespace cachalot::perf {

namespace {

constexpr AttentionDims kDims{8, 64, 32, 64};

struct Batch {
  std::vector<AttentionSpan> spans;
  Precision precision;
  Mat<float> q, kv, k_rope, out, lse, dout, dq, dkv, dk_rope;

  Batch(int sequences, int length, Precision p)
      : precision(p),
        q(filled(sequences * length, kDims.heads * (kDims.nope + kDims.rope), 1)),
        kv(filled(q.rows(), kDims.heads * (kDims.nope + kDims.value), 2)),
        k_rope(filled(q.rows(), kDims.rope, 3)),
        out(q.rows(), kDims.heads * kDims.value),
        lse(q.rows(), kDims.heads),
        dout(filled(q.rows(), kDims.heads * kDims.value, 4)),
        dq(q.rows(), q.cols()),
        dkv(kv.rows(), kv.cols()),
        dk_rope(q.rows(), kDims.rope) {
    for (int s = 0; s < sequences; ++s) {
      spans.push_back({s * length, length, s * length, length});
    }
  }
  float scale() const { return 1 / std::sqrt(static_cast<float>(kDims.nope + kDims.rope)); }
  Attention<float> forward() {
    return {q.cview(), kv.cview(), k_rope.cview(), spans,     kDims,
            scale(),   precision,  out.view(),     lse.view()};
  }
  AttentionBackward<float> backward() {
    return {q.cview(), kv.cview(), k_rope.cview(), spans,       kDims,
            scale(),   precision,  out.cview(),    lse.cview(), dout.cview(),
            dq.view(), dkv.view(), dk_rope.view()};
  }
};

// One row of one head, in double, from the definition.
struct Row {
  std::vector<double> out, dq;

  Row(const Batch& b, const AttentionSpan& span, int i, int h, bool backward)
      : out(kDims.value), dq(kDims.nope + kDims.rope) {
    const int width = kDims.nope + kDims.rope, row = span.q_begin + i;
    const auto key = [&](int j, int c) {
      return double{c < kDims.nope ? b.kv.cview().at(j, h * (kDims.nope + kDims.value) + c)
                                   : b.k_rope.cview().at(j, c - kDims.nope)};
    };
    const auto value = [&](int j, int c) {
      return double{b.kv.cview().at(j, h * (kDims.nope + kDims.value) + kDims.nope + c)};
    };
    const auto dout = [&](int c) { return double{b.dout.cview().at(row, h * kDims.value + c)}; };
    std::vector<double> p;
    double sum = 0;
    for (int j = span.kv_begin; j <= span.kv_begin + i; ++j) {
      double s = 0;
      for (int c = 0; c < width; ++c) s += double{b.q.cview().at(row, h * width + c)} * key(j, c);
      p.push_back(std::exp(double{b.scale()} * s));  // |s| stays below 100 here
      sum += p.back();
    }
    double delta = 0;
    for (int j = 0; j <= i; ++j) {
      p[static_cast<std::size_t>(j)] /= sum;
      for (int c = 0; c < kDims.value; ++c) {
        out[static_cast<std::size_t>(c)] +=
            p[static_cast<std::size_t>(j)] * value(span.kv_begin + j, c);
      }
    }
    if (!backward) return;
    for (int c = 0; c < kDims.value; ++c) delta += dout(c) * out[static_cast<std::size_t>(c)];
    for (int j = 0; j <= i; ++j) {
      double dp = 0;
      for (int c = 0; c < kDims.value; ++c) dp += dout(c) * value(span.kv_begin + j, c);
      const double ds = p[static_cast<std::size_t>(j)] * (dp - delta) * double{b.scale()};
      for (int c = 0; c < width; ++c)
        dq[static_cast<std::size_t>(c)] += ds * key(span.kv_begin + j, c);
    }
  }
};

// |got - want| against the size of the row: 2^-7 for rounded probabilities, 2^-16 for floats.
void require_row(const std::string& what, Precision precision, const float* got,
                 const std::vector<double>& want) {
  double size = 0, error = 0;
  for (std::size_t c = 0; c < want.size(); ++c) {
    size = std::max(size, std::abs(want[c]));
    error = std::max(error, std::abs(want[c] - double{got[c]}));
  }
  if (!(error <= (precision == Precision::kBF16 ? 0x1p-7 : 0x1p-16) * size)) {
    throw Error(Code::kNumeric,
                cat("bench: ", what, " is off by ", error, " in a row of values up to ", size,
                    "; its speed means nothing"));
  }
}

void check(const Batch& b, bool backward) {
  const Rng rng(7);
  for (std::uint64_t s = 0; s < 6; ++s) {
    const AttentionSpan& span = b.spans[rng.below(3 * s, b.spans.size())];
    const int i = static_cast<int>(rng.below(3 * s + 1, static_cast<std::uint64_t>(span.q_rows)));
    const int h = static_cast<int>(rng.below(3 * s + 2, static_cast<std::uint64_t>(kDims.heads)));
    const Row want(b, span, i, h, backward);
    const int row = span.q_begin + i;
    require_row("attention", b.precision, b.out.cview().row(row) + h * kDims.value, want.out);
    if (backward) {
      require_row("attention_backward", b.precision,
                  b.dq.cview().row(row) + h * (kDims.nope + kDims.rope), want.dq);
    }
  }
}

BenchCase attention_case(int sequences, int length, Precision precision, bool backward) {
  BenchCase c;
  c.group = "attention";
  c.name = cat(backward ? "backward " : "forward ", sequences, " x T ", length);
  c.precision = precision == Precision::kBF16 ? "bf16" : "f32";
  const double width = kDims.nope + kDims.rope, value = kDims.value;
  const double per_pair = backward ? 2 * (3 * width + 2 * value) : 2 * (width + value);
  c.flops = per_pair * kDims.heads * sequences * length * (length + 1.0) / 2;
  c.bytes = 4.0 * sequences * length * kDims.heads * (2 * width + 3 * value) * (backward ? 2 : 1);
  c.prepare = [=](const BenchEnvironment& env) {
    const auto batch = std::make_shared<Batch>(sequences, length, precision);
    const Context& ctx = env.ctx;
    attention(ctx, batch->forward());
    ReadyCase ready;
    ready.ceiling = register_peak(ctx, precision);
    if (backward) {
      ready.contestants.push_back(
          {"cachalot", [&ctx, batch] { attention_backward(ctx, batch->backward()); }});
    } else {
      ready.contestants.push_back(
          {"cachalot", [&ctx, batch] { attention(ctx, batch->forward()); }});
    }
    ready.contestants[0].run();
    check(*batch, backward);
    return ready;
  };
  return c;
}

// `queries` new rows of each of `sequences` over a cache of `rows` rows. Few heads: bound by
// reading it.
struct LatentCase {
  int sequences = 8, queries = 1, rows = 8192, heads = 16;
  LatentFormat format = LatentFormat::kBF16;
};

BenchCase latent_case(const LatentCase& shape) {
  constexpr int kLatent = 512, kRope = 64, kWidth = kLatent + kRope;
  constexpr auto kPrecision = Precision::kBF16;
  const LatentLayout layout{shape.format, kLatent, kRope};
  BenchCase c;
  c.group = "attention";
  const int heads = shape.heads, rows = shape.sequences * shape.queries;
  c.name = cat("absorbed ", shape.sequences, " x ", shape.queries, " queries, ", shape.rows,
               " rows, ", heads, " heads, ", name(shape.format), " cache");
  c.precision = "bf16";
  c.memory = heads * shape.queries <= 8;
  c.flops = 2.0 * (2 * kLatent + kRope) * rows * heads * (shape.rows - (shape.queries - 1) / 2.0);
  c.bytes =
      static_cast<double>(layout.row_bytes()) * shape.sequences * static_cast<double>(shape.rows);
  c.prepare = [=](const BenchEnvironment& env) {
    struct Data {
      Mat<float> q, out;
      std::vector<LatentBlocks> caches;
      std::vector<LatentAttention> problems;
    };
    const Context& ctx = env.ctx;
    const auto data = std::make_shared<Data>();
    data->q = filled(rows, heads * kWidth, 1);
    data->out = Mat<float>(rows, heads * kLatent);
    for (int s = 0; s < shape.sequences; ++s) {
      data->caches.emplace_back(ctx, layout, filled(shape.rows, kWidth, 2 + s).cview());
    }
    for (int s = 0; s < shape.sequences; ++s) {
      const int first = s * shape.queries;
      data->problems.push_back({data->q.cview().sub_rows(first, shape.queries),
                                data->caches[static_cast<std::size_t>(s)].rows(), heads, 0.02f,
                                data->out.view().sub_rows(first, shape.queries), kPrecision});
    }
    ReadyCase ready;
    ready.contestants.push_back(
        {"cachalot", [&ctx, data] { latent_attention(ctx, data->problems); }});
    if (heads * shape.queries <= 8) {
      ready.ceiling = [&ctx, reader = std::make_shared<ReadProbe>()] {
        return Ceilings{reader->gbps(ctx), 0};
      };
    } else {
      ready.ceiling = register_peak(ctx, kPrecision);
    }
    ready.contestants[0].run();
    // The last head of the last row, by itself, against the definition.
    Mat<float> want(1, kLatent);
    LatentAttention alone = data->problems.back();
    alone.q = alone.q.sub_rows(shape.queries - 1, 1).sub_cols((heads - 1) * kWidth, kWidth);
    alone.heads = 1;
    alone.out = want.view();
    latent_attention_ref(ctx, {&alone, 1});
    const std::vector<double> row(want.span().begin(), want.span().end());
    require_row("latent_attention", kPrecision,
                data->out.view().row(rows - 1) + (heads - 1) * kLatent, row);
    return ready;
  };
  return c;
}

}  // namespace

std::vector<BenchCase> attention_cases() {
  std::vector<BenchCase> cases;
  for (const Precision precision : {Precision::kBF16, Precision::kF32}) {
    for (const auto& [sequences, length] : {std::pair{8, 256}, {2, 1024}, {1, 4096}}) {
      for (const bool backward : {false, true}) {
        cases.push_back(attention_case(sequences, length, precision, backward));
      }
    }
  }
  for (const LatentFormat format : {LatentFormat::kBF16, LatentFormat::kFp8}) {
    for (const int heads : {4, 16, 128}) {
      cases.push_back(latent_case({.heads = heads, .format = format}));
    }
  }
  // One long sequence, alone and with drafts; a chunk of a prompt.
  cases.push_back(latent_case({.sequences = 1, .rows = 32768}));
  cases.push_back(latent_case({.sequences = 1, .queries = 4, .rows = 32768}));
  cases.push_back(latent_case({.sequences = 1, .queries = 256, .rows = 4096}));
  return cases;
}

}  // namespace cachalot::perf
