// Dropout's rules on the reference: which bits decide, how many fall, that what is kept is scaled,
// and its gradient.
#include "kernels/dropout.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "base/rng.h"
#include "kernels/table.h"
#include "testing/finite_difference.h"
#include "testing/random_mat.h"

namespace cachalot {
namespace {

using testing::random_mat;

Mat<float> dropped(const DropoutMask& mask, const Mat<float>& x) {
  Mat<float> y(x.rows(), x.cols());
  dropout_ref(Context{}, Dropout<float>{mask, x.cview(), y.view()});
  return y;
}
Mat<float> ones(int rows, int cols) {
  Mat<float> x(rows, cols);
  for (float& v : x.span()) v = 1;
  return x;
}

TEST(Dropout, TheRateIsTheOneThatIsDrawn) {
  EXPECT_EQ(dropout_threshold(0), 0U);
  EXPECT_EQ(dropout_threshold(0.5), 0x8000U);
  EXPECT_EQ(dropout_threshold(0.2), 13107U);
  EXPECT_EQ(dropout_threshold(0.999999999), 0xFFFFU);
  EXPECT_EQ(dropout_scale(0), 1.0F);
  EXPECT_EQ(dropout_scale(0x8000), 2.0F);
  EXPECT_EQ(dropout_scale(13107), static_cast<float>(65536.0 / 52429.0));
}

TEST(Dropout, TheContractSaysWhichBitsDecide) {
  const DropoutMask mask{0.3, 77, 5, 1000};
  const std::uint32_t threshold = dropout_threshold(0.3);
  const Mat<float> y = dropped(mask, ones(3, 300));
  const Rng rng(77, 5);
  for (const auto& [t, j, counter, word, half] :
       {std::array{0, 0, 3000 * 16, 0, 0}, std::array{0, 1, 3000 * 16, 0, 1},
        std::array{0, 33, 3000 * 16, 1, 1}, std::array{1, 127, 3003 * 16 + 15, 3, 1},
        std::array{1, 128, 3004 * 16, 0, 0}, std::array{2, 299, (3006 + 2) * 16 + 5, 1, 1}}) {
    const std::uint32_t block =
        rng.block(static_cast<std::uint64_t>(counter))[static_cast<std::size_t>(word)];
    const std::uint32_t bits = half == 0 ? block & 0xFFFF : block >> 16;
    EXPECT_EQ(y.at(t, j), bits >= threshold ? dropout_scale(threshold) : 0.0F) << t << ", " << j;
  }
}

TEST(Dropout, ARowHasItsMaskWhereverItLies) {
  const Mat<float> x = random_mat<float>(7, 200, 1);
  const Mat<float> all = dropped({0.4, 3, 9, 50}, x);
  for (int t = 0; t < 7; ++t) {
    Mat<float> one(1, 200);
    dropout_ref(Context{},
                Dropout<float>{{0.4, 3, 9, 50 + t}, x.cview().sub_rows(t, 1), one.view()});
    EXPECT_TRUE(std::equal(one.row(0), one.row(0) + 200, all.row(t))) << t;
  }
}

// n independent draws have p n of them dropped, give or take 5 sqrt(p (1 - p) n).
TEST(Dropout, AsManyFallAsTheRateSays) {
  constexpr int kRows = 500, kCols = 256, kCount = kRows * kCols;
  for (const double rate : {0.0, 0.01, 0.1, 0.2, 0.5, 0.9}) {
    const Mat<float> y = dropped({rate, 1, 2, 0}, ones(kRows, kCols));
    const double p = dropout_threshold(rate) * 0x1p-16;
    double zeros = 0;
    for (const float v : y.span()) {
      zeros += v == 0 ? 1 : 0;
      ASSERT_TRUE(v == 0 || v == dropout_scale(dropout_threshold(rate)));
    }
    EXPECT_NEAR(zeros, p * kCount, 5 * std::sqrt(p * (1 - p) * kCount)) << rate;
  }
}

// Masks of another seed, stream or row, and of neighbouring columns, agree as often as independent
// ones do: half of the time at rate 0.5.
TEST(Dropout, MasksAreIndependent) {
  constexpr int kRows = 400, kCols = 256, kCount = kRows * kCols;
  const Mat<float> x = ones(kRows, kCols);
  const Mat<float> a = dropped({0.5, 1, 2, 0}, x);
  const auto expect_half = [&](const Mat<float>& b, int shift, const char* what) {
    int same = 0;
    for (std::size_t i = 0; i + static_cast<std::size_t>(shift) < a.size(); ++i) {
      same += a.data()[i] == b.data()[i + static_cast<std::size_t>(shift)] ? 1 : 0;
    }
    EXPECT_NEAR(same, (kCount - shift) / 2.0, 5 * std::sqrt(kCount) / 2) << what;
  };
  expect_half(dropped({0.5, 2, 2, 0}, x), 0, "seed");
  expect_half(dropped({0.5, 1, 3, 0}, x), 0, "stream");
  expect_half(dropped({0.5, 1, 2, kRows}, x), 0, "rows");
  expect_half(a, 1, "columns");
  expect_half(a, 2, "counters");
  expect_half(a, 32, "words");
  expect_half(a, kCols, "rows below");
}

TEST(Dropout, AccumulatesAndWorksInPlace) {
  const Mat<float> x = random_mat<float>(5, 150, 1), before = random_mat<float>(5, 150, 2);
  const DropoutMask mask{0.25, 4, 6, 8};
  const Mat<float> y = dropped(mask, x);
  Mat<float> sum = before.clone(), in_place = x.clone();
  dropout(Context{&kReferenceTable}, {mask, x.cview(), sum.view(), true});
  dropout(Context{&kReferenceTable}, {mask, in_place.cview(), in_place.view()});
  for (std::size_t i = 0; i < x.size(); ++i) {
    ASSERT_EQ(in_place.data()[i], y.data()[i]);
    ASSERT_EQ(sum.data()[i], before.data()[i] + y.data()[i]);
  }
}

TEST(Dropout, TheGradientIsTheSameOp) {
  const DropoutMask mask{0.35, 11, 1, 5};
  Mat<double> x = random_mat<double>(3, 140, 1), y(3, 140), dx(3, 140);
  const Mat<double> dy = random_mat<double>(3, 140, 2);
  const auto loss = [&] {
    dropout_ref(Context{}, Dropout<double>{mask, x.cview(), y.view()});
    return testing::dot<double>(y.span(), dy.span());
  };
  dropout_ref(Context{}, Dropout<double>{mask, dy.cview(), dx.view()});
  testing::expect_gradient("dx", loss, x.span(), dx.span());
}

TEST(Dropout, RefusesWhatDoesNotFit) {
  const Context ctx{&kReferenceTable};
  Mat<float> x(2, 3), y(2, 4);
  const auto code = [&](double rate, Mat<float>& out) {
    try {
      dropout(ctx, {{rate, 1, 1, 0}, x.cview(), out.view()});
    } catch (const Error& e) {
      return e.code();
    }
    return Code::kInternal;
  };
  EXPECT_EQ(code(0.1, y), Code::kShape);
  EXPECT_EQ(code(1.0, x), Code::kUsage);
  EXPECT_EQ(code(-0.1, x), Code::kUsage);
  EXPECT_EQ(code(std::nan(""), x), Code::kUsage);
}

}  // namespace
}  // namespace cachalot
