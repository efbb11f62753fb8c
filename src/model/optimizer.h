// The end of a training step: gradient norm, clipping, AdamW, the routers' balance biases.
//
// Owns:    the moments m and v, laid out as the parameters' arena.
// Threads: one caller.
// Paper:   V3 report 4.2 (AdamW, clipping at 1.0), 2.1.2 (bias += gamma * sign(mean load - load)).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/adamw.h"
#include "model/parameters.h"

namespace cachalot::model {

struct OptimizerStep {
  AdamWConfig adamw;  // weight decay is applied to matrices only
  double clip_norm = 1.0;
  double bias_gamma = 1e-3;
};

struct OptimizerReport {
  double grad_norm = 0;  // before clipping
  double clip_scale = 1;
  bool skipped = false;  // the norm was not finite: nothing was changed
};

class Optimizer {
 public:
  explicit Optimizer(const Parameters& parameters);

  static void zero_gradients(Parameters& parameters);
  // `expert_load` per MoE layer, of the whole batch, in the order of parameters.biases().
  OptimizerReport step(const Context& ctx, Parameters& parameters,
                       std::span<const std::vector<std::int64_t>> expert_load,
                       const OptimizerStep& options);

  std::int64_t steps() const noexcept { return steps_; }  // taken so far
  void set_steps(std::int64_t steps) noexcept { steps_ = steps; }
  std::span<float> m() noexcept { return m_.span(); }
  std::span<float> v() noexcept { return v_.span(); }

 private:
  Mat<float> m_, v_;
  std::int64_t steps_ = 0;
};

}  // namespace cachalot::model
