// What Hopper's accumulator costs in accuracy, by length of the sum and promotion interval.
//
// Two square-ish products per K: operands of standard normal numbers, and of numbers even in
// [0, 1). Each operand becomes E4M3 with one scale (its largest magnitude / 448: without promotion
// there is no place for more), and the result is compared with the exact sum of the same codes.
// Relative error here is |got - exact| / the root mean square of the exact results: what normal
// operands give lies around zero, where a quotient by the result itself has no bound. Both are
// reported; for numbers of [0, 1) they are nearly the same.
//
// Threads: on those of the runtime; results do not depend on them.
// Errors:  kUsage for an interval that is no multiple of 32.
// Paper:   DeepSeek-V3 report, section 3.3.2 (a random test with K = 4096).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/hopper.h"

namespace cachalot::perf {

enum class RandomInputs : std::uint8_t { kNormal, kUniform };
std::string_view name(RandomInputs inputs) noexcept;  // "normal", "uniform"

struct AccumulationOptions {
  std::vector<int> k{128, 256, 512, 1024, 2048, 4096, 8192, 16384};
  std::vector<int> intervals{0, 512, 256, 128, 64, 32};
  int size = 256;  // rows and columns of each result
  std::uint64_t seed = 1;
};

struct AccumulationCase {
  RandomInputs inputs;
  int k;
  Accumulation sum;
  double max_error = 0;      // of the root mean square
  double mean_error = 0;     // likewise
  double max_of_result = 0;  // |got - exact| / |exact|
  double mean_of_result = 0;
};

// All intervals of one K, then float32 (gemm_fp8), for each K and kind of inputs in turn.
// `progress` hears of each K.
std::vector<AccumulationCase> bench_accumulation(
    const Context& ctx, const AccumulationOptions& options,
    const std::function<void(const std::string&)>& progress);

// The largest errors over K, a panel per kind of inputs, a curve per sum: an SVG.
std::string accumulation_picture(const std::vector<AccumulationCase>& cases);

}  // namespace cachalot::perf
