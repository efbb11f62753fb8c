#include "model/optimizer.h"

#include <algorithm>
#include <cmath>

#include "kernels/elementwise.h"
#include "kernels/route.h"

namespace cachalot::model {

Optimizer::Optimizer(const Parameters& parameters) {
  constexpr int kRow = 1 << 12;
  const auto rows = static_cast<int>(parameters.values().size() / kRow);
  m_ = Mat<float>(rows, kRow);
  v_ = Mat<float>(rows, kRow);
}

void Optimizer::zero_gradients(Parameters& parameters) {
  const std::span<float> g = parameters.gradients();
  std::fill(g.begin(), g.end(), 0.0F);
}

OptimizerReport Optimizer::step(const Context& ctx, Parameters& parameters,
                                std::span<const std::vector<std::int64_t>> expert_load,
                                const OptimizerStep& options) {
  OptimizerReport report;
  report.grad_norm = std::sqrt(sum_squares(ctx, parameters.gradients()));
  if (!std::isfinite(report.grad_norm)) {
    report.skipped = true;
    return report;
  }
  report.clip_scale = clip_scale(report.grad_norm, options.clip_norm);
  ++steps_;
  for (const Parameter& p : parameters.list()) {
    const auto begin = static_cast<std::size_t>(p.offset);
    const auto size = static_cast<std::size_t>(p.size());
    AdamWConfig config = options.adamw;
    if (!p.is_matrix()) config.weight_decay = 0;
    adamw(ctx, AdamW<float>{config, steps_, report.clip_scale, parameters.gradient(p),
                            parameters.value(p), m_.span().subspan(begin, size),
                            v_.span().subspan(begin, size)});
  }
  std::vector<RouterBias>& biases = parameters.biases();
  for (std::size_t i = 0; i < biases.size() && i < expert_load.size(); ++i) {
    update_router_bias(expert_load[i], options.bias_gamma, biases[i].value);
  }
  return report;
}

}  // namespace cachalot::model
