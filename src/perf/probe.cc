#include "perf/probe.h"

#include <algorithm>
#include <memory>

#include "base/rng.h"
#include "kernels/gemm.h"
#include "kernels/latent_attention.h"
#include "kernels/latent_blocks.h"
#include "kernels/quant_linear.h"
#include "perf/bench_fill.h"
#include "perf/peaks.h"

namespace cachalot::perf {

namespace {

constexpr int kInner = 2048, kOuter = 1024;  // of the probed matrices: K, N
constexpr std::size_t kProbeBytes = std::size_t{256} << 20;

// The weights stay the same while the rows change.
struct Weights {
  ProbeWeights kind;
  int group = 128;
  std::vector<Mat<float>> floats;
  std::vector<Mat<Bf16>> halves;
  std::vector<Mat<std::uint8_t>> codes;
  Mat<float> scales;
  Mat<Bf16> half_scales;
  std::vector<QuantView> views;

  explicit Weights(ProbeWeights k) : kind(k) {
    const std::size_t each = static_cast<std::size_t>(kInner) * kOuter;
    const std::size_t bytes = kind == ProbeWeights::kF32    ? 4 * each
                              : kind == ProbeWeights::kBf16 ? 2 * each
                              : kind == ProbeWeights::kInt4 ? each / 2
                                                            : each;
    for (std::size_t i = 0; i < kProbeBytes / bytes; ++i) add(static_cast<int>(i));
  }
  std::size_t size() const {
    return kind == ProbeWeights::kF32    ? floats.size()
           : kind == ProbeWeights::kBf16 ? halves.size()
                                         : views.size();
  }

 private:
  void add(int i) {
    if (kind == ProbeWeights::kF32) {
      floats.push_back(filled(kOuter, kInner, i));
      return;
    }
    if (kind == ProbeWeights::kBf16) {
      const Mat<float> w = filled(kOuter, kInner, i);
      Mat<Bf16>& half = halves.emplace_back(kOuter, kInner);
      for (std::size_t j = 0; j < w.size(); ++j) half.data()[j] = to_bf16(w.data()[j]);
      return;
    }
    QuantView w;
    w.code = kind == ProbeWeights::kFp8    ? QuantCode::kE4m3
             : kind == ProbeWeights::kInt8 ? QuantCode::kInt8
                                           : QuantCode::kInt4;
    if (kind == ProbeWeights::kInt4) group = 32;
    w.rows = kOuter;
    w.cols = kInner;
    w.group = group;
    w.stride = w.row_bytes();
    w.scale_stride = w.groups();
    Mat<std::uint8_t>& c = codes.emplace_back(kOuter, static_cast<int>(w.stride));
    std::uint64_t state = Rng(17).bits(static_cast<std::uint64_t>(i)) | 1;
    for (std::uint8_t& b : c.span()) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      b = static_cast<std::uint8_t>(state >> 56);
      if (w.code == QuantCode::kE4m3 && (b & 0x7F) == 0x7F) b = 0x81;  // its NaN
    }
    if (scales.size() == 0) {
      scales = Mat<float>(w.scale_rows(), w.groups());
      half_scales = Mat<Bf16>(w.scale_rows(), w.groups());
      std::fill(scales.span().begin(), scales.span().end(), 0.5f);
      std::fill(half_scales.span().begin(), half_scales.span().end(), to_bf16(0.5f));
    }
    w.codes = c.data();
    w.scales = w.code == QuantCode::kE4m3 ? static_cast<const void*>(scales.data())
                                          : static_cast<const void*>(half_scales.data());
    views.push_back(w);
  }
};

double timed(const std::function<void()>& run, double work, const CeilingProbe& ceiling,
             const TurnOptions& turns) {
  return measure({{"", run}}, work, ceiling, turns).front().value;
}

CeilingProbe peak_probe(const Context& ctx, bool bf16) {
  return [&ctx, bf16] {
    const double fma = fma_gflops(ctx);
    return Ceilings{bf16 ? std::max(fma, bf16_gflops(ctx)) : fma, 0};
  };
}

// As many matrices as give a run of some 5 ms, all of them where rows are few.
std::size_t problems_of(int rows, std::size_t all) {
  const double flops = 2.0 * rows * kInner * kOuter;
  return std::clamp<std::size_t>(static_cast<std::size_t>(4e9 / flops), 8, all);
}

}  // namespace

double read_gbps(const Context& ctx, int turns) {
  const ReadProbe probe;
  std::vector<double> all;
  probe.gbps(ctx);  // pages are there
  for (int i = 0; i < turns; ++i) all.push_back(probe.gbps(ctx));
  return median(all);
}

Peaks register_peaks(const Context& ctx, int turns) {
  std::vector<double> f32, bf16, int8;
  for (int i = 0; i < turns; ++i) {
    f32.push_back(fma_gflops(ctx));
    bf16.push_back(bf16_gflops(ctx));
    int8.push_back(int8_gops(ctx));
  }
  return {median(f32), median(bf16), median(int8)};
}

