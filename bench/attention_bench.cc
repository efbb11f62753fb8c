// Attention: GFLOP/s forward and backward of every level, beside the machine's peak of
// multiply-adds from registers, measured right after each case; and the absorbed form over the
// cache.
//
// FLOPs counted: causal, so half of the T x T block. Forward 2 products, backward 5 (the scores
// again, dP, dV, dQ, dK): 2 (D + V) and 2 (3 D + 2 V) per pair of query and key, D = N + R.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "kernels/attention.h"
#include "kernels/cpu/levels.h"
#include "kernels/latent_attention.h"
#include "perf/peaks.h"
#include "testing/random_mat.h"

namespace cachalot {
namespace {

struct Buffers {
  AttentionDims dims;
  AttentionSpan span;
  Mat<float> q, kv, k_rope, out, lse, dout, dq, dkv, dk_rope;
  Buffers(int rows, AttentionDims d)
      : dims(d),
        span{0, rows, 0, rows},
        q(testing::random_mat<float>(rows, d.heads * (d.nope + d.rope), 1)),
        kv(testing::random_mat<float>(rows, d.heads * (d.nope + d.value), 2)),
        k_rope(testing::random_mat<float>(rows, d.rope, 3)),
        out(rows, d.heads * d.value),
        lse(rows, d.heads),
        dout(testing::random_mat<float>(rows, d.heads * d.value, 4)),
        dq(rows, q.cols()),
        dkv(rows, kv.cols()),
        dk_rope(rows, d.rope) {}
  float scale() const { return 1 / std::sqrt(static_cast<float>(dims.nope + dims.rope)); }
  Attention<float> forward(Precision p) {
    return {q.cview(), kv.cview(), k_rope.cview(), {&span, 1}, dims,
            scale(),   p,          out.view(),     lse.view()};
  }
  AttentionBackward<float> backward(Precision p) {
    return {q.cview(),   kv.cview(),  k_rope.cview(), {&span, 1}, dims,       scale(),       p,
            out.cview(), lse.cview(), dout.cview(),   dq.view(),  dkv.view(), dk_rope.view()};
  }
};

void report(benchmark::State& state, const Context& ctx, Precision precision, double flops) {
  const double fma = perf::fma_gflops(ctx);
  state.counters["GFLOP/s"] =
      benchmark::Counter(flops * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["peak"] =
      precision == Precision::kBF16 ? std::max(fma, perf::bf16_gflops(ctx)) : fma;
}

void attention_case(benchmark::State& state, const KernelTable& table, Precision precision,
                    int rows, AttentionDims dims, int threads, bool backward) {
  ThreadPool pool(threads);
  const Context ctx{&table, &pool};
  Buffers b(rows, dims);
  attention(ctx, b.forward(precision));
  for (auto _ : state) {
    if (backward) {
      attention_backward(ctx, b.backward(precision));
    } else {
      attention(ctx, b.forward(precision));
    }
  }
  const double width = dims.nope + dims.rope, value = dims.value;
  const double per_pair = backward ? 2 * (3 * width + 2 * value) : 2 * (width + value);
  report(state, ctx, precision, per_pair * dims.heads * rows * (rows + 1.0) / 2);
}

void latent_case(benchmark::State& state, const KernelTable& table, Precision precision, bool bf16,
                 int queries, int rows, int heads, int threads) {
  constexpr int kLatent = 512, kRope = 64;
  ThreadPool pool(threads);
  const Context ctx{&table, &pool};
  const auto q = testing::random_mat<float>(queries, heads * (kLatent + kRope), 1);
  const auto cache = testing::random_mat<float>(rows, kLatent + kRope, 2);
  Mat<Bf16> small(rows, kLatent + kRope);
  for (std::size_t i = 0; i < cache.size(); ++i) small.data()[i] = to_bf16(cache.data()[i]);
  Mat<float> out(queries, heads * kLatent);
  const LatentAttention problem{q.cview(),  bf16 ? MatRef(small.cview()) : MatRef(cache.cview()),
                                heads,      kLatent,
                                kRope,      0.07f,
                                out.view(), precision};
  for (auto _ : state) latent_attention(ctx, {&problem, 1});
  report(state, ctx, precision, 2.0 * (2 * kLatent + kRope) * queries * heads * rows);
  const double bytes = static_cast<double>(rows) * (kLatent + kRope) * (bf16 ? 2 : 4);
  state.counters["GB/s"] =
      benchmark::Counter(bytes * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

void add_level(const KernelTable& table) {
  for (const Precision precision : {Precision::kF32, Precision::kBF16}) {
    const std::string tail = cat("/", table.name, precision == Precision::kBF16 ? "/bf16" : "/f32");
    for (const int rows : {256, 2048}) {
      for (const bool backward : {false, true}) {
        benchmark::RegisterBenchmark(
            cat(backward ? "backward/T=" : "forward/T=", rows, tail).c_str(),
            [=, &table](benchmark::State& s) {
              attention_case(s, table, precision, rows, {8, 64, 32, 64}, 1, backward);
            })
            ->UseRealTime();
      }
    }
    for (const int heads : {4, 16, 128}) {
      benchmark::RegisterBenchmark(cat("latent/T=1/S=8192/H=", heads, tail).c_str(),
                                   [=, &table](benchmark::State& s) {
                                     latent_case(s, table, precision, true, 1, 8192, heads, 1);
                                   })
          ->UseRealTime();
    }
  }
}

}  // namespace
}  // namespace cachalot

int main(int argc, char** argv) {
  for (const auto* table : cachalot::cpu::tables_on_this_host()) {
    if (std::string_view(table->name) != "ref") cachalot::add_level(*table);
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
