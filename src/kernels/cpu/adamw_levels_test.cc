// AdamW at every level against the reference in double, at every tail, with any threads.
#include "kernels/adamw.h"

#include <gmock/gmock.h>

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
