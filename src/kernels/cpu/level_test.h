// For tests only: run a test at every CPU level of this machine, with 1, 2 and 3 threads.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/cpu/levels.h"

namespace cachalot::testing {

class LevelTest : public ::testing::TestWithParam<const KernelTable*> {
 protected:
  const KernelTable& ops() const { return *GetParam(); }
  Context context() const { return {GetParam(), nullptr}; }

  // Calls body(context, threads) with 1, 2 and 3 threads.
  template <class F>
  void with_threads(F&& body) const {
    for (int threads = 1; threads <= 3; ++threads) {
      ThreadPool pool(threads);
      body(Context{GetParam(), &pool}, threads);
    }
  }
};

inline constexpr double kUnit = 0x1p-24;  // one float rounding is off by at most this, relatively
// Largest relative error of the levels' vector exp and sigmoid on normal results: vec_test.cc.
inline constexpr double kExpError = 1.5 * kUnit;
inline constexpr double kSigmoidError = kExpError + 2.1 * kUnit;  // 1 + e and 1 / x round once each

// |got - want| <= relative * size + the least normal float (results below it may be cut to zero),
// where `size` is what the op gives on the magnitudes of its operands, or |want|.
template <class Got, class Want, class Size>
void expect_within(const Got& got, const Want& want, const Size& size, double relative,
                   const std::string& what) {
  ASSERT_EQ(std::size(got), std::size(want)) << what;
  for (std::size_t i = 0; i < std::size(want); ++i) {
    const double tolerance = relative * std::abs(static_cast<double>(size[i])) + 0x1p-126;
    ASSERT_NEAR(got[i], want[i], tolerance) << what << " element " << i;
  }
}

// Every tail of one and two vectors of either level, then sizes with whole blocks and a rest.
inline std::vector<int> tail_sizes() {
  std::vector<int> sizes;
  for (int n = 1; n <= 33; ++n) sizes.push_back(n);
  for (const int n : {48, 63, 64, 65, 127, 129, 255, 257, 1031}) sizes.push_back(n);
  return sizes;
}

}  // namespace cachalot::testing

// Names the suite's instances after the levels: EveryLevel/RmsNormTest.Rule/avx2.
#define CACHALOT_EVERY_LEVEL(Suite)                                                     \
  INSTANTIATE_TEST_SUITE_P(EveryLevel, Suite,                                           \
                           ::testing::ValuesIn(::cachalot::cpu::tables_on_this_host()), \
                           [](const auto& info) { return std::string(info.param->name); })
