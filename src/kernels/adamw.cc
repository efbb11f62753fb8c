#include "kernels/adamw.h"

#include <algorithm>
#include <cmath>

#include "kernels/shape_check.h"
#include "kernels/table.h"

namespace cachalot {

double clip_scale(double norm, double clip_norm) noexcept {
  if (clip_norm <= 0) return 1;
  return std::min(1.0, clip_norm / (norm + 1e-6));
}

template <class T>
void adamw_ref(const Context& ctx, const AdamW<T>& a) {
  const AdamWConfig& c = a.config;
  const double correct_m = 1 - std::pow(c.beta1, static_cast<double>(a.step));
  const double correct_v = 1 - std::pow(c.beta2, static_cast<double>(a.step));
  ctx.for_each(static_cast<std::int64_t>(a.param.size()), /*grain=*/4096, [&](std::int64_t at) {
    const auto i = static_cast<std::size_t>(at);
    const double g = double{a.grad[i]} * a.grad_scale;
    const double m = c.beta1 * double{a.m[i]} + (1 - c.beta1) * g;
    const double v = c.beta2 * double{a.v[i]} + (1 - c.beta2) * g * g;
    const double update = (m / correct_m) / (std::sqrt(v / correct_v) + c.eps);
    a.m[i] = static_cast<T>(m);
    a.v[i] = static_cast<T>(v);
    a.param[i] = static_cast<T>(double{a.param[i]} * (1 - c.lr * c.weight_decay) - c.lr * update);
  });
}

template void adamw_ref(const Context&, const AdamW<float>&);
template void adamw_ref(const Context&, const AdamW<double>&);

void check_shapes(const AdamW<float>& a) {
  require_length("adamw", "grad", a.grad, a.param.size());
  require_length("adamw", "m", a.m, a.param.size());
  require_length("adamw", "v", a.v, a.param.size());
  require_shape(a.step >= 1, "adamw: step is ", a.step, " but steps count from 1");
}

void adamw(const Context& ctx, const AdamW<float>& a) {
  check_shapes(a);
  ctx.ops().adamw(ctx, a);
}

}  // namespace cachalot
