// For tests only: is this the gradient of that function? By central differences in double.
//
// Error model. D(h) = (f(x + h) - f(x - h)) / 2h differs from f' by
//   truncation  h^2 f''' / 6 + O(h^4): D(2h) - D(h) = h^2 f''' / 2 measures it, three times over;
//   rounding    what f itself is off by, over h. f is taken to be a sum of terms of size up to
//               `size` in total, each good to kUlps of double.
// So the tolerance is |D(2h) - D(h)| + kUlps * 2^-53 * size / h: nothing is tuned to the function.
// With h = 1e-4 that is about 1e-8, while a wrong factor or a missing term shows in the first
// digit.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/rng.h"

namespace cachalot::testing {

struct Derivative {
  double value;
  double tolerance;
};

// Derivative of f(s) at s = 0.
template <class F>
Derivative derivative(F&& f, double size) {
  constexpr double kStep = 1e-4, kUlps = 256;
  const auto central = [&f](double h) { return (f(h) - f(-h)) / (2 * h); };
  const double near = central(kStep), far = central(2 * kStep);
  return {near, std::abs(far - near) + kUlps * 0x1p-53 * size / kStep};
}

// Expects `gradient` to be that of f() with respect to x, which f reads: element by element (at
// most 64 of them, spread out) and along three random directions, which see every element.
template <class F>
void expect_gradient(const std::string& what, F&& f, std::span<double> x,
                     std::span<const double> gradient, std::uint64_t seed = 1) {
  ASSERT_EQ(x.size(), gradient.size()) << what;
  if (x.empty()) return;
  const double size = std::max(1.0, std::abs(f()));
  const std::size_t every = (x.size() + 63) / 64;
  for (std::size_t i = 0; i < x.size(); i += every) {
    const double kept = x[i];
    const Derivative d = derivative(
        [&](double s) {
          x[i] = kept + s;
          return f();
        },
        size);
    x[i] = kept;
    EXPECT_NEAR(gradient[i], d.value, d.tolerance) << what << " element " << i;
  }
  const std::vector<double> kept(x.begin(), x.end());
  for (std::uint64_t stream = 0; stream < 3; ++stream) {
    const Rng rng(seed, stream);
    // A direction of length about 1, so that the step stays as small as for one element.
    const double scale = 1 / std::sqrt(static_cast<double>(x.size()));
    double along = 0;
    for (std::size_t i = 0; i < x.size(); ++i) along += gradient[i] * scale * rng.normal(i);
    const Derivative d = derivative(
        [&](double s) {
          for (std::size_t i = 0; i < x.size(); ++i) x[i] = kept[i] + s * scale * rng.normal(i);
          return f();
        },
        size);
    std::copy(kept.begin(), kept.end(), x.begin());
    EXPECT_NEAR(along, d.value, d.tolerance) << what << " along direction " << stream;
  }
}

}  // namespace cachalot::testing
