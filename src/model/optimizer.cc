#include "model/optimizer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "kernels/elementwise.h"
#include "kernels/route.h"

namespace cachalot::model {

namespace {

// A clipped gradient of this norm still has squares that are finite floats. Past it the second
// moment would be infinite, and the parameter would never move again.
constexpr double kLargestNorm = 1e18;

void copy_values(Device* device, float* to, std::span<const float> from) {
  if (device != nullptr) {
    device->copy(to, from.data(), from.size_bytes());
  } else {
    std::copy(from.begin(), from.end(), to);
  }
}

}  // namespace

Optimizer::Optimizer(const Parameters& parameters, const OptimizerOptions& options)
    : options_(options) {
  const MemoryScope scope(parameters.device());
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
  if (Device* device = parameters.device(); device != nullptr) {
    return device->zero(g.data(), g.size_bytes());
  }
  ctx.for_range(static_cast<std::int64_t>(g.size()), /*grain=*/1 << 16,
                [&](std::int64_t begin, std::int64_t end) {
                  std::fill(g.begin() + begin, g.begin() + end, 0.0F);
                });
}

std::vector<io::TensorToWrite> Optimizer::moment_tensors(const Parameters& parameters) const {
  const std::byte* m = m_.data();
  const std::byte* v = v_.data();
  if (m_.device() != nullptr) {
    for (const auto& [from, to] : {std::pair{&m_, &file_m_}, std::pair{&v_, &file_v_}}) {
      to->resize(from->rows(), from->cols());
      download<std::byte>(*from, to->span());
    }
    m = file_m_.data();
    v = file_v_.data();
  }
  std::vector<io::TensorToWrite> out;
  for (const Parameter& p : parameters.list()) {
    out.push_back({"m." + p.name, options_.moments, p.shape(), m + place(p)});
    out.push_back({"v." + p.name, options_.moments, p.shape(), v + place(p)});
  }
  return out;
}

void Optimizer::set_moments(const Parameter& p, const void* m, const void* v) {
  const std::size_t bytes = static_cast<std::size_t>(p.size()) * size_of(options_.moments);
  for (const auto& [to, from] : {std::pair{&m_, m}, std::pair{&v_, v}}) {
    if (Device* device = to->device(); device != nullptr) {
      device->upload(to->data() + place(p), from, bytes);
    } else {
      std::memcpy(to->data() + place(p), from, bytes);
    }
  }
}

template <class M>
void Optimizer::adamw_all(const Context& ctx, Parameters& parameters, const AdamWConfig& config,
                          double clip_scale) {
  // Neighbours that decay alike are one stretch of the arena: the gaps between them are zeros with
  // gradients of zero, and stay that.
  const std::vector<Parameter>& list = parameters.list();
  const std::span<const float> gradients = std::as_const(parameters).gradients();
  const std::span<float> values = parameters.values();
  for (std::size_t first = 0, next = 0; first < list.size(); first = next) {
    while (next < list.size() && list[next].is_matrix() == list[first].is_matrix()) ++next;
    const auto begin = static_cast<std::size_t>(list[first].offset);
    const auto n = static_cast<std::size_t>(list[next - 1].offset + list[next - 1].size()) - begin;
    AdamWConfig own = config;
    if (!list[first].is_matrix()) own.weight_decay = 0;
    adamw(ctx, AdamW<float, M>{own, steps_, clip_scale, gradients.subspan(begin, n),
                               values.subspan(begin, n), arena<M>(m_).subspan(begin, n),
                               arena<M>(v_).subspan(begin, n)});
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
  copy_values(average_.device(), average_.data(), parameters.values());
  average_biases_.clear();
  for (const RouterBias& b : parameters.biases()) average_biases_.push_back(b.value);
}

void Optimizer::update_average(const Context& ctx, const Parameters& parameters) {
  const auto steps = static_cast<double>(steps_);
  const double decay = std::min(options_.ema_decay, (1 + steps) / (10 + steps));
  weight_average(ctx, {decay, parameters.values(), average_.span()});
  for (std::size_t i = 0; i < average_biases_.size(); ++i) {
    weight_average_ref(Context{}, {decay, parameters.biases()[i].value, average_biases_[i]});
  }
}

void Optimizer::swap_average(Parameters& parameters) {
  const std::span<float> values = parameters.values();
  if (Device* device = average_.device(); device != nullptr) {
    const Mat<float> kept = average_.clone();
    copy_values(device, average_.data(), values);
    device->copy(values.data(), kept.data(), values.size_bytes());
    device->wait();  // `kept` goes
  } else {
    std::swap_ranges(values.begin(), values.end(), average_.data());
  }
  for (std::size_t i = 0; i < average_biases_.size(); ++i) {
    // Element by element: the layers' views point at these very vectors.
    std::vector<float>& own = parameters.biases()[i].value;
    std::swap_ranges(own.begin(), own.end(), average_biases_[i].begin());
  }
}

std::vector<io::TensorToWrite> Optimizer::average_tensors(const Parameters& parameters) const {
  const float* values = average_.data();
  if (average_.device() != nullptr) {
    file_average_.resize(average_.rows(), average_.cols());
    download<float>(average_, file_average_.span());
    values = file_average_.data();
  }
  std::vector<const float*> biases;
  for (const std::vector<float>& b : average_biases_) biases.push_back(b.data());
  return parameters.tensors_with(values, biases);
}

std::int64_t Optimizer::state_bytes(const Parameters& parameters, DType moments) {
  const auto of_moments = static_cast<std::int64_t>(2 * size_of(moments));
  return parameters.count() * (static_cast<std::int64_t>(sizeof(float)) + of_moments);
}

}  // namespace cachalot::model
