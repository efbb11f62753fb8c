#include "model/optimizer.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "kernels/elementwise.h"
#include "kernels/route.h"

namespace cachalot::model {

namespace {

// A clipped gradient of this norm still has squares that are finite floats. Past it the second
// moment would be infinite, and the parameter would never move again.
constexpr double kLargestNorm = 1e18;

}  // namespace

Optimizer::Optimizer(const Parameters& parameters, const OptimizerOptions& options)
    : options_(options) {
  constexpr int kRow = 1 << 12;
  const auto rows = static_cast<int>(parameters.values().size() / kRow);
  const int row_bytes = kRow * static_cast<int>(size_of(options.moments));
  m_ = Mat<std::byte>(rows, row_bytes);
  v_ = Mat<std::byte>(rows, row_bytes);
  if (has_average()) {
    average_ = Mat<float>(rows, kRow);
    begin_average(parameters);
  }
}

void Optimizer::zero_gradients(const Context& ctx, Parameters& parameters) {
  const std::span<float> g = parameters.gradients();
  ctx.for_range(static_cast<std::int64_t>(g.size()), /*grain=*/1 << 16,
                [&](std::int64_t begin, std::int64_t end) {
                  std::fill(g.begin() + begin, g.begin() + end, 0.0F);
                });
}

void* Optimizer::at(Mat<std::byte>& moments, const Parameter& p) noexcept {
  return moments.data() + static_cast<std::size_t>(p.offset) * size_of(options_.moments);
}

template <class M>
void Optimizer::adamw_all(const Context& ctx, Parameters& parameters, const AdamWConfig& config,
                          double clip_scale) {
  for (const Parameter& p : parameters.list()) {
    AdamWConfig own = config;
    if (!p.is_matrix()) own.weight_decay = 0;
    adamw(ctx, AdamW<float, M>{own, steps_, clip_scale, parameters.gradient(p), parameters.value(p),
                               slice<M>(m_, p), slice<M>(v_, p)});
  }
}

OptimizerReport Optimizer::step(const Context& ctx, Parameters& parameters,
                                std::span<const std::vector<std::int64_t>> expert_load,
                                const OptimizerStep& options) {
  OptimizerReport report;
  report.grad_norm = std::sqrt(sum_squares(ctx, parameters.gradients()));
  report.clip_scale = clip_scale(report.grad_norm, options.clip_norm);
  if (!(report.grad_norm * report.clip_scale <= kLargestNorm)) {  // NaN too
    report.skipped = true;
    return report;
  }
  ++steps_;
  if (options_.moments == DType::kBF16) {
    adamw_all<Bf16>(ctx, parameters, options.adamw, report.clip_scale);
  } else {
    adamw_all<float>(ctx, parameters, options.adamw, report.clip_scale);
  }
  std::vector<RouterBias>& biases = parameters.biases();
  for (std::size_t i = 0; i < biases.size() && i < expert_load.size(); ++i) {
    update_router_bias(expert_load[i], options.bias_gamma, biases[i].value);
  }
  if (has_average()) update_average(ctx, parameters);
  return report;
}

void Optimizer::begin_average(const Parameters& parameters) {
  if (!has_average()) return;
  std::copy(parameters.values().begin(), parameters.values().end(), average_.data());
  average_biases_.clear();
  for (const RouterBias& b : parameters.biases()) average_biases_.push_back(b.value);
}

void Optimizer::update_average(const Context& ctx, const Parameters& parameters) {
  const auto steps = static_cast<double>(steps_);
  const double decay = std::min(options_.ema_decay, (1 + steps) / (10 + steps));
  weight_average(ctx, {decay, parameters.values(), average_.span()});
  for (std::size_t i = 0; i < average_biases_.size(); ++i) {
    weight_average(ctx, {decay, parameters.biases()[i].value, average_biases_[i]});
  }
}

void Optimizer::swap_average(Parameters& parameters) {
  const std::span<float> values = parameters.values();
  std::swap_ranges(values.begin(), values.end(), average_.data());
  for (std::size_t i = 0; i < average_biases_.size(); ++i) {
    // Element by element: the layers' views point at these very vectors.
    std::vector<float>& own = parameters.biases()[i].value;
    std::swap_ranges(own.begin(), own.end(), average_biases_[i].begin());
  }
}

std::vector<io::TensorToWrite> Optimizer::average_tensors(const Parameters& parameters) const {
  std::vector<io::TensorToWrite> tensors = parameters.tensors();
  const float* begin = parameters.values().data();
  const float* end = begin + parameters.values().size();
  std::size_t bias = 0;
  for (io::TensorToWrite& t : tensors) {
    const auto* data = static_cast<const float*>(t.data);
    const bool in_arena = !std::less<>()(data, begin) && std::less<>()(data, end);
    // What does not lie in the arena are the router biases, in their order.
    t.data = in_arena ? average_.data() + (data - begin) : average_biases_[bias++].data();
  }
  return tensors;
}

std::int64_t Optimizer::state_bytes(const Parameters& parameters, DType moments) {
  const auto of_moments = static_cast<std::int64_t>(2 * size_of(moments));
  return parameters.count() * (static_cast<std::int64_t>(sizeof(float)) + of_moments);
}

}  // namespace cachalot::model
