// What a pass costs besides bytes and operations: threads woken, ops called, small things between
// products. Measured on two models so small that nothing else is left.
//
// Threads: runs on those of the Context; one caller.
// Errors:  kIo where the folder for the models cannot be written.
#pragma once

#include <filesystem>
#include <vector>

#include "cost/pass.h"
#include "kernels/context.h"
#include "model/weight_format.h"

namespace cachalot::infer {

struct PassOverhead {
  double pass_seconds = 0;
  double layer_seconds = 0;
};
// Models are written below `folder` and removed.
PassOverhead measure_pass_overhead(const Context& ctx, const std::filesystem::path& folder,
                                   int turns);

// What the products of a pass reach, everything between them counted in, from passes of two models
// of middling size with weights in `format`: one without experts, one with.
struct PassRates {
  std::vector<double> rows, dense_gflops;          // by rows of the pass
  std::vector<double> expert_rows, expert_gflops;  // by rows that an expert gets, on average
};
PassRates measure_pass_rates(const Context& ctx, const std::filesystem::path& folder,
                             model::WeightFormat format, const std::vector<int>& rows,
                             const PassOverhead& overhead, const cost::RateCurve& attention,
                             int turns);

}  // namespace cachalot::infer
