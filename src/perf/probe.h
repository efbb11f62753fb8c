// This machine in figures, as predictions need them: bandwidth by threads, peaks, and the rates
// that the engine's own products and attention reach by the rows that share a weight.
//
// Threads: runs on those of the Context given; one caller.
// Errors:  kNumeric never: the kernels' tests are elsewhere, here they are only timed.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "kernels/context.h"
#include "perf/turns.h"

namespace cachalot::perf {

using ProbeProgress = std::function<void(const std::string&)>;

// GB/s read from memory; the median of `turns`.
double read_gbps(const Context& ctx, int turns);

struct Peaks {
  double f32_gflops = 0;
  double bf16_gflops = 0;  // 0: no such instruction
  double int8_gops = 0;
};
Peaks register_peaks(const Context& ctx, int turns);

// Weights that products are measured with; the activations are bf16 (f32 for the first).
enum class ProbeWeights : int { kF32, kBf16, kFp8, kInt8, kInt4 };

// Inference: y = x W^T with `rows` rows of x for each of many matrices, 256 MB of them or more, so
// that weights come from memory as they do in a pass. GFLOP/s per entry of `rows`.
std::vector<double> product_gflops(const Context& ctx, ProbeWeights weights,
                                   const std::vector<int>& rows, const TurnOptions& turns);

// Absorbed attention over latent rows in bf16: GFLOP/s per entry of `rows`, queries times heads
// that share a cached row (16 heads below that; latent 512, rope 64).
std::vector<double> attention_gflops(const Context& ctx, const std::vector<int>& rows,
                                     const TurnOptions& turns);

// Training: forward, the gradient of the input and that of the weight, of one linear layer and of
// one layer of experts in equal parts of the time; GFLOP/s.
double training_gflops(const Context& ctx, Precision precision, const TurnOptions& turns);
// The same of one linear layer, 512 rows of `width` into `width`.
double narrow_training_gflops(const Context& ctx, Precision precision, int width,
                              const TurnOptions& turns);

}  // namespace cachalot::perf
