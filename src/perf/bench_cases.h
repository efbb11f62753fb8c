// What `cachalot bench kernels` measures: the list of cases, and how one prepares itself.
//
// To add a kernel: a BenchCase in one of the lists below (or a list of its own, added to
// bench_kernels.cc). Operands are made by `prepare` and live in what it returns.
// Threads: prepare and what it returns are called from one thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/context.h"
#include "perf/turns.h"

namespace cachalot::perf {

// What a case needs of the bench around it.
struct BenchEnvironment {
  const Context& ctx;
  std::vector<std::string>& notes;
};

// A case with its operands in memory: checked, ready to be timed.
struct ReadyCase {
  std::vector<Contestant> contestants;  // the first is ours
  CeilingProbe ceiling;
};

struct BenchCase {
  std::string group;
  std::string name;
  std::string precision;
  bool memory = false;  // GB/s instead of GFLOP/s
  double flops = 0;     // of one run; 0 where only bytes are counted
  double bytes = 0;     // that one run has to read and write once
  // Throws Error(kNumeric) where our kernel is wrong.
  std::function<ReadyCase(const BenchEnvironment&)> prepare;

  std::string label() const { return group + "/" + name + " " + precision; }
};

std::vector<BenchCase> gemm_cases();
std::vector<BenchCase> fp8_cases();
std::vector<BenchCase> attention_cases();
std::vector<BenchCase> memory_cases();
std::vector<BenchCase> saved_cases();
std::vector<BenchCase> quant_cases();

// Float FMA or vdpbf16ps from registers, whichever is more for this precision; the second one is
// vdpbf16ps where products are bf16.
CeilingProbe register_peak(const Context& ctx, Precision precision);

}  // namespace cachalot::perf
