// Combine and its gradient at every level against the reference in double, at every tail.
#include "kernels/permute.h"

#include <gmock/gmock.h>

#include "kernels/cpu/level_test.h"
#include "testing/random_mat.h"

namespace cachalot {
namespace {

using testing::convert;
using testing::kUnit;
using testing::magnitude;
using testing::random_mat;
class PermuteLevels : public testing::LevelTest {};
CACHALOT_EVERY_LEVEL(PermuteLevels);

// `tokens` tokens with k choices of 2 k experts, some of which stay empty.
ExpertOrder some_order(int tokens, int k) {
  Mat<std::int32_t> index(tokens, k);
  for (int t = 0; t < tokens; ++t) {
    for (int j = 0; j < k; ++j) index.at(t, j) = (t * t + j) % (2 * k - 1);
  }
  ExpertOrder order;
  expert_order(index.cview(), 2 * k, order);
  return order;
}

TEST_P(PermuteLevels, GatherCopiesRowsAtEveryTail) {
  for (const int cols : testing::tail_sizes()) {
    const Mat<float> x = random_mat<float>(5, cols, 1);
    const std::vector<std::int32_t> rows{4, 0, 0, 3, 1, 4, 2};
    Mat<float> wider(static_cast<int>(rows.size()), cols + 3);  // what lies beside stays
    ops().gather_rows(context(),
                      GatherRows<float>{x.cview(), rows, wider.view().sub_cols(0, cols)});
    for (int r = 0; r < wider.rows(); ++r) {
      const float* from = x.row(rows[static_cast<std::size_t>(r)]);
      EXPECT_TRUE(std::equal(from, from + cols, wider.row(r))) << cols << ", row " << r;
      for (int c = cols; c < cols + 3; ++c) EXPECT_EQ(wider.at(r, c), 0.0f) << cols;
    }
  }
}

TEST_P(PermuteLevels, CombineAtEveryTail) {
  constexpr int kTokens = 11, kChoices = 3;
  const ExpertOrder order = some_order(kTokens, kChoices);
  for (const int cols : testing::tail_sizes()) {
    const Mat<float> y = random_mat<float>(kTokens * kChoices, cols, 1),
                     before = random_mat<float>(kTokens, cols, 3);
    const Mat<float> weight = random_mat<float>(kTokens, kChoices, 2);
    const Mat<double> wide_y = convert<double>(y), wide_weight = convert<double>(weight);
    const Mat<double> size_y = convert<double>(magnitude(y)),
                      size_weight = convert<double>(magnitude(weight));
    for (const bool weighted : {false, true}) {
      for (const bool add : {false, true}) {
        Mat<float> out = before.clone();
        Mat<double> want = convert<double>(before), size = convert<double>(magnitude(before));
        const auto view = [&](const auto& m) {
          return weighted ? m.cview() : decltype(m.cview()){};
        };
        ops().combine(context(),
                      Combine<float>{y.cview(), order.slot.cview(), view(weight), out.view(), add});
        combine_ref(Context{}, Combine<double>{wide_y.cview(), order.slot.cview(),
                                               view(wide_weight), want.view(), add});
        combine_ref(Context{}, Combine<double>{size_y.cview(), order.slot.cview(),
                                               view(size_weight), size.view(), add});
        testing::expect_within(out.span(), want.span(), size.span(), (kChoices + 2) * kUnit,
                               std::to_string(cols));
      }
    }
  }
}

TEST_P(PermuteLevels, CombineBackwardAtEveryTail) {
  constexpr int kTokens = 11, kChoices = 3;
  const ExpertOrder order = some_order(kTokens, kChoices);
  for (const int cols : testing::tail_sizes()) {
    const Mat<float> y = random_mat<float>(kTokens * kChoices, cols, 1),
                     dout = random_mat<float>(kTokens, cols, 2);
    const Mat<float> weight = random_mat<float>(kTokens, kChoices, 3);
    Mat<float> dy(kTokens * kChoices, cols), dweight(kTokens, kChoices);
    ops().combine_backward(context(),
                           CombineBackward<float>{dout.cview(), y.cview(), order.slot.cview(),
                                                  weight.cview(), dy.view(), dweight.view()});
    const auto reference = [&](bool sizes, MatView<double> wanted_dy,
                               MatView<double> wanted_dweight) {
      const auto wide = [&](const Mat<float>& m) {
        return convert<double>(sizes ? magnitude(m) : m.clone());
      };
      const Mat<double> a = wide(dout), b = wide(y), c = wide(weight);
      combine_backward_ref(
          Context{}, CombineBackward<double>{a.cview(), b.cview(), order.slot.cview(), c.cview(),
                                             wanted_dy, wanted_dweight});
    };
    Mat<double> want_dy(kTokens * kChoices, cols), want_dweight(kTokens, kChoices);
    Mat<double> size_dy(kTokens * kChoices, cols), size_dweight(kTokens, kChoices);
    reference(false, want_dy.view(), want_dweight.view());
    reference(true, size_dy.view(), size_dweight.view());
    testing::expect_within(dy.span(), want_dy.span(), size_dy.span(), kUnit, "dy");
    testing::expect_within(dweight.span(), want_dweight.span(), size_dweight.span(),
                           (cols + 1) * kUnit, "dweight");
    Mat<float> only(kTokens * kChoices, cols);
    ops().combine_backward(
        context(),
        CombineBackward<float>{
            dout.cview(), y.cview(), order.slot.cview(), weight.cview(), only.view(), {}});
    ASSERT_THAT(only.span(), ::testing::ElementsAreArray(dy.span())) << "without dweight";
  }
}

TEST_P(PermuteLevels, ThreadsDoNotMatter) {
  const ExpertOrder order = some_order(50, 4);
  const Mat<float> y = random_mat<float>(200, 37, 1), weight = random_mat<float>(50, 4, 2);
  const Mat<float> dout = random_mat<float>(50, 37, 3);
  Mat<float> out1, dy1, dw1;
  with_threads([&](const Context& ctx, int threads) {
    Mat<float> out(50, 37), dy(200, 37), dw(50, 4);
    combine(ctx, Combine<float>{y.cview(), order.slot.cview(), weight.cview(), out.view(), false});
    combine_backward(ctx, CombineBackward<float>{dout.cview(), y.cview(), order.slot.cview(),
                                                 weight.cview(), dy.view(), dw.view()});
    if (threads == 1) out1 = out.clone(), dy1 = dy.clone(), dw1 = dw.clone();
    EXPECT_TRUE(std::equal(out.span().begin(), out.span().end(), out1.data())) << threads;
    EXPECT_TRUE(std::equal(dy.span().begin(), dy.span().end(), dy1.data())) << threads;
    EXPECT_TRUE(std::equal(dw.span().begin(), dw.span().end(), dw1.data())) << threads;
  });
}

}  // namespace
}  // namespace cachalot