std::vector<double> product_gflops(const Context& ctx, ProbeWeights kind,
                                   const std::vector<int>& rows, const TurnOptions& turns) {
  const Weights weights(kind);
  const bool plain = kind == ProbeWeights::kF32 || kind == ProbeWeights::kBf16;
  std::vector<double> rates;
  std::size_t first = 0;  // each size begins where the last one ended: not in a cache
  for (const int m : rows) {
    const std::size_t count = problems_of(m, weights.size());
    const Mat<float> x = filled(m, kInner, 7);
    std::vector<Mat<float>> y;
    std::vector<Gemm> gemms;
    std::vector<QuantLinear> quants;
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t at = (first + i) % weights.size();
      y.emplace_back(m, kOuter);
      if (!plain) {
        quants.push_back({x.cview(), weights.views[at], y.back().view(), false});
      } else if (kind == ProbeWeights::kF32) {
        gemms.push_back(linear(x.cview(), weights.floats[at].cview(), y.back().view()));
      } else {
        gemms.push_back(linear(x.cview(), weights.halves[at].cview(), y.back().view()));
      }
    }
    first = (first + count) % weights.size();
    const auto run = [&] {
      if (plain) {
        gemm(ctx, kind == ProbeWeights::kF32 ? Precision::kF32 : Precision::kBF16, gemms);
      } else {
        quant_linear(ctx, QuantActivations::kBf16, quants);
      }
    };
    const double work = 2e-9 * m * kInner * kOuter * static_cast<double>(count);
    rates.push_back(timed(run, work, peak_probe(ctx, kind != ProbeWeights::kF32), turns));
  }
  return rates;
}

std::vector<double> attention_gflops(const Context& ctx, const std::vector<int>& rows,
                                     const TurnOptions& turns) {
  constexpr int kLatent = 512, kRope = 64, kWidth = kLatent + kRope, kMostHeads = 16;
  constexpr int kCached = 4096, kSequences = 8;
  const LatentLayout layout{LatentFormat::kBF16, kLatent, kRope};
  std::vector<LatentBlocks> caches;
  for (int s = 0; s < kSequences; ++s) {
    caches.emplace_back(ctx, layout, filled(kCached, kWidth, 2 + s).cview());
  }
  std::vector<double> rates;
  for (const int m : rows) {
    const int heads = std::min(m, kMostHeads), queries = std::max(1, m / kMostHeads);
    const int sequences = queries > 8 ? 1 : kSequences;
    const Mat<float> q = filled(sequences * queries, heads * kWidth, 1);
    Mat<float> out(q.rows(), heads * kLatent);
    std::vector<LatentAttention> problems;
    for (int s = 0; s < sequences; ++s) {
      problems.push_back({q.cview().sub_rows(s * queries, queries),
                          caches[static_cast<std::size_t>(s)].rows(), heads, 0.02f,
                          out.view().sub_rows(s * queries, queries), Precision::kBF16});
    }
    const double work =
        2e-9 * (2 * kLatent + kRope) * q.rows() * heads * (kCached - (queries - 1) / 2.0);
    rates.push_back(
        timed([&] { latent_attention(ctx, problems); }, work, peak_probe(ctx, true), turns));
  }
  return rates;
}

namespace {

// Products of training: so many linear layers at once, rows of `in` into `out`.
struct LayerShape {
  int problems, rows, in, out;
};

// Forward, the gradient of the input and that of the weight, in equal parts of the time.
double layer_gflops(const Context& ctx, Precision precision, const LayerShape& s,
                    const TurnOptions& turns) {
  std::vector<Mat<float>> x, w, dy, y, dx, dw;
  std::vector<Gemm> forward, input, weight;
  for (int i = 0; i < s.problems; ++i) {
    x.push_back(filled(s.rows, s.in, 3 * i));
    w.push_back(filled(s.out, s.in, 3 * i + 1));
    dy.push_back(filled(s.rows, s.out, 3 * i + 2));
    y.emplace_back(s.rows, s.out);
    dx.emplace_back(s.rows, s.in);
    dw.emplace_back(s.out, s.in);
  }
  for (std::size_t i = 0; i < x.size(); ++i) {
    forward.push_back({x[i].cview(), w[i].cview(), y[i].view(), false, true, false});
    input.push_back({dy[i].cview(), w[i].cview(), dx[i].view(), false, false, false});
    weight.push_back({dy[i].cview(), x[i].cview(), dw[i].view(), true, false, true});
  }
  const double one = 2e-9 * s.problems * s.rows * s.in * s.out;
  double sum = 0;
  for (const auto* products : {&forward, &input, &weight}) {
    sum += timed([&] { gemm(ctx, precision, *products); }, one,
                 peak_probe(ctx, precision == Precision::kBF16), turns);
  }
  return sum / 3;
}

}  // namespace

double training_gflops(const Context& ctx, Precision precision, const TurnOptions& turns) {
  // A linear layer over a batch, and experts that a batch is spread over.
  return (layer_gflops(ctx, precision, {1, 2048, 512, 1024}, turns) +
          layer_gflops(ctx, precision, {16, 384, 512, 256}, turns)) /
         2;
}

double narrow_training_gflops(const Context& ctx, Precision precision, int width,
                              const TurnOptions& turns) {
  return layer_gflops(ctx, precision, {1, 512, width, width}, turns);
}

}  // namespace cachalot::perf
