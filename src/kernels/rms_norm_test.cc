#include "kernels/rms_norm.h"

#include <gmock/gmock.h>

#include <cmath>

#include "io/safetensors.h"
#include "kernels/cpu/level_test.h"
#include "testing/finite_difference.h"
#include "testing/fixtures.h"
#include "testing/random_mat.h"

namespace cachalot {
namespace {

using testing::random_mat;
using testing::random_vec;
class RmsNormTest : public testing::LevelTest {};
CACHALOT_EVERY_LEVEL(RmsNormTest);

TEST_P(RmsNormTest, EpsIsInsideTheRoot) {
  Mat<float> x(1, 3), y(1, 3);
  std::fill_n(x.data(), 3, 1e-4f);  // mean of squares 1e-8, far below eps
  const std::vector<float> weight{1, 2, -4};
  std::vector<float> rstd(1);
  rms_norm(context(), RmsNorm<float>{x.cview(), weight, 1e-6f, y.view(), rstd});
  const double want = 1 / std::sqrt(1e-8 + 1e-6);  // outside it would be 1 / (1e-4 + 1e-6)
  EXPECT_NEAR(rstd[0], want, 1e-6 * want);
  EXPECT_NEAR(y.at(0, 0), 1e-4 * want, 1e-6);
  EXPECT_NEAR(y.at(0, 1), 2e-4 * want, 1e-6);
  EXPECT_NEAR(y.at(0, 2), -4e-4 * want, 1e-6);
}

TEST_P(RmsNormTest, MayWorkInPlace) {
  const Mat<float> x = random_mat<float>(3, 37, 1);
  const auto weight = random_vec<float>(37, 2);
  Mat<float> y(3, 37), same = x.clone();
  rms_norm(context(), RmsNorm<float>{x.cview(), weight, 1e-6f, y.view(), {}});
  rms_norm(context(), RmsNorm<float>{same.cview(), weight, 1e-6f, same.view(), {}});
  EXPECT_THAT(same.span(), ::testing::ElementsAreArray(y.span()));

  const Mat<float> dy = random_mat<float>(3, 37, 3);
  const auto rstd = random_vec<float>(3, 4);
  Mat<float> dx(3, 37), in_place = dy.clone();
  std::vector<float> dw(37, 1.0f), dw_in_place(37, 1.0f);
  rms_norm_backward(
      context(), RmsNormBackward<float>{x.cview(), weight, rstd, dy.cview(), dx.view(), false, dw});
  rms_norm_backward(context(), RmsNormBackward<float>{x.cview(), weight, rstd, in_place.cview(),
                                                      in_place.view(), false, dw_in_place});
  EXPECT_THAT(in_place.span(), ::testing::ElementsAreArray(dx.span()));
  EXPECT_EQ(dw_in_place, dw);
}

TEST_P(RmsNormTest, NoRowsIsNoWork) {
  Mat<float> none(0, 8);
  const std::vector<float> weight(8, 1.0f);
  std::vector<float> dw(8, 3.0f);
  rms_norm(context(), RmsNorm<float>{none.cview(), weight, 1e-6f, none.view(), {}});
  rms_norm_backward(context(), RmsNormBackward<float>{
                                   none.cview(), weight, {}, none.cview(), none.view(), false, dw});
  EXPECT_THAT(dw, ::testing::Each(3.0f));
}

TEST_P(RmsNormTest, WrongShapesAreNamed) {
  Mat<float> x(2, 8), y(2, 8), narrow(2, 7);
  const std::vector<float> weight(8), short_weight(7);
  const auto run = [&](MatView<float> out, std::span<const float> w) {
    rms_norm(context(), RmsNorm<float>{x.cview(), w, 1e-6f, out, {}});
  };
  EXPECT_NO_THROW(run(y.view(), weight));
  EXPECT_THROW(run(narrow.view(), weight), Error);
  try {
    run(y.view(), short_weight);
    FAIL() << "a short weight was taken";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kShape);
    EXPECT_THAT(e.what(), ::testing::HasSubstr("rms_norm: weight has 7 elements but needs 8"));
  }
}

TEST(RmsNormGradientTest, FiniteDifferences) {
  const Context ctx;
  constexpr double kEps = 1e-2;  // large enough to matter in the gradient
  for (const auto& [rows, cols] : {std::pair{1, 1}, {3, 5}, {2, 17}}) {
    Mat<double> x = random_mat<double>(rows, cols, 1, 0.3), y(rows, cols);
    auto weight = random_vec<double>(static_cast<std::size_t>(cols), 2);
    const Mat<double> dy = random_mat<double>(rows, cols, 3);
    std::vector<double> rstd(static_cast<std::size_t>(rows));
    const auto loss = [&] {
      rms_norm_ref(ctx, RmsNorm<double>{x.cview(), weight, kEps, y.view(), rstd});
      return testing::dot<double>(y.span(), dy.span());
    };
    loss();
    Mat<double> dx(rows, cols);
    std::vector<double> dweight(weight.size(), 10.0);
    const std::vector<double> kept = rstd;
    rms_norm_backward_ref(ctx, RmsNormBackward<double>{x.cview(), weight, kept, dy.cview(),
                                                       dx.view(), false, dweight});
    for (double& d : dweight) d -= 10;  // it is added to
    testing::expect_gradient("dx", loss, x.span(), dx.span());
    testing::expect_gradient("dweight", loss, weight, dweight);

    Mat<double> more = dx.clone();
    rms_norm_backward_ref(
        ctx, RmsNormBackward<double>{x.cview(), weight, kept, dy.cview(), more.view(), true, {}});
    for (std::size_t i = 0; i < dx.size(); ++i) {
      EXPECT_DOUBLE_EQ(more.data()[i], 2 * dx.data()[i]);
    }
  }
}

class RmsNormFixture : public testing::LevelTest {};
CACHALOT_EVERY_LEVEL(RmsNormFixture);

TEST_P(RmsNormFixture, GivesTheStoredRows) {
  const auto folders = testing::fixture_folders(testing::FixtureKind::kOps);
  ASSERT_FALSE(folders.empty());
  for (const auto& folder : folders) {
    const auto file = io::Safetensors::open(folder / "expected.safetensors");
    const MatView<const float> x = file.at("rms.x").ref().as<float>();
    const std::vector<float> weight = file.at("rms.w").to_floats();
    const std::vector<double> want = file.at("rms.y").to_doubles();
    Mat<float> y(x.rows, x.cols);
    rms_norm(context(), RmsNorm<float>{x, weight, 1e-6f, y.view(), {}});
    for (std::size_t i = 0; i < want.size(); ++i) {
      EXPECT_NEAR(y.data()[i], want[i], 1e-5 * std::abs(want[i])) << folder << " element " << i;
    }
  }
}

TEST(RmsNormReferenceFixture, GivesTheStoredRowsInDouble) {
  const auto folders = testing::fixture_folders(testing::FixtureKind::kOps);
  ASSERT_FALSE(folders.empty());
  for (const auto& folder : folders) {
    const auto file = io::Safetensors::open(folder / "expected.safetensors");
    const auto& stored = file.at("rms.x");
    const std::vector<double> x = stored.to_doubles(), weight = file.at("rms.w").to_doubles();
    const std::vector<double> want = file.at("rms.y").to_doubles();
    const int rows = stored.ref().rows, cols = stored.ref().cols;
    Mat<double> y(rows, cols);
    rms_norm_ref(Context{},
                 RmsNorm<double>{{x.data(), rows, cols, cols}, weight, 1e-6, y.view(), {}});
    for (std::size_t i = 0; i < want.size(); ++i) {
      EXPECT_NEAR(y.data()[i], want[i], 1e-13 * std::abs(want[i])) << folder << " element " << i;
    }
  }
}

}  // namespace
}  // namespace cachalot
