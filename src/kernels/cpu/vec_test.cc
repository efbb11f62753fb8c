// How far the vector exp and sigmoid are from the truth, and what magnitude leaves, by level.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cpu/level_test.h"
#include "kernels/cpu/levels.h"
#include "kernels/cpu/vec_avx2.h"
#include "kernels/cpu/vec_avx512.h"

#ifdef CACHALOT_X86
namespace cachalot::cpu {
namespace {

CACHALOT_BEGIN_TARGET(CACHALOT_AVX2)
void exp_avx2(const float* x, float* y, std::ptrdiff_t n, bool sigmoid) {
  using namespace avx2;
  for (std::ptrdiff_t j = 0; j < n; j += kLanes) {
    const Vec v = load(x + j, All{});
    store(y + j, sigmoid ? avx2::sigmoid(v) : exp(v), All{});
  }
}
void magnitude_avx2(const float* x, float* y, std::ptrdiff_t n) {
  for (std::ptrdiff_t j = 0; j < n; j += avx2::kLanes) {
    avx2::store(y + j, avx2::magnitude(avx2::load(x + j, avx2::All{})), avx2::All{});
  }
}
CACHALOT_END_TARGET
CACHALOT_BEGIN_TARGET(CACHALOT_AVX512)
void exp_avx512(const float* x, float* y, std::ptrdiff_t n, bool sigmoid) {
  using namespace avx512;
  for (std::ptrdiff_t j = 0; j < n; j += kLanes) {
    const Vec v = load(x + j, All{});
    store(y + j, sigmoid ? avx512::sigmoid(v) : exp(v), All{});
  }
}
void magnitude_avx512(const float* x, float* y, std::ptrdiff_t n) {
  for (std::ptrdiff_t j = 0; j < n; j += avx512::kLanes) {
    avx512::store(y + j, avx512::magnitude(avx512::load(x + j, avx512::All{})), avx512::All{});
  }
}
CACHALOT_END_TARGET

struct Named {
  const char* name;
  Level level;
  void (*run)(const float*, float*, std::ptrdiff_t, bool);
  void (*magnitude)(const float*, float*, std::ptrdiff_t);
};

class VecExpTest : public ::testing::TestWithParam<Named> {
 protected:
  void SetUp() override {
    const auto levels = supported_levels();
    if (std::find(levels.begin(), levels.end(), GetParam().level) == levels.end()) {
      GTEST_SKIP() << "this machine has no " << GetParam().name;
    }
  }
  std::vector<float> run(std::vector<float> x, bool sigmoid = false) const {
    const std::size_t n = x.size();
    x.resize((n + 15) / 16 * 16);
    std::vector<float> y(x.size());
    GetParam().run(x.data(), y.data(), static_cast<std::ptrdiff_t>(x.size()), sigmoid);
    y.resize(n);
    return y;
  }
};
INSTANTIATE_TEST_SUITE_P(EveryLevel, VecExpTest,
                         ::testing::Values(Named{"avx2", Level::kAvx2, exp_avx2, magnitude_avx2},
                                           Named{"avx512", Level::kAvx512, exp_avx512,
                                                 magnitude_avx512}),
                         [](const auto& info) { return std::string(info.param.name); });

// Every 1009th float of either sign up to 105: 2.2 million arguments of all magnitudes.
std::vector<float> sweep() {
  std::vector<float> x;
  for (std::uint32_t bits = 0; bits < std::bit_cast<std::uint32_t>(105.0f); bits += 1009) {
    const float f = std::bit_cast<float>(bits);
    x.push_back(f);
    x.push_back(-f);
  }
  return x;
}

template <class Truth>
double worst(const std::vector<float>& x, const std::vector<float>& y, Truth&& truth) {
  double worst = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double want = truth(static_cast<double>(x[i]));
    if (want < 0x1p-126 || want > std::numeric_limits<float>::max()) continue;
    worst = std::max(worst, std::abs(y[i] - want) / want);
  }
  return worst;
}

TEST_P(VecExpTest, ExpIsWithinItsErrorOverADenseSweep) {
  const auto x = sweep();
  const auto y = run(x);
  const double error = worst(x, y, [](double v) { return std::exp(v); });
  RecordProperty("worst_in_2^-24", std::to_string(error / testing::kUnit));
  EXPECT_LE(error, testing::kExpError) << error / testing::kUnit << " x 2^-24";
  // Denormal results are off by one unit of the last place, which is 2^-149 there.
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (x[i] > -87.3f) continue;
    ASSERT_NEAR(y[i], std::exp(static_cast<double>(x[i])), 0x1p-149) << x[i];
  }
}

TEST_P(VecExpTest, SigmoidIsWithinItsErrorOverADenseSweep) {
  const auto x = sweep();
  const auto y = run(x, true);
  const double error = worst(x, y, [](double v) { return v < -87 ? 0 : 1 / (1 + std::exp(-v)); });
  EXPECT_LE(error, testing::kSigmoidError) << error / testing::kUnit << " x 2^-24";
}

TEST_P(VecExpTest, Ends) {
  const float inf = std::numeric_limits<float>::infinity();
  const auto y = run({0, -0.0f, inf, -inf, 89, 1e30f, -104, -1e30f, std::nanf("")});
  EXPECT_EQ(y[0], 1.0f);
  EXPECT_EQ(y[1], 1.0f);
  EXPECT_EQ(y[2], inf);
  EXPECT_EQ(y[3], 0.0f);
  EXPECT_EQ(y[4], inf);
  EXPECT_EQ(y[5], inf);
  EXPECT_EQ(y[6], 0.0f);
  EXPECT_EQ(y[7], 0.0f);
  EXPECT_TRUE(std::isnan(y[8]));
}

// Of every kind of number: the sign goes, all other bits stay.
TEST_P(VecExpTest, MagnitudeIsAllBitsButTheSign) {
  std::vector<std::uint32_t> bits;
  for (const std::uint32_t b : {0x00000000U, 0x00000001U, 0x007FFFFFU, 0x00800000U, 0x3F800001U,
                                0x7F7FFFFFU, 0x7F800000U, 0x7FC00123U}) {
    bits.push_back(b);
    bits.push_back(b | 0x80000000U);
  }
  std::vector<float> x, y(bits.size());
  for (const std::uint32_t b : bits) x.push_back(std::bit_cast<float>(b));
  GetParam().magnitude(x.data(), y.data(), static_cast<std::ptrdiff_t>(x.size()));
  for (std::size_t i = 0; i < bits.size(); ++i) {
    EXPECT_EQ(std::bit_cast<std::uint32_t>(y[i]), bits[i] & 0x7FFFFFFFU) << std::hex << bits[i];
  }
}

TEST(VecExpTest2, LevelsAgreeBitForBit) {
  const auto levels = supported_levels();
  if (std::find(levels.begin(), levels.end(), Level::kAvx512) == levels.end()) GTEST_SKIP();
  auto x = sweep();
  x.resize(x.size() / 16 * 16);
  std::vector<float> a(x.size()), b(x.size());
  exp_avx2(x.data(), a.data(), static_cast<std::ptrdiff_t>(x.size()), false);
  exp_avx512(x.data(), b.data(), static_cast<std::ptrdiff_t>(x.size()), false);
  EXPECT_EQ(a, b);
}

}  // namespace
}  // namespace cachalot::cpu
#endif
