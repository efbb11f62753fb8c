#include "kernels/adamw.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "kernels/shape_check.h"
#include "kernels/table.h"

namespace cachalot {

double clip_scale(double norm, double clip_norm) noexcept {
  if (clip_norm <= 0) return 1;
  return std::min(1.0, clip_norm / (norm + 1e-6));
}

bool moments_can_decay(DType moments, double decay) noexcept {
  constexpr double kBf16HalfStep = 0x1p-8;
  return moments != DType::kBF16 || 1 - decay >= kBf16HalfStep;
}

template <class T>
static double wide(T x) {
  return double{x};
}
static double wide(Bf16 x) { return double{to_float(x)}; }

template <class M>
static M kept(double x) {
  if constexpr (std::is_same_v<M, Bf16>) {
    return to_bf16(static_cast<float>(x));
  } else {
    return static_cast<M>(x);
  }
}

template <class T, class M>
void adamw_ref(const Context& ctx, const AdamW<T, M>& a) {
  const AdamWConfig& c = a.config;
  const double correct_m = 1 - std::pow(c.beta1, static_cast<double>(a.step));
  const double correct_v = 1 - std::pow(c.beta2, static_cast<double>(a.step));
  ctx.for_each(static_cast<std::int64_t>(a.param.size()), /*grain=*/4096, [&](std::int64_t at) {
    const auto i = static_cast<std::size_t>(at);
    const double g = double{a.grad[i]} * a.grad_scale;
    const double m = c.beta1 * wide(a.m[i]) + (1 - c.beta1) * g;
    const double v = c.beta2 * wide(a.v[i]) + (1 - c.beta2) * g * g;
    const double update = (m / correct_m) / (std::sqrt(v / correct_v) + c.eps);
    a.m[i] = kept<M>(m);
    a.v[i] = kept<M>(v);
    a.param[i] = static_cast<T>(double{a.param[i]} * (1 - c.lr * c.weight_decay) - c.lr * update);
  });
}

template void adamw_ref(const Context&, const AdamW<float>&);
template void adamw_ref(const Context&, const AdamW<double>&);
template void adamw_ref(const Context&, const AdamW<float, Bf16>&);

template <class M>
static void check(const AdamW<float, M>& a) {
  require_length("adamw", "grad", a.grad, a.param.size());
  require_length("adamw", "m", a.m, a.param.size());
  require_length("adamw", "v", a.v, a.param.size());
  require_shape(a.step >= 1, "adamw: step is ", a.step, " but steps count from 1");
}
void check_shapes(const AdamW<float>& a) { check(a); }
void check_shapes(const AdamW<float, Bf16>& a) { check(a); }

void adamw(const Context& ctx, const AdamW<float>& a) {
  check_shapes(a);
  ctx.ops().adamw(ctx, a);
}

void adamw(const Context& ctx, const AdamW<float, Bf16>& a) {
  check_shapes(a);
  ctx.ops().adamw_bf16(ctx, a);
}

void weight_average_ref(const Context& ctx, const WeightAverage& a) {
  const double take = 1 - a.decay;
  ctx.for_each(static_cast<std::int64_t>(a.ema.size()), /*grain=*/4096, [&](std::int64_t at) {
    const auto i = static_cast<std::size_t>(at);
    const double ema = a.ema[i];
    a.ema[i] = static_cast<float>(ema + take * (double{a.param[i]} - ema));
  });
}

void check_shapes(const WeightAverage& a) {
  require_length("weight_average", "ema", a.ema, a.param.size());
}

void weight_average(const Context& ctx, const WeightAverage& a) {
  check_shapes(a);
  ctx.ops().weight_average(ctx, a);
}

}  // namespace cachalot
