#include "kernels/cross_entropy.h"

#include <gmock/gmock.h>

#include <cmath>
#include <limits>

#include "kernels/cpu/level_test.h"
#include "testing/finite_difference.h"
#include "testing/random_mat.h"

namespace cachalot {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using testing::random_mat;
class CrossEntropyTest : public testing::LevelTest {};
CACHALOT_EVERY_LEVEL(CrossEntropyTest);

TEST_P(CrossEntropyTest, EqualLogitsCostTheLogOfTheVocabulary) {
  for (const int vocab : {1, 2, 17, 1000}) {
    Mat<float> logits(1, vocab);
    std::fill_n(logits.data(), vocab, 3.5f);
    const std::vector<std::int32_t> targets{vocab - 1};
    std::vector<double> loss(1);
    cross_entropy(context(), CrossEntropy<float>{logits.view(), targets, loss, {}, false, 1});
    EXPECT_NEAR(loss[0], std::log(vocab), 1e-6 * std::log(2.0 * vocab));
    EXPECT_THAT(logits.span(), Each(3.5f)) << "without backward the logits stay";
  }
}

TEST_P(CrossEntropyTest, RowsWithoutTargetCostNothing) {
  Mat<float> logits = random_mat<float>(3, 33, 1);
  const std::vector<std::int32_t> targets{-1, 4, -1};
  std::vector<double> loss(3, 7.0);
  std::vector<std::int32_t> argmax(3, -5);
  const std::vector<std::int32_t> want_argmax = [&] {
    std::vector<std::int32_t> best;
    for (int t = 0; t < 3; ++t) {
      best.push_back(static_cast<std::int32_t>(std::max_element(logits.row(t), logits.row(t) + 33) -
                                               logits.row(t)));
    }
    return best;
  }();
  cross_entropy(context(), CrossEntropy<float>{logits.view(), targets, loss, argmax, true, 0.5f});
  EXPECT_EQ(loss[0], 0.0);
  EXPECT_GT(loss[1], 0.0);
  EXPECT_EQ(loss[2], 0.0);
  EXPECT_THAT(std::span(logits.row(0), 33), Each(0.0f));
  EXPECT_THAT(std::span(logits.row(2), 33), Each(0.0f));
  EXPECT_LT(logits.at(1, 4), 0.0f);
  EXPECT_EQ(argmax, want_argmax) << "the argmax is wanted for every row";
}

TEST_P(CrossEntropyTest, TiesTakeTheLowerIndex) {
  for (const int vocab : {5, 40, 100}) {
    for (int at = 0; at + 1 < vocab; at += 3) {
      Mat<float> logits(1, vocab);
      logits.at(0, at) = 2, logits.at(0, vocab - 1) = 2;
      const std::vector<std::int32_t> targets{0};
      std::vector<double> loss(1);
      std::vector<std::int32_t> argmax(1, -1);
      cross_entropy(context(), CrossEntropy<float>{logits.view(), targets, loss, argmax, false, 1});
      EXPECT_EQ(argmax[0], at) << vocab;
    }
  }
}

TEST_P(CrossEntropyTest, LargeLogitsDoNotOverflow) {
  Mat<float> logits(1, 4);
  const float inf = std::numeric_limits<float>::infinity();
  logits.at(0, 0) = 1e4f, logits.at(0, 1) = 1e4f, logits.at(0, 2) = -1e4f, logits.at(0, 3) = -inf;
  const std::vector<std::int32_t> targets{1};
  std::vector<double> loss(1);
  cross_entropy(context(), CrossEntropy<float>{logits.view(), targets, loss, {}, true, 1});
  EXPECT_NEAR(loss[0], std::log(2.0), 1e-6);
  EXPECT_THAT(logits.span(), ElementsAre(::testing::FloatNear(0.5f, 1e-6f),
                                         ::testing::FloatNear(-0.5f, 1e-6f), 0.0f, 0.0f));
}

TEST_P(CrossEntropyTest, TargetsHaveToBeInTheVocabulary) {
  Mat<float> logits(1, 4);
  std::vector<double> loss(1);
  for (const std::int32_t target : {-2, 4}) {
    const std::vector<std::int32_t> targets{target};
    EXPECT_THROW(
        cross_entropy(context(), CrossEntropy<float>{logits.view(), targets, loss, {}, false, 1}),
        Error);
  }
}

TEST_P(CrossEntropyTest, NoRowsIsNoWork) {
  Mat<float> none(0, 4);
  cross_entropy(context(), CrossEntropy<float>{none.view(), {}, {}, {}, true, 1});
}

TEST(CrossEntropyGradientTest, FiniteDifferences) {
  const Context ctx;
  Mat<double> logits = random_mat<double>(4, 6, 1, 2);
  const std::vector<std::int32_t> targets{5, 0, -1, 3};
  const double scale = 0.7;
  std::vector<double> losses(4);
  const auto loss = [&] {
    Mat<double> copy = logits.clone();
    cross_entropy_ref(ctx, CrossEntropy<double>{copy.view(), targets, losses, {}, false, 1});
    double sum = 0;
    for (const double l : losses) sum += scale * l;
    return sum;
  };
  Mat<double> gradient = logits.clone();
  cross_entropy_ref(ctx, CrossEntropy<double>{gradient.view(), targets, losses, {}, true, scale});
  testing::expect_gradient("logits", loss, logits.span(), gradient.span());
}

}  // namespace
}  // namespace cachalot
