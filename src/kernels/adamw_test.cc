#include "kernels/adamw.h"

#include <gmock/gmock.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "io/safetensors.h"
#include "kernels/cpu/level_test.h"
#include "testing/fixtures.h"
#include "testing/random_mat.h"

namespace cachalot {
namespace {

class AdamWTest : public testing::LevelTest {};
CACHALOT_EVERY_LEVEL(AdamWTest);

TEST(ClipScaleTest, Formula) {
  EXPECT_EQ(clip_scale(0.5, 1.0), 1.0);
  EXPECT_DOUBLE_EQ(clip_scale(4.0, 1.0), 1.0 / (4.0 + 1e-6));
  EXPECT_DOUBLE_EQ(clip_scale(1.0, 1.0), 1.0 / (1.0 + 1e-6)) << "the 1e-6 counts at the limit too";
  EXPECT_EQ(clip_scale(4.0, 0.0), 1.0) << "0 is no clipping";
  EXPECT_EQ(clip_scale(0.0, 1.0), 1.0);
}

TEST_P(AdamWTest, TheFirstStepIsTheSignTimesTheRate) {
  const std::vector<float> grad{3, -2, 0};
  std::vector<float> p{1, 1, 1}, m(3), v(3);
  AdamW<float> a{{.lr = 0.01, .weight_decay = 0}, 1, 1, grad, p, m, v};
  adamw(context(), a);
  EXPECT_NEAR(p[0], 0.99, 1e-6);
  EXPECT_NEAR(p[1], 1.01, 1e-6);
  EXPECT_EQ(p[2], 1.0f) << "0 / (0 + eps) is 0";
}

TEST_P(AdamWTest, EpsIsOutsideTheRoot) {
  const std::vector<float> grad{1e-8f};
  std::vector<float> p{1}, m(1), v(1);
  adamw(context(), AdamW<float>{{.lr = 0.5, .eps = 1e-8, .weight_decay = 0}, 1, 1, grad, p, m, v});
  EXPECT_NEAR(p[0], 1 - 0.5 * 0.5, 1e-5);  // 1e-8 / (1e-8 + 1e-8)
}

TEST_P(AdamWTest, DecayIsDecoupledAndNotClipped) {
  const std::vector<float> grad{0};
  std::vector<float> p{2}, m(1), v(1);
  adamw(context(), AdamW<float>{{.lr = 0.1, .weight_decay = 0.5}, 7, 0.001, grad, p, m, v});
  EXPECT_NEAR(p[0], 2 * (1 - 0.05), 1e-6);
}

TEST_P(AdamWTest, NothingToDoAndWrongLengths) {
  std::vector<float> none, one(1);
  EXPECT_NO_THROW(adamw(context(), AdamW<float>{{}, 1, 1, none, none, none, none}));
  EXPECT_THROW(adamw(context(), AdamW<float>{{}, 1, 1, none, one, one, one}), Error);
  EXPECT_THROW(adamw(context(), AdamW<float>{{}, 0, 1, one, one, one, one}), Error);
}

TEST_P(AdamWTest, AverageTakesItsShare) {
  const std::vector<float> p{4, -2};
  std::vector<float> ema{0, 0};
  weight_average(context(), {0.75, p, ema});
  EXPECT_EQ(ema, (std::vector<float>{1, -0.5}));
  weight_average(context(), {0, p, ema});
  EXPECT_EQ(ema, p);
  std::vector<float> one(1);
  EXPECT_THROW(weight_average(context(), {0.5, p, one}), Error);
}

// ---- moments in bf16

// The second moment after `steps` of the gradient `grad`, from `start`.
template <class M>
M second_moment(const Context& ctx, double beta2, M start, float grad, int steps) {
  const std::vector<float> g{grad};
  std::vector<float> p(1);
  std::vector<M> m(1), v{start};
  for (int step = 1; step <= steps; ++step) {
    adamw(ctx, AdamW<float, M>{{.beta2 = beta2}, step, 1, g, p, m, v});
  }
  return v[0];
}

TEST(MomentsInBf16, WhichDecaysCanBeKept) {
  EXPECT_TRUE(moments_can_decay(DType::kBF16, 0.9));
  EXPECT_TRUE(moments_can_decay(DType::kBF16, 0.95));
  EXPECT_TRUE(moments_can_decay(DType::kBF16, 0.99));
  EXPECT_TRUE(moments_can_decay(DType::kBF16, 1 - 0x1p-8));
  EXPECT_FALSE(moments_can_decay(DType::kBF16, 0.9962));
  EXPECT_FALSE(moments_can_decay(DType::kBF16, 0.999));
  EXPECT_TRUE(moments_can_decay(DType::kF32, 0.999));
}

TEST_P(AdamWTest, Bf16MomentsFallToZeroWhereTheyMay) {
  // From every significand: with the largest decay that is allowed, none stands still.
  for (int mantissa = 0; mantissa < 128; ++mantissa) {
    const Bf16 start{static_cast<std::uint16_t>(0x3F80 + mantissa)};
    const Bf16 next = second_moment(context(), 1 - 0x1p-8, start, 0.0F, 1);
    EXPECT_LT(next.bits, start.bits) << mantissa;
  }
  EXPECT_LT(to_float(second_moment(context(), 0.95, to_bf16(1), 0.0F, 400)), 1e-8F);
  // 0.999: every significand stands still, so the moment never forgets. This is why it is refused.
  for (int mantissa = 0; mantissa < 128; ++mantissa) {
    const Bf16 start{static_cast<std::uint16_t>(0x3F80 + mantissa)};
    EXPECT_EQ(second_moment(context(), 0.999, start, 0.0F, 1000).bits, start.bits);
  }
}

TEST_P(AdamWTest, Bf16MomentsFindTheirLevel) {
  // A constant gradient: v should come to g^2. It stops once a step changes it by less than half a
  // bf16 step: |v - g^2| (1 - beta2) <= v 2^-8.
  for (const double beta2 : {0.9, 0.95, 0.99}) {
    for (const float grad : {1.0F, 0.3F, 7.7e-4F, 1e-9F}) {
      const double want = double{grad} * grad;
      const double most = 0x1p-8 / (1 - beta2);
      for (const double start : {0.0, 30 * want}) {
        const auto v = second_moment(context(), beta2, to_bf16(static_cast<float>(start)), grad,
                                     static_cast<int>(20 / (1 - beta2)));
        EXPECT_NEAR(to_float(v), want, 1.01 * most / (1 - most) * want) << beta2 << " " << grad;
      }
    }
  }
}

TEST_P(AdamWTest, Bf16MomentsAreAsGoodAsFloatOnNoise) {
  // Gradients of a random size each step, as training has them: the mean ratio of the two second
  // moments must be 1, or rounding would scale every step of the run.
  const std::size_t n = 512;
  std::vector<float> p(n), q(n);
  std::vector<float> m(n), v(n);
  std::vector<Bf16> mb(n), vb(n);
  for (int step = 1; step <= 300; ++step) {
    const auto grad = testing::random_vec<float>(n, static_cast<std::uint64_t>(step));
    adamw(context(), AdamW<float>{{}, step, 1, grad, p, m, v});
    adamw(context(), AdamW<float, Bf16>{{}, step, 1, grad, q, mb, vb});
  }
  double ratio = 0, squares = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const double r = to_float(vb[i]) / v[i];
    ratio += r / n;
    squares += (r - 1) * (r - 1) / n;
  }
  // Each step rounds by at most 2^-8, evenly to both sides, and forgets with 0.95: a random walk
  // with a standard deviation of 2^-8 / sqrt(3) / sqrt(1 - 0.95^2).
  const double deviation = 0x1p-8 / std::sqrt(3 * (1 - 0.95 * 0.95));
  EXPECT_LT(std::sqrt(squares), 1.2 * deviation);
  EXPECT_NEAR(ratio, 1, 5 * deviation / std::sqrt(n));
}

// ---- fixtures

template <class T>
struct State {
  std::vector<T> p, m, v;
};

template <class T>
std::vector<T> values(const io::Safetensors& file, const std::string& name) {
  return testing::convert<T>(file.at(name).to_doubles());
}

template <class T>
void expect_near(const std::vector<T>& got, const std::vector<double>& want, double tolerance,
                 const std::string& name) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < want.size(); ++i) {
    EXPECT_NEAR(got[i], want[i], tolerance * std::max(1e-3, std::abs(want[i]))) << name << " " << i;
  }
}

