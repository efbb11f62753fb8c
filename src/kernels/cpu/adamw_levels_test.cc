// AdamW at every level against the reference in double, at every tail, with any threads.
#include "kernels/adamw.h"

#include <gmock/gmock.h>

#include <limits>

#include "kernels/cpu/level_test.h"
#include "testing/random_mat.h"

namespace cachalot {
namespace {

using testing::convert;
using testing::kUnit;
using testing::random_vec;
class AdamWLevels : public testing::LevelTest {};
CACHALOT_EVERY_LEVEL(AdamWLevels);

TEST_P(AdamWLevels, EveryTail) {
  const AdamWConfig config{.lr = 3e-3, .weight_decay = 0.1};
  for (const int size : testing::tail_sizes()) {
    const auto n = static_cast<std::size_t>(size);
    const auto grad = random_vec<float>(n, 1);
    auto p = random_vec<float>(n, 2), m = random_vec<float>(n, 3), v = random_vec<float>(n, 4);
    for (float& x : v) x *= x;
    auto want_p = convert<double>(p), want_m = convert<double>(m), want_v = convert<double>(v);
    const auto wide = convert<double>(grad);
    std::vector<double> size_p(n), size_m(n);
    ops().adamw(context(), AdamW<float>{config, 9, 0.7, grad, p, m, v});
    adamw_ref(Context{}, AdamW<double>{config, 9, 0.7, wide, want_p, want_m, want_v});
    for (std::size_t i = 0; i < n; ++i) {
      size_m[i] = std::abs(want_m[i]) + 0.2 * 0.7 * std::abs(wide[i]);  // m may cancel
      // The parameter rounds once; the update carries m's error and about ten roundings.
      const double update = config.lr / (1 - std::pow(0.9, 9)) * size_m[i] /
                            std::sqrt(want_v[i] / (1 - std::pow(0.95, 9)));
      size_p[i] = std::abs(want_p[i]) + 16 * update;
    }
    testing::expect_within(m, want_m, size_m, 5 * kUnit, "m");
    testing::expect_within(v, want_v, want_v, 7 * kUnit, "v");
    testing::expect_within(p, want_p, size_p, 1.1 * kUnit, "p " + std::to_string(size));
  }
}

// A kept moment is the float result rounded once. Rounding keeps order, so a result that is off by
// `error` before it is rounded lies between the rounded ends of that interval, most often exactly.
void expect_rounded(const std::vector<Bf16>& got, const std::vector<double>& want,
                    const std::vector<double>& size, double error, const std::string& what) {
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double e = error * size[i] + 0x1p-126;
    ASSERT_GE(to_float(got[i]), to_float(to_bf16(static_cast<float>(want[i] - e)))) << what << i;
    ASSERT_LE(to_float(got[i]), to_float(to_bf16(static_cast<float>(want[i] + e)))) << what << i;
  }
}

std::vector<Bf16> rounded(const std::vector<float>& x) {
  std::vector<Bf16> y;
  for (const float f : x) y.push_back(to_bf16(f));
  return y;
}
std::vector<double> widened(const std::vector<Bf16>& x) {
  std::vector<double> y;
  for (const Bf16 b : x) y.push_back(double{to_float(b)});
  return y;
}

TEST_P(AdamWLevels, MomentsInBf16AtEveryTail) {
  const AdamWConfig config{.lr = 3e-3, .weight_decay = 0.1};
  for (const int size : testing::tail_sizes()) {
    const auto n = static_cast<std::size_t>(size);
    const auto grad = random_vec<float>(n, 1);
    auto p = random_vec<float>(n, 2), start_v = random_vec<float>(n, 4);
    for (float& x : start_v) x *= x;
    // One more element than is worked on: a tail that writes past its end shows.
    auto m = rounded(random_vec<float>(n + 1, 3)), v = rounded(start_v);
    v.push_back({0x1234});
    const Bf16 behind_m = m[n];
    auto want_p = convert<double>(p), want_m = widened(m), want_v = widened(v);
    want_m.pop_back(), want_v.pop_back();
    const auto wide = convert<double>(grad);
    ops().adamw_bf16(context(), AdamW<float, Bf16>{config, 9, 0.7, grad, p, std::span(m).first(n),
                                                   std::span(v).first(n)});
    adamw_ref(Context{}, AdamW<double>{config, 9, 0.7, wide, want_p, want_m, want_v});
    std::vector<double> size_m(n), size_p(n);
    for (std::size_t i = 0; i < n; ++i) {
      size_m[i] = std::abs(want_m[i]) + 0.2 * 0.7 * std::abs(wide[i]);
      const double update = config.lr / (1 - std::pow(0.9, 9)) * size_m[i] /
                            std::sqrt(want_v[i] / (1 - std::pow(0.95, 9)));
      size_p[i] = std::abs(want_p[i]) + 16 * update;
    }
    EXPECT_EQ(m[n].bits, behind_m.bits) << size;
    EXPECT_EQ(v[n].bits, 0x1234) << size;
    m.pop_back(), v.pop_back();
    expect_rounded(m, want_m, size_m, 5 * kUnit, "m ");
    expect_rounded(v, want_v, want_v, 7 * kUnit, "v ");
    // The update takes the moments before they are rounded: the same bound as with float moments.
    testing::expect_within(p, want_p, size_p, 1.1 * kUnit, "p " + std::to_string(size));
  }
}

TEST_P(AdamWLevels, Bf16RoundsToEvenAndKeepsNan) {
  // beta 0 and no clipping: m is the gradient itself, rounded.
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  std::vector<float> grad{1.0F,  1.00390625F,   1.01171875F, 1.003906369F, -1.00390625F, 0.0F,
                          -0.0F, 3.3895314e38F, inf,         -inf,         nan,          0x1p-130F};
  grad.resize(37, 1.00390625F);  // vectors and a tail
  std::vector<float> p(37);
  std::vector<Bf16> m(37), v(37);
  adamw(context(), AdamW<float, Bf16>{{.beta1 = 0}, 1, 1, grad, p, m, v});
  for (std::size_t i = 0; i < grad.size(); ++i) {
    if (i == 10) {
      EXPECT_TRUE(std::isnan(to_float(m[i])) && std::isnan(to_float(v[i])));
    } else if (i != 6) {  // 0 * m + -0 is 0 in a sum
      EXPECT_EQ(m[i].bits, to_bf16(grad[i]).bits) << grad[i];
    }
  }
}

TEST_P(AdamWLevels, AverageAtEveryTail) {
  for (const int size : testing::tail_sizes()) {
    const auto n = static_cast<std::size_t>(size);
    const auto p = random_vec<float>(n, 5);
    auto ema = random_vec<float>(n, 6);
    std::vector<double> want(n), sizes(n);
    for (std::size_t i = 0; i < n; ++i) {
      want[i] = 0.999 * double{ema[i]} + (1 - 0.999) * double{p[i]};
      sizes[i] = std::abs(ema[i]) + 0.01 * std::abs(p[i]);
    }
    weight_average(context(), {0.999, p, ema});
    testing::expect_within(ema, want, sizes, 1.1 * kUnit, "ema " + std::to_string(size));
  }
}

TEST_P(AdamWLevels, ThreadsDoNotMatter) {
  const auto grad = random_vec<float>(50001, 1);
  std::vector<float> first;
  with_threads([&](const Context& ctx, int threads) {
    auto p = random_vec<float>(50001, 2);
    std::vector<float> m(50001), v(50001);
    for (int step = 1; step <= 2; ++step) adamw(ctx, AdamW<float>{{}, step, 1, grad, p, m, v});
    if (threads == 1) first = p;
    EXPECT_EQ(p, first) << threads;
  });
}

}  // namespace
}  // namespace cachalot
