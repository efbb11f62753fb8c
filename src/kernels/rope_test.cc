#include "kernels/rope.h"

#include <gmock/gmock.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numbers>

#include "io/safetensors.h"
#include "kernels/cpu/level_test.h"
#include "testing/finite_difference.h"
#include "testing/fixtures.h"
#include "testing/random_mat.h"

namespace cachalot {
namespace {

using testing::random_mat;
class RopeTest : public testing::LevelTest {};
CACHALOT_EVERY_LEVEL(RopeTest);

TEST_P(RopeTest, PairsAreInterleaved) {
  Mat<float> cos(1, 2), sin(1, 2), x(1, 4);
  cos.at(0, 0) = 0, sin.at(0, 0) = 1;  // a quarter turn of the first pair
  cos.at(0, 1) = 1, sin.at(0, 1) = 0;  // none of the second
  for (int j = 0; j < 4; ++j) x.at(0, j) = static_cast<float>(j + 1);
  rope(context(), Rope<float>{x.view(), 1, 0, 0, cos.cview(), sin.cview(), false});
  EXPECT_THAT(x.span(), ::testing::ElementsAre(-2.0f, 1.0f, 3.0f, 4.0f));
}

TEST_P(RopeTest, TouchesItsColumnsOnly) {
  constexpr int kRows = 3, kHeads = 3, kStride = 21, kOffset = 13, kDim = 6;
  const Mat<float> before = random_mat<float>(kRows, kHeads * kStride + 4, 1);
  Mat<float> x = before.clone();
  const Mat<float> cos = random_mat<float>(kRows, kDim / 2, 2),
                   sin = random_mat<float>(kRows, kDim / 2, 3);
  rope(context(), Rope<float>{x.view(), kHeads, kStride, kOffset, cos.cview(), sin.cview(), false});
  for (int t = 0; t < kRows; ++t) {
    for (int j = 0; j < x.cols(); ++j) {
      const int at = j % kStride - kOffset;
      const bool rotated = j < kHeads * kStride && at >= 0 && at < kDim;
      EXPECT_EQ(x.at(t, j) == before.at(t, j), !rotated) << t << ", " << j;
    }
  }
}

TEST_P(RopeTest, InverseUndoesARotation) {
  const RopeConfig config{.dim = 22};
  const std::vector<int> positions{0, 1, 77, 100000};
  Mat<float> cos(4, 11), sin(4, 11);
  rope_table<float>(config, positions, cos.view(), sin.view());
  const Mat<float> before = random_mat<float>(4, 2 * 22, 4);
  Mat<float> x = before.clone();
  rope(context(), Rope<float>{x.view(), 2, 22, 0, cos.cview(), sin.cview(), false});
  rope(context(), Rope<float>{x.view(), 2, 22, 0, cos.cview(), sin.cview(), true});
  // Two rotations of numbers of size up to 4, three roundings each.
  for (std::size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(x.data()[i], before.data()[i], 2e-6);
}

TEST_P(RopeTest, NoRowsIsNoWork) {
  Mat<float> x(0, 4), cos(0, 2), sin(0, 2);
  rope(context(), Rope<float>{x.view(), 1, 4, 0, cos.cview(), sin.cview(), false});
}

TEST_P(RopeTest, HeadsHaveToFit) {
  Mat<float> x(1, 12), cos(1, 2), sin(1, 2);
  const auto run = [&](int heads, int stride, int offset) {
    rope(context(), Rope<float>{x.view(), heads, stride, offset, cos.cview(), sin.cview(), false});
  };
  EXPECT_NO_THROW(run(3, 4, 0));
  EXPECT_NO_THROW(run(2, 6, 2));
  EXPECT_THROW(run(3, 4, 1), Error);
  EXPECT_THROW(run(2, 3, 0), Error);
  EXPECT_THROW(run(1, 4, -1), Error);
}

TEST(RopeGradientTest, FiniteDifferences) {
  const Context ctx;
  Mat<double> x = random_mat<double>(2, 13, 1);
  const Mat<double> cos = random_mat<double>(2, 2, 2), sin = random_mat<double>(2, 2, 3);
  const Mat<double> dy = random_mat<double>(2, 13, 4);
  const auto args = [&](MatView<double> m, bool inverse) {
    return Rope<double>{m, 2, 6, 2, cos.cview(), sin.cview(), inverse};
  };
  const auto loss = [&] {
    Mat<double> y = x.clone();
    rope_ref(ctx, args(y.view(), false));
    return testing::dot<double>(y.span(), dy.span());
  };
  Mat<double> dx = dy.clone();
  rope_ref(ctx, args(dx.view(), true));
  testing::expect_gradient("dx", loss, x.span(), dx.span());
}

TEST(RopeConfigTest, YarnLeavesFastDimensionsAndDividesSlowOnes) {
  const RopeConfig plain{.dim = 64};
  RopeConfig yarn = plain;
  yarn.yarn = true;
  yarn.scaling.factor = 40;
  const auto a = rope_inv_freq(plain), b = rope_inv_freq(yarn);
  EXPECT_DOUBLE_EQ(a.front(), 1.0);
  EXPECT_DOUBLE_EQ(b.front(), 1.0);
  EXPECT_DOUBLE_EQ(b.back(), a.back() / 40);
  EXPECT_DOUBLE_EQ(rope_multiplier(plain), 1.0);
  EXPECT_DOUBLE_EQ(rope_multiplier(yarn), 0.1 * std::log(40.0) + 1);   // mscale 1 over m(0) = 1
  EXPECT_DOUBLE_EQ(attention_scale(yarn, 128), 1 / std::sqrt(192.0));  // mscale_all_dim absent
}

// The angle of every position up to 160K in the arithmetic of double: position * frequency is off
// by half a unit of its own, so cos and sin are off by at most 2^-53 * angle + what libm and the
// rounding to float add. In float the same product would be off by 2^-24 * 163839 = 0.01.
TEST(RopeConfigTest, YarnAnglesAreExactTo160K) {
  RopeConfig config{.dim = 64};
  config.yarn = true;
  config.scaling = {.factor = 40, .mscale = 1, .mscale_all_dim = 1};  // as V3 has it
  const auto freq = rope_inv_freq(config);
  std::vector<int> positions{0, 1, 4095, 4096, 65535, 131071, 163839};
  for (int p = 17; p < 163840; p += 7919) positions.push_back(p);
  const int rows = static_cast<int>(positions.size());
  Mat<float> cos(rows, 32), sin(rows, 32);
  rope_table<float>(config, positions, cos.view(), sin.view());
  for (int p = 0; p < rows; ++p) {
    for (int i = 0; i < 32; ++i) {
      const long double angle = static_cast<long double>(positions[static_cast<std::size_t>(p)]) *
                                static_cast<long double>(freq[static_cast<std::size_t>(i)]);
      const double tolerance = 0x1p-25 + 0x1p-51 + static_cast<double>(angle) * 0x1p-53;
      EXPECT_NEAR(cos.at(p, i), static_cast<double>(std::cos(angle)), tolerance) << p << ", " << i;
      EXPECT_NEAR(sin.at(p, i), static_cast<double>(std::sin(angle)), tolerance) << p << ", " << i;
    }
  }
  // Frequencies themselves by the formula, in long double.
  for (int i = 0; i < 32; ++i) {
    const auto dim = [](long double turns) {
      return 64 * std::log(4096 / (turns * 2 * std::numbers::pi_v<long double>)) /
             (2 * std::log(10000.0L));
    };
    const long double low = std::floor(dim(32)), high = std::ceil(dim(1));
    const long double ramp = std::clamp((i - low) / (high - low), 0.0L, 1.0L);
    const long double plain = std::pow(10000.0L, -2.0L * i / 64);
    const long double want = plain / 40 * ramp + plain * (1 - ramp);
    EXPECT_NEAR(freq[static_cast<std::size_t>(i)], static_cast<double>(want),
                static_cast<double>(want) * 8 * 0x1p-53)
        << i;
  }
}

// Rotating by 163839 and back, and relative positions: q at p and k at p - d give the same score
// wherever p is, to the roundings of float.
TEST_P(RopeTest, ScoresDependOnTheDistanceUpTo160K) {
  RopeConfig config{.dim = 64};
  config.yarn = true;
  config.scaling = {.factor = 40, .mscale = 1, .mscale_all_dim = 1};
  const auto vectors = random_mat<float>(2, 64, 9);
  const auto score = [&](int query, int key) {
    Mat<float> cos(2, 32), sin(2, 32), x = vectors.clone();
    const std::vector<int> positions{query, key};
    rope_table<float>(config, positions, cos.view(), sin.view());
    rope(context(), Rope<float>{x.view(), 1, 64, 0, cos.cview(), sin.cview(), false});
    return testing::dot<float>({x.row(0), 64}, {x.row(1), 64});
  };
  double size = 0;  // of all products of a pair of the one with a pair of the other
  for (int c = 0; c < 64; ++c) {
    size += std::abs(vectors.at(0, c) * vectors.at(1, c ^ 1)) +
            std::abs(vectors.at(0, c) * vectors.at(1, c));
  }
  for (const int distance : {0, 1, 100, 5000}) {
    const double want = score(distance, 0);
    for (const int at : {5001, 65536, 163839}) {
      // A rotated number has three float roundings, its table entry one; both numbers of a pair, of
      // two vectors, in two scores.
      EXPECT_NEAR(score(at, at - distance), want, 2 * 2 * 8 * 0x1p-24 * size)
          << distance << " " << at;
    }
  }
}

// ---- fixtures

RopeConfig parse_config(const nlohmann::json& c) {
  RopeConfig config;
  config.dim = c.at("qk_rope_head_dim");
  config.theta = c.at("rope_theta");
  if (const auto& s = c.at("rope_scaling"); !s.is_null()) {
    config.yarn = true;
    config.scaling.factor = s.at("factor");
    config.scaling.original_max_position = s.at("original_max_position_embeddings");
    config.scaling.beta_fast = s.value("beta_fast", 32.0);
    config.scaling.beta_slow = s.value("beta_slow", 1.0);
    config.scaling.mscale = s.value("mscale", 1.0);
    config.scaling.mscale_all_dim = s.value("mscale_all_dim", 0.0);
  }
  return config;
}

struct RopeCase {
  std::string name;
  nlohmann::json json;
  RopeConfig config;
  std::vector<int> positions;
};

// Calls body(file, case) for every rope case of every folder of ops.
template <class F>
void for_each_case(F&& body) {
  int seen = 0;
  for (const auto& folder : testing::fixture_folders(testing::FixtureKind::kOps)) {
    const auto file = io::Safetensors::open(folder / "expected.safetensors");
    std::ifstream in(folder / "cases.json");
    const auto json = nlohmann::json::parse(in);
    for (const auto& [name, c] : json.at("rope").items()) {
      SCOPED_TRACE(folder.string() + " " + name);
      RopeCase rope{name, c, parse_config(c), {}};
      for (const auto p : file.at("rope." + name + ".pos").to_ints()) {
        rope.positions.push_back(static_cast<int>(p));
      }
      body(file, rope);
      ++seen;
    }
  }
  EXPECT_GT(seen, 0);
}

// Angles and tables in type T, of which one rounding is worth `unit`.
template <class T>
void check_tables(double unit) {
  for_each_case([&](const io::Safetensors& file, const RopeCase& c) {
    const std::string prefix = "rope." + c.name + ".";
    EXPECT_NEAR(rope_multiplier(c.config), c.json.at("cos_sin_multiplier"), 1e-14);
    EXPECT_NEAR(attention_scale(c.config, c.json.at("qk_nope_head_dim")),
                c.json.at("softmax_scale"), 1e-14);
    const auto freq = rope_inv_freq(c.config),
               want_freq = file.at(prefix + "inv_freq").to_doubles();
    ASSERT_EQ(freq.size(), want_freq.size());
    for (std::size_t i = 0; i < freq.size(); ++i) {
      EXPECT_NEAR(freq[i], want_freq[i], 1e-14 * want_freq[i]) << i;
    }
    const int rows = static_cast<int>(c.positions.size()), half = c.config.dim / 2;
    Mat<T> cos(rows, half), sin(rows, half);
    rope_table<T>(c.config, c.positions, cos.view(), sin.view());
    const auto want_cos = file.at(prefix + "cos").to_doubles();
    const auto want_sin = file.at(prefix + "sin").to_doubles();
    for (int p = 0; p < rows; ++p) {
      for (int i = 0; i < half; ++i) {
        const auto at = static_cast<std::size_t>(p * half + i);
        // The frequency is good to a few roundings of double, which the angle multiplies.
        const double angle =
            c.positions[static_cast<std::size_t>(p)] * freq[static_cast<std::size_t>(i)];
        const double tolerance = 2 * unit + 16 * 0x1p-53 * angle;
        EXPECT_NEAR(cos.at(p, i), want_cos[at], tolerance) << p << ", " << i;
        EXPECT_NEAR(sin.at(p, i), want_sin[at], tolerance) << p << ", " << i;
      }
    }
  });
}

TEST(RopeTableFixture, InDouble) { check_tables<double>(0x1p-52); }
TEST(RopeTableFixture, InFloat) { check_tables<float>(0x1p-24); }

class RopeFixture : public testing::LevelTest {};
CACHALOT_EVERY_LEVEL(RopeFixture);

TEST_P(RopeFixture, RotatesAsStored) {
  for_each_case([&](const io::Safetensors& file, const RopeCase& c) {
    const auto x = file.at("rope." + c.name + ".x").to_floats();
    const auto want = file.at("rope." + c.name + ".y").to_doubles();
    const int rows = static_cast<int>(c.positions.size()), half = c.config.dim / 2;
    Mat<float> cos(rows, half), sin(rows, half), y(rows, static_cast<int>(x.size()) / rows);
    std::copy(x.begin(), x.end(), y.data());
    rope_table<float>(c.config, c.positions, cos.view(), sin.view());
    rope(context(), Rope<float>{y.view(), y.cols() / c.config.dim, c.config.dim, 0, cos.cview(),
                                sin.cview(), false});
    for (std::size_t i = 0; i < want.size(); ++i) {
      // Relative to the pair's length: a coordinate itself may cancel to nearly nothing.
      const double pair = std::hypot(want[i & ~std::size_t{1}], want[i | 1]);
      EXPECT_NEAR(y.data()[i], want[i], 1e-6 * pair) << i;
    }
  });
}

}  // namespace
}  // namespace cachalot
