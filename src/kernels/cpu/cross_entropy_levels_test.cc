// Cross entropy at every level against the reference in double, at every tail, with any threads.
#include "kernels/cross_entropy.h"

#include <gmock/gmock.h>

#include "kernels/cpu/level_test.h"
#include "testing/random_mat.h"

namespace cachalot {
namespace {

using testing::convert;
using testing::kUnit;
using testing::random_mat;
class CrossEntropyLevels : public testing::LevelTest {};
CACHALOT_EVERY_LEVEL(CrossEntropyLevels);

// Rows whose largest logit lies early, late and in the middle, also past the blocks of the kernel.
Mat<float> some_logits(int vocab) {
  Mat<float> logits = random_mat<float>(4, vocab, 1, 4);
  logits.at(0, 0) += 10;
  logits.at(1, vocab - 1) += 30;
  logits.at(2, vocab / 2) += 10;
  return logits;
}

TEST_P(CrossEntropyLevels, EveryTail) {
  auto sizes = testing::tail_sizes();
  for (const int n : {2047, 2048, 2049, 4099, 20011}) sizes.push_back(n);
  for (const int vocab : sizes) {
    const Mat<float> logits = some_logits(vocab);
    const std::vector<std::int32_t> targets{0, vocab / 3, vocab - 1, vocab / 2};
    Mat<float> got = logits.clone();
    Mat<double> want = convert<double>(logits), size(4, vocab);
    std::vector<double> loss(4), want_loss(4);
    std::vector<std::int32_t> argmax(4), want_argmax(4);
    ops().cross_entropy(context(),
                        CrossEntropy<float>{got.view(), targets, loss, argmax, true, 0.25f});
    cross_entropy_ref(
        Context{}, CrossEntropy<double>{want.view(), targets, want_loss, want_argmax, true, 0.25});
    EXPECT_EQ(argmax, want_argmax) << vocab;
    // exp(x - top): the difference d rounds to u |d|, and |d| e^d <= 1/e for each term, so the sum
    // is off by the error of exp, and by u max |d| at the very most.
    const double spread = 80;  // larger than any |d| here
    const double relative = testing::kExpError + spread * kUnit;
    for (std::size_t t = 0; t < 4; ++t)
      EXPECT_NEAR(loss[t], want_loss[t], relative) << vocab << " " << t;
    for (int t = 0; t < 4; ++t) {
      for (int v = 0; v < vocab; ++v) {
        size.at(t, v) = v == targets[static_cast<std::size_t>(t)] ? 0.25 : want.at(t, v);
      }
    }
    testing::expect_within(got.span(), want.span(), size.span(), 2 * relative + 3 * kUnit,
                           "vocab " + std::to_string(vocab));
  }
}

TEST_P(CrossEntropyLevels, AGradientBesideTheLogitsIsTheOneInPlaceRounded) {
  const std::vector<std::int32_t> targets{0, -1, 0, 2};
  for (const int vocab : {3, 16, 33, 2049}) {
    Mat<float> logits = some_logits(vocab), in_place = logits.clone();
    const Mat<float> before = logits.clone();
    std::vector<double> loss(4), want_loss(4);
    Mat<Bf16> got(4, vocab);
    cross_entropy(context(), {in_place.view(), targets, want_loss, {}, true, 0.25f});
    cross_entropy(context(), {logits.view(), targets, loss, {}, true, 0.25f, got.view()});
    EXPECT_EQ(loss, want_loss);
    for (std::size_t i = 0; i < got.size(); ++i) {
      ASSERT_EQ(to_float(got.data()[i]), to_float(to_bf16(in_place.data()[i])))
          << vocab << " " << i;
      ASSERT_EQ(logits.data()[i], before.data()[i]);
    }
  }
  Mat<float> logits(4, 3);
  Mat<Bf16> narrow(4, 2);
  std::vector<double> loss(4);
  EXPECT_THROW(cross_entropy(context(), {logits.view(), targets, loss, {}, true, 1, narrow.view()}),
               Error);
}

TEST_P(CrossEntropyLevels, ThreadsDoNotMatter) {
  const Mat<float> logits = random_mat<float>(9, 5003, 1);
  const std::vector<std::int32_t> targets{1, 2, 3, -1, 5, 6, 7, 8, 5002};
  Mat<float> first;
  std::vector<double> loss1;
  with_threads([&](const Context& ctx, int threads) {
    Mat<float> x = logits.clone();
    std::vector<double> loss(9);
    cross_entropy(ctx, CrossEntropy<float>{x.view(), targets, loss, {}, true, 1});
    if (threads == 1) first = x.clone(), loss1 = loss;
    EXPECT_TRUE(std::equal(x.span().begin(), x.span().end(), first.data())) << threads;
    EXPECT_EQ(loss, loss1) << threads;
  });
}

}  // namespace
}  // namespace cachalot
