// The ops bound by memory: GB/s at every CPU level of this machine, beside a copy and a triad in
// the same run. An op's bytes are those it has to read and write once; what it fetches only to
// overwrite (the read for ownership of a plain store) is not counted, for the op and for the copy
// alike.
//
//   ninja elementwise_bench && ./elementwise_bench [--benchmark_filter=adamw]
#include <benchmark/benchmark.h>

#include <cstring>
#include <functional>
#include <string>
#include <thread>

#include "kernels/cpu/levels.h"
#include "testing/random_mat.h"

namespace cachalot {
namespace {

using testing::random_mat;
using testing::random_vec;

constexpr int kRows = 4096, kCols = 2048;  // 32 MiB per matrix: past the caches of one core
constexpr double kMatrix = 4.0 * kRows * kCols;

void time_op(const std::string& name, const Context& ctx, double bytes,
             const std::function<void(const Context&)>& op) {
  benchmark::RegisterBenchmark(name.c_str(),
                               [=](benchmark::State& state) {
                                 for (auto _ : state) op(ctx);
                                 state.counters["GB/s"] = benchmark::Counter(
                                     bytes * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
                               })
      ->UseRealTime()
      ->Unit(benchmark::kMillisecond);
}

// What the machine's memory gives to plain loops of the C library and of this compiler.
void add_ceilings(const Context& ctx, Mat<float>& a, Mat<float>& b) {
  const auto rows = [](const Context& c, auto&& body) { c.for_each(kRows, 16, body); };
  time_op("memory/copy", ctx, 2 * kMatrix, [&, rows](const Context& c) {
    rows(c, [&](std::int64_t t) { std::memcpy(a.row(t), b.row(t), kCols * sizeof(float)); });
  });
  time_op("memory/read_write_in_place", ctx, 2 * kMatrix, [&, rows](const Context& c) {
    rows(c, [&](std::int64_t t) {
      auto* p = reinterpret_cast<std::uint64_t*>(a.row(t));
      for (int j = 0; j < kCols / 2; ++j) p[j] ^= 1;
    });
  });
}

struct Data {
  Mat<float> x = random_mat<float>(kRows, kCols, 1), y = random_mat<float>(kRows, kCols, 2);
  Mat<float> z = random_mat<float>(kRows, kCols, 3), u = random_mat<float>(kRows, kCols, 4);
  Mat<float> v = random_mat<float>(kRows, kCols, 5);
  std::vector<float> weight = random_vec<float>(kCols, 6), rstd = std::vector<float>(kRows, 1.0f);
  std::vector<float> dweight = std::vector<float>(kCols);
  Mat<float> cos = random_mat<float>(kRows, 32, 7), sin = random_mat<float>(kRows, 32, 8);
  std::vector<std::int32_t> ids = std::vector<std::int32_t>(kRows);
  Mat<float> scores = Mat<float>(kRows, 256), logits = random_mat<float>(kRows, 256, 9);
  Mat<std::int32_t> index = Mat<std::int32_t>(kRows, 8), slot = Mat<std::int32_t>(kRows / 8, 8);
  Mat<float> weights = Mat<float>(kRows, 8);
  Mat<float> large = random_mat<float>(64, 129280, 10);
  std::vector<double> loss = std::vector<double>(64);
  std::vector<std::int32_t> targets = std::vector<std::int32_t>(64, 5),
                            argmax = std::vector<std::int32_t>(64);
  Mat<float> moment = Mat<float>(kRows, kCols);  // second moments are never negative
  Data() {
    for (int t = 0; t < kRows; ++t) ids[static_cast<std::size_t>(t)] = (t * 797) % kRows;
    for (std::size_t i = 0; i < slot.size(); ++i)
      slot.data()[i] = static_cast<std::int32_t>((i * 797) % kRows);
  }
};

void add_ops(const Context& ctx, Data& d) {
  const std::string level = std::string("/") + ctx.ops().name;
  time_op("rms_norm" + level, ctx, 2 * kMatrix, [&](const Context& c) {
    c.ops().rms_norm(c, RmsNorm<float>{d.x.cview(), d.weight, 1e-6f, d.y.view(), d.rstd});
  });
  time_op("rms_norm_backward" + level, ctx, 3 * kMatrix, [&](const Context& c) {
    c.ops().rms_norm_backward(c, RmsNormBackward<float>{d.x.cview(), d.weight, d.rstd, d.y.cview(),
                                                        d.z.view(), false, d.dweight});
  });
  time_op(
      "rope" + level, ctx, 2 * kMatrix / 3, [&](const Context& c) {  // 64 of 192 columns, 10 heads
        c.ops().rope(c, Rope<float>{d.v.view(), 10, 192, 128, d.cos.cview(), d.sin.cview(), false});
      });
  time_op("swiglu" + level, ctx, 3 * kMatrix, [&](const Context& c) {
    c.ops().swiglu(c, Swiglu<float>{d.x.cview(), d.y.cview(), d.z.view()});
  });
  time_op("swiglu_backward" + level, ctx, 5 * kMatrix, [&](const Context& c) {
    c.ops().swiglu_backward(
        c, SwigluBackward<float>{d.x.cview(), d.y.cview(), d.z.cview(), d.u.view(), d.v.view()});
  });
  time_op("embedding" + level, ctx, 2 * kMatrix, [&](const Context& c) {
    c.ops().embedding(c, Embedding{d.x.cview(), d.ids, d.z.view()});
  });
  time_op("embedding_backward" + level, ctx, 3 * kMatrix, [&](const Context& c) {
    c.ops().embedding_backward(c, EmbeddingBackward<float>{d.ids, d.x.cview(), d.u.view()});
  });
  time_op("sum_squares" + level, ctx, kMatrix,
          [&](const Context& c) { benchmark::DoNotOptimize(c.ops().sum_squares(c, d.x.span())); });
  time_op("cross_entropy" + level, ctx, 2 * 4.0 * 64 * 129280, [&](const Context& c) {
    c.ops().cross_entropy(
        c, CrossEntropy<float>{d.large.view(), d.targets, d.loss, d.argmax, true, 1});
  });
  time_op("route" + level, ctx, 2 * 4.0 * kRows * 256, [&](const Context& c) {
    const RouteConfig config{256, 8, 8, 4, Scoring::kSigmoid, TopkMethod::kNoauxTc, true, 2.5};
    c.ops().route(
        c, Route<float>{
               config, d.logits.cview(), {}, d.scores.view(), d.index.view(), d.weights.view()});
  });
  time_op("gather_rows" + level, ctx, 2 * kMatrix, [&](const Context& c) {
    c.ops().gather_rows(c, GatherRows<float>{d.x.cview(), d.ids, d.z.view()});
  });
  const MatView<const float> weight = d.weights.cview().sub_rows(0, kRows / 8);
  time_op("combine" + level, ctx, 1.125 * kMatrix, [&, weight](const Context& c) {
    c.ops().combine(c, Combine<float>{d.x.cview(), d.slot.cview(), weight,
                                      d.z.view().sub_rows(0, kRows / 8), false});
  });
  time_op("combine_backward" + level, ctx, 2.125 * kMatrix, [&, weight](const Context& c) {
    c.ops().combine_backward(
        c, CombineBackward<float>{d.z.cview().sub_rows(0, kRows / 8), d.x.cview(), d.slot.cview(),
                                  weight, d.u.view(),
                                  d.scores.view().sub_cols(0, 8).sub_rows(0, kRows / 8)});
  });
  time_op("adamw" + level, ctx, 7 * kMatrix, [&](const Context& c) {
    c.ops().adamw(c, AdamW<float>{{}, 5, 1, d.x.span(), d.y.span(), d.u.span(), d.moment.span()});
  });
}

}  // namespace
}  // namespace cachalot

int main(int argc, char** argv) {
  using namespace cachalot;
  const char* given = std::getenv("CACHALOT_THREADS");
  ThreadPool pool(given != nullptr ? std::atoi(given)
                                   : static_cast<int>(std::thread::hardware_concurrency()));
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  Data data;
  add_ceilings({&kReferenceTable, &pool}, data.z, data.x);
  for (const KernelTable* table : cpu::tables_on_this_host()) add_ops({table, &pool}, data);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
