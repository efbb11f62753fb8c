// What a pass costs besides bytes and operations: threads woken, ops called, small things between
// products. Measured on two models so small that nothing else is left.
//
// Threads: runs on those of the Context; one caller.
// Errors:  kIo where the folder for the models cannot be written.
#pragma once

#include <filesystem>

#include "kernels/context.h"

namespace cachalot::infer {

struct PassOverhead {
  double pass_seconds = 0;
  double layer_seconds = 0;
};
// Models are written below `folder` and removed.
PassOverhead measure_pass_overhead(const Context& ctx, const std::filesystem::path& folder,
                                   int turns);

}  // namespace cachalot::infer
