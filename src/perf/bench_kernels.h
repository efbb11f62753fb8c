// Measures the matrix products beside the machine's ceilings and, where they were found at build
// time, beside oneDNN and OpenBLAS: all in turns, in one run, medians of the turns.
//
// Every product is compared with exact sums of sampled elements before it is timed.
// Errors: kNumeric where a product is wrong.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "runtime/runtime.h"

namespace cachalot::perf {

struct PeerResult {
  std::string name;
  double value = 0;
};

struct CaseResult {
  std::string name;
  std::string precision;
  std::string unit;      // "gflops" or "gbps"
  double value = 0;      // ours
  double ceiling = 0;    // the best this machine can do
  double fraction = 0;   // value / ceiling
  double vdpbf16ps = 0;  // bf16: value / the peak of that instruction; 0: no such instruction
  std::vector<PeerResult> peers;
};

struct KernelReport {
  double fma_gflops = 0;
  double vdpbf16ps_gflops = 0;
  double read_gbps = 0;
  std::vector<CaseResult> cases;
  std::vector<std::string> notes;
};

struct KernelBenchOptions {
  int turns = 7;
  std::string filter;  // only cases whose name contains it
};

// `progress` hears the name of each case before it runs.
KernelReport bench_kernels(const runtime::Runtime& runtime, const KernelBenchOptions& options,
                           const std::function<void(const std::string&)>& progress);

}  // namespace cachalot::perf
