// The norm at every level against the reference in double, at every tail, with any threads.
#include <gmock/gmock.h>

#include "kernels/cpu/level_test.h"
#include "kernels/rms_norm.h"
#include "testing/random_mat.h"

namespace cachalot {
namespace {

using testing::convert;
using testing::kUnit;
using testing::random_mat;
using testing::random_vec;
class RmsNormLevels : public testing::LevelTest {};
CACHALOT_EVERY_LEVEL(RmsNormLevels);

TEST_P(RmsNormLevels, ForwardAtEveryTail) {
  for (const int cols : testing::tail_sizes()) {
    const auto n = static_cast<std::size_t>(cols);
    const Mat<float> x = random_mat<float>(3, cols, 1);
    const auto weight = random_vec<float>(n, 2);
    Mat<float> y(3, cols);
    std::vector<float> rstd(3);
    ops().rms_norm(context(), RmsNorm<float>{x.cview(), weight, 1e-6f, y.view(), rstd});
    Mat<double> want(3, cols);
    std::vector<double> want_rstd(3);
    const Mat<double> wide = convert<double>(x);
    const auto wide_weight = convert<double>(weight);
    rms_norm_ref(Context{},
                 RmsNorm<double>{wide.cview(), wide_weight, double{1e-6f}, want.view(), want_rstd});
    // A sum of n squares is off by n u at most, its root by half that; six more roundings.
    const double relative = (cols / 2.0 + 6) * kUnit;
    testing::expect_within(y.span(), want.span(), want.span(), relative,
                           "y " + std::to_string(cols));
    testing::expect_within(rstd, want_rstd, want_rstd, relative, "rstd");
  }
}

TEST_P(RmsNormLevels, BackwardAtEveryTailAndRowBlock) {
  for (const auto& [rows, cols] : {std::pair{1, 1},
                                   {2, 7},
                                   {3, 8},
                                   {3, 15},
                                   {2, 16},
                                   {5, 17},
                                   {1, 31},
                                   {2, 33},
                                   {64, 20},
                                   {65, 40},
                                   {130, 65},
                                   {3, 1031}}) {
    const Mat<float> x = random_mat<float>(rows, cols, 1), dy = random_mat<float>(rows, cols, 3);
    const auto weight = random_vec<float>(static_cast<std::size_t>(cols), 2);
    std::vector<float> rstd = random_vec<float>(static_cast<std::size_t>(rows), 4);
    for (float& r : rstd) r = 0.5f + std::abs(r);
    for (const bool add : {false, true}) {
      Mat<float> dx = random_mat<float>(rows, cols, 5);
      std::vector<float> dweight = random_vec<float>(weight.size(), 6);
      Mat<double> want = convert<double>(dx);
      std::vector<double> want_dweight = convert<double>(dweight);
      // The same op on magnitudes, every difference made a sum: each element's own bound.
      Mat<double> size = convert<double>(testing::magnitude(dx));
      std::vector<double> dweight_size(weight.size());
      for (int j = 0; j < cols; ++j) {
        const auto at = static_cast<std::size_t>(j);
        dweight_size[at] = std::abs(want_dweight[at]);
        for (int t = 0; t < rows; ++t) {
          dweight_size[at] +=
              std::abs(double{dy.at(t, j)} * x.at(t, j) * rstd[static_cast<std::size_t>(t)]);
        }
      }
      for (int t = 0; t < rows; ++t) {
        const double r = rstd[static_cast<std::size_t>(t)];
        double dot = 0;
        for (int j = 0; j < cols; ++j) {
          dot += std::abs(double{dy.at(t, j)} * weight[static_cast<std::size_t>(j)] * x.at(t, j));
        }
        for (int j = 0; j < cols; ++j) {
          const double s =
              r * (std::abs(dy.at(t, j) * double{weight[static_cast<std::size_t>(j)]}) +
                   std::abs(x.at(t, j)) * r * r * dot / cols);
          size.at(t, j) = s + (add ? size.at(t, j) : 0);
        }
      }
      ops().rms_norm_backward(context(), RmsNormBackward<float>{x.cview(), weight, rstd, dy.cview(),
                                                                dx.view(), add, dweight});
      const Mat<double> wide_x = convert<double>(x), wide_dy = convert<double>(dy);
      const auto wide_weight = convert<double>(weight), wide_rstd = convert<double>(rstd);
      rms_norm_backward_ref(
          Context{}, RmsNormBackward<double>{wide_x.cview(), wide_weight, wide_rstd,
                                             wide_dy.cview(), want.view(), add, want_dweight});
      const auto what = std::to_string(rows) + " x " + std::to_string(cols);
      testing::expect_within(dx.span(), want.span(), size.span(), (cols + 10) * kUnit,
                             "dx " + what);
      testing::expect_within(dweight, want_dweight, dweight_size, (rows + 4) * kUnit,
                             "dweight " + what);
    }
  }
}

TEST_P(RmsNormLevels, ThreadsDoNotMatter) {
  const int rows = 300, cols = 193;
  const Mat<float> x = random_mat<float>(rows, cols, 1), dy = random_mat<float>(rows, cols, 2);
  const auto weight = random_vec<float>(193, 3);
  Mat<float> y1, dx1;
  std::vector<float> dw1;
  with_threads([&](const Context& ctx, int threads) {
    Mat<float> y(rows, cols), dx(rows, cols);
    std::vector<float> rstd(300), dw(193);
    rms_norm(ctx, RmsNorm<float>{x.cview(), weight, 1e-6f, y.view(), rstd});
    rms_norm_backward(
        ctx, RmsNormBackward<float>{x.cview(), weight, rstd, dy.cview(), dx.view(), false, dw});
    if (threads == 1) {
      y1 = y.clone(), dx1 = dx.clone(), dw1 = dw;
    }
    EXPECT_TRUE(std::equal(y.span().begin(), y.span().end(), y1.data())) << threads;
    EXPECT_TRUE(std::equal(dx.span().begin(), dx.span().end(), dx1.data())) << threads;
    EXPECT_EQ(dw, dw1) << threads;
  });
}

}  // namespace
}  // namespace cachalot
