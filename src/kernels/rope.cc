#include "kernels/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/shape_check.h"
#include "kernels/table.h"

namespace cachalot {

namespace {

// m(s) of the YaRN paper's attention temperature.
double yarn_m(const YarnConfig& y, double mscale) {
  return y.factor <= 1 ? 1.0 : 0.1 * mscale * std::log(y.factor) + 1.0;
}

// The dimension whose wave turns `rotations` times over the original context.
double yarn_dim(const RopeConfig& c, double rotations) {
  return c.dim * std::log(c.scaling.original_max_position / (rotations * 2 * std::numbers::pi)) /
         (2 * std::log(c.theta));
}

}  // namespace

std::vector<double> rope_inv_freq(const RopeConfig& config) {
  const int half = config.dim / 2;
  std::vector<double> freq(static_cast<std::size_t>(half));
  double low = 0, high = 1;
  if (config.yarn) {
    low = std::max(std::floor(yarn_dim(config, config.scaling.beta_fast)), 0.0);
    high = std::min(std::ceil(yarn_dim(config, config.scaling.beta_slow)), config.dim - 1.0);
    if (low == high) high += 0.001;  // as released: no division by zero
  }
  for (int i = 0; i < half; ++i) {
    double f = std::pow(config.theta, -2.0 * i / config.dim);
    if (config.yarn) {
      const double ramp = std::clamp((i - low) / (high - low), 0.0, 1.0);
      f = f / config.scaling.factor * ramp + f * (1 - ramp);
    }
    freq[static_cast<std::size_t>(i)] = f;
  }
  return freq;
}

double rope_multiplier(const RopeConfig& config) {
  if (!config.yarn) return 1;
  return yarn_m(config.scaling, config.scaling.mscale) /
         yarn_m(config.scaling, config.scaling.mscale_all_dim);
}

double attention_scale(const RopeConfig& config, int nope_dim) {
  const double plain = 1.0 / std::sqrt(static_cast<double>(nope_dim + config.dim));
  if (!config.yarn) return plain;
  const double m = yarn_m(config.scaling, config.scaling.mscale_all_dim);  // 1 where it is 0
  return plain * m * m;
}

template <class T>
void rope_table(const RopeConfig& config, std::span<const int> positions, MatView<T> cos,
                MatView<T> sin) {
  const int half = config.dim / 2;
  require_size("rope_table", "cos", cos, static_cast<int>(positions.size()), half);
  require_size("rope_table", "sin", sin, static_cast<int>(positions.size()), half);
  const std::vector<double> freq = rope_inv_freq(config);
  const double multiplier = rope_multiplier(config);
  for (std::size_t p = 0; p < positions.size(); ++p) {
    T* c = cos.row(static_cast<std::ptrdiff_t>(p));
    T* s = sin.row(static_cast<std::ptrdiff_t>(p));
    for (int i = 0; i < half; ++i) {
      const double angle = positions[p] * freq[static_cast<std::size_t>(i)];
      c[i] = static_cast<T>(std::cos(angle) * multiplier);
      s[i] = static_cast<T>(std::sin(angle) * multiplier);
    }
  }
}

template <class T>
void rope_ref(const Context& ctx, const Rope<T>& a) {
  const int half = a.cos.cols;
  ctx.for_each(a.x.rows, /*grain=*/4, [&](std::int64_t t) {
    const T* cos = a.cos.row(t);  // [R / 2]
    const T* sin = a.sin.row(t);
    for (int h = 0; h < a.heads; ++h) {
      T* x = a.x.row(t) + static_cast<std::ptrdiff_t>(h) * a.head_stride + a.offset;  // [R]
      for (int i = 0; i < half; ++i) {
        const double c = double{cos[i]}, s = a.inverse ? -double{sin[i]} : double{sin[i]};
        const double even = double{x[2 * i]}, odd = double{x[2 * i + 1]};
        x[2 * i] = static_cast<T>(even * c - odd * s);
        x[2 * i + 1] = static_cast<T>(even * s + odd * c);
      }
    }
  });
}

template void rope_table(const RopeConfig&, std::span<const int>, MatView<float>, MatView<float>);
template void rope_table(const RopeConfig&, std::span<const int>, MatView<double>, MatView<double>);
template void rope_ref(const Context&, const Rope<float>&);
template void rope_ref(const Context&, const Rope<double>&);

void check_shapes(const Rope<float>& a) {
  require_size("rope", "cos", a.cos, a.x.rows, a.cos.cols);
  require_size("rope", "sin", a.sin, a.x.rows, a.cos.cols);
  const int width = 2 * a.cos.cols;
  require_shape(a.heads >= 1 && a.offset >= 0, "rope: ", a.heads, " heads with the first column ",
                a.offset, "; at least one head and a column from 0 on are needed");
  require_shape(a.heads == 1 || a.head_stride >= width, "rope: heads lie ", a.head_stride,
                " columns apart but ", width, " columns of each are rotated; they would overlap");
  const std::int64_t end = std::int64_t{a.heads - 1} * a.head_stride + a.offset + width;
  require_shape(end <= a.x.cols, "rope: the last head ends at column ", end, " but x has ",
                a.x.cols, "; check heads, head_stride, offset and qk_rope_head_dim");
}

void rope(const Context& ctx, const Rope<float>& a) {
  check_shapes(a);
  ctx.ops().rope(ctx, a);
}

}  // namespace cachalot
