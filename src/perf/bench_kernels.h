// Measures the kernels beside the machine's ceilings and, for products, beside oneDNN and OpenBLAS
// where they were found at build time: see turns.h for how.
//
// Every kernel is compared with exact sums or with the reference before it is timed.
// Errors: kNumeric where a kernel is wrong.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "perf/turns.h"
#include "runtime/runtime.h"

namespace cachalot::perf {

struct PeerResult {
  std::string name;
  Measured measured;
};

struct CaseResult {
  std::string group;
  std::string name;
  std::string precision;
  std::string unit;      // "gflops" or "gbps"
  Measured measured;     // ours; of_second: of the peak of vdpbf16ps, where there is one
  double predicted = 0;  // by the roofline: the ceiling, or what reading the operands once allows
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
  TurnOptions turns;
  std::vector<std::string> only;  // only cases whose "group/name precision" contains one of them
};

// `progress` hears the name of each case before it runs.
KernelReport bench_kernels(const runtime::Runtime& runtime, const KernelBenchOptions& options,
                           const std::function<void(const std::string&)>& progress);

}  // namespace cachalot::perf