// Six steps of every case: `w` decays, `g` does not, both are clipped together.
template <class T, class Step>
void run_cases(double tolerance, Step&& step_of) {
  const auto folders = testing::fixture_folders(testing::FixtureKind::kAdamw);
  ASSERT_FALSE(folders.empty());
  for (const auto& folder : folders) {
    const auto file = io::Safetensors::open(folder / "expected.safetensors");
    std::ifstream in(folder / "cases.json");
    const auto json = nlohmann::json::parse(in);
    for (const auto& [name, c] : json.items()) {
      SCOPED_TRACE(folder.string() + " " + name);
      std::map<std::string, State<T>> states;
      for (const std::string tensor : {"w", "g"}) {
        auto& s = states[tensor];
        s.p = values<T>(file, name + "." + tensor + ".0");
        s.m.resize(s.p.size()), s.v.resize(s.p.size());
      }
      for (int step = 1; step <= 6; ++step) {
        const auto tag = std::to_string(step);
        std::map<std::string, std::vector<T>> grads;
        double squares = 0;
        for (const std::string tensor : {"w", "g"}) {
          grads[tensor] = values<T>(file, name + "." + tensor + ".grad" + tag);
          squares += testing::dot<T>(grads[tensor], grads[tensor]);
        }
        const double norm = std::sqrt(squares),
                     want = file.at(name + ".norm" + tag).to_doubles()[0];
        EXPECT_NEAR(norm, want, tolerance * want);
        for (auto& [tensor, s] : states) {
          AdamWConfig config{c.at("lr"), c.at("beta1"), c.at("beta2"), c.at("eps"), 0};
          if (tensor == "w") config.weight_decay = c.at("weight_decay");
          step_of(AdamW<T>{config, step, clip_scale(norm, c.at("clip_norm")), grads[tensor], s.p,
                           s.m, s.v});
          const std::string prefix = name + "." + tensor + ".";
          expect_near(s.p, file.at(prefix + tag).to_doubles(), tolerance, prefix + tag);
          expect_near(s.m, file.at(prefix + "m" + tag).to_doubles(), tolerance, prefix + "m" + tag);
          expect_near(s.v, file.at(prefix + "v" + tag).to_doubles(), tolerance, prefix + "v" + tag);
        }
      }
    }
  }
}

TEST(AdamWReferenceFixture, InDouble) {
  run_cases<double>(1e-12, [](const AdamW<double>& a) { adamw_ref(Context{}, a); });
}

class AdamWFixture : public testing::LevelTest {};
CACHALOT_EVERY_LEVEL(AdamWFixture);

TEST_P(AdamWFixture, InFloat) {
  run_cases<float>(1e-5, [this](const AdamW<float>& a) { adamw(context(), a); });
}

}  // namespace
}  // namespace cachalot
