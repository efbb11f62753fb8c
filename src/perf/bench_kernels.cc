#include "perf/bench_kernels.h"

#include <algorithm>

#include "base/error.h"
#include "perf/bench_cases.h"
#include "perf/peaks.h"

namespace cachalot::perf {

namespace {

bool wanted(const BenchCase& c, const std::vector<std::string>& only) {
  const std::string label = c.label();
  return only.empty() || std::any_of(only.begin(), only.end(), [&](const std::string& part) {
           return label.find(part) != std::string::npos;
         });
}

CaseResult one(const BenchCase& c, const BenchEnvironment& environment, double read_gbps,
               const TurnOptions& options) {
  const ReadyCase ready = c.prepare(environment);
  const double work = (c.memory ? c.bytes : c.flops) * 1e-9;
  const std::vector<Measured> measured = measure(ready.contestants, work, ready.ceiling, options);
  CaseResult r;
  r.group = c.group;
  r.name = c.name;
  r.precision = c.precision;
  r.unit = c.memory ? "gbps" : "gflops";
  r.measured = measured[0];
  r.predicted = r.measured.ceiling;
  if (!c.memory && r.measured.ceiling > 0) {
    const double seconds = std::max(c.flops / r.measured.ceiling, c.bytes / read_gbps);
    r.predicted = c.flops / seconds;
  }
  for (std::size_t i = 1; i < measured.size(); ++i) {
    r.peers.push_back({ready.contestants[i].name, measured[i]});
  }
  return r;
}

}  // namespace

CeilingProbe register_peak(const Context& ctx, Precision precision) {
  return [&ctx, precision] {
    const double fma = fma_gflops(ctx);
    if (precision != Precision::kBF16) return Ceilings{fma, 0};
    const double pairs = bf16_gflops(ctx);
    return Ceilings{std::max(fma, pairs), pairs};
  };
}

KernelReport bench_kernels(const runtime::Runtime& runtime, const KernelBenchOptions& options,
                           const std::function<void(const std::string&)>& progress) {
  const Context& ctx = runtime.context();
  KernelReport report;
  std::vector<double> fma, pairs;
  const auto peaks = [&] {
    fma.push_back(fma_gflops(ctx));
    pairs.push_back(bf16_gflops(ctx));
  };
  {
    const ReadProbe reader;
    std::vector<double> reads;
    for (int i = 0; i < 5; ++i) {
      peaks();
      reads.push_back(reader.gbps(ctx));
    }
    report.read_gbps = median(reads);
  }
  std::vector<BenchCase> cases = gemm_cases();
  for (auto more : {quant_cases, fp8_cases, attention_cases, memory_cases, saved_cases}) {
    std::vector<BenchCase> list = more();
    std::move(list.begin(), list.end(), std::back_inserter(cases));
  }
  const BenchEnvironment environment{ctx, report.notes};
  for (const BenchCase& c : cases) {
    if (!wanted(c, options.only)) continue;
    progress(c.label());
    report.cases.push_back(one(c, environment, report.read_gbps, options.turns));
    peaks();
  }
  if (report.cases.empty()) {
    throw Error(Code::kUsage,
                "bench kernels: --only leaves no case; the cases are named gemm/..., "
                "quant_linear/..., gemm_fp8/..., fp8/..., attention/..., memory/..., saved/...: "
                "run it without "
                "--only for the whole list");
  }
  report.fma_gflops = median(fma);
  report.vdpbf16ps_gflops = median(pairs);
  std::sort(report.notes.begin(), report.notes.end());
  report.notes.erase(std::unique(report.notes.begin(), report.notes.end()), report.notes.end());
  return report;
}

}  // namespace cachalot::perf
