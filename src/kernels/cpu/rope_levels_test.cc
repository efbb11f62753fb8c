// Rotation at every level against the reference in double, at every tail, with any threads.
#include <gmock/gmock.h>

#include "kernels/cpu/level_test.h"
#include "kernels/rope.h"
#include "testing/random_mat.h"

namespace cachalot {
namespace {

using testing::convert;
using testing::random_mat;
class RopeLevels : public testing::LevelTest {};
CACHALOT_EVERY_LEVEL(RopeLevels);

TEST_P(RopeLevels, EveryTailBothWays) {
  for (int half = 1; half <= 34; ++half) {
    const int heads = 1 + half % 3, stride = 2 * half + half % 5, cols = heads * stride + 3;
    const Mat<float> before = random_mat<float>(3, cols, 1);
    const Mat<float> cos = random_mat<float>(3, half, 2), sin = random_mat<float>(3, half, 3);
    const Mat<double> wide_cos = convert<double>(cos), wide_sin = convert<double>(sin);
    for (const bool inverse : {false, true}) {
      Mat<float> x = before.clone();
      Mat<double> want = convert<double>(before);
      ops().rope(context(),
                 Rope<float>{x.view(), heads, stride, 3, cos.cview(), sin.cview(), inverse});
      rope_ref(Context{}, Rope<double>{want.view(), heads, stride, 3, wide_cos.cview(),
                                       wide_sin.cview(), inverse});
      // Two products and a sum, each rounded: bounded by the sum of both magnitudes.
      Mat<double> size(3, cols);
      for (int t = 0; t < 3; ++t) {
        for (int j = 3; j < cols; ++j) {
          const int at = (j - 3) % stride, i = at / 2;
          if (at >= 2 * half || (j - 3) / stride >= heads) continue;  // untouched: exact
          const int other = at % 2 == 0 ? j + 1 : j - 1;
          size.at(t, j) = std::abs(before.at(t, j) * double{cos.at(t, i)}) +
                          std::abs(before.at(t, other) * double{sin.at(t, i)});
        }
      }
      testing::expect_within(x.span(), want.span(), size.span(), 3 * testing::kUnit,
                             "half " + std::to_string(half));
    }
  }
}

TEST_P(RopeLevels, ThreadsDoNotMatter) {
  const Mat<float> before = random_mat<float>(77, 3 * 40, 1);
  const Mat<float> cos = random_mat<float>(77, 13, 2), sin = random_mat<float>(77, 13, 3);
  Mat<float> first;
  with_threads([&](const Context& ctx, int threads) {
    Mat<float> x = before.clone();
    rope(ctx, Rope<float>{x.view(), 3, 40, 5, cos.cview(), sin.cview(), false});
    if (threads == 1) first = x.clone();
    EXPECT_TRUE(std::equal(x.span().begin(), x.span().end(), first.data())) << threads;
  });
}

}  // namespace
}  // namespace cachalot
