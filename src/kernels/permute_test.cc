#include "kernels/permute.h"

#include <gmock/gmock.h>

#include "kernels/cpu/level_test.h"
#include "testing/finite_difference.h"
#include "testing/random_mat.h"

namespace cachalot {
namespace {

using ::testing::ElementsAre;
using testing::random_mat;
class PermuteTest : public testing::LevelTest {};
CACHALOT_EVERY_LEVEL(PermuteTest);

// Three tokens, two choices each, of five experts of which two get nothing.
Mat<std::int32_t> some_choices() {
  Mat<std::int32_t> index(3, 2);
  const std::int32_t chosen[] = {4, 0, 1, 4, 0, 1};
  std::copy_n(chosen, 6, index.data());
  return index;
}

TEST(ExpertOrderTest, SortsByExpertThenToken) {
  ExpertOrder order;
  expert_order(some_choices().cview(), 5, order);
  EXPECT_THAT(order.begin, ElementsAre(0, 2, 4, 4, 4, 6));
  EXPECT_THAT(order.token.span(), ElementsAre(0, 2, 1, 2, 0, 1));
  EXPECT_THAT(order.slot.span(), ElementsAre(4, 0, 2, 5, 1, 3));
}

TEST(ExpertOrderTest, NoTokens) {
  ExpertOrder order;
  expert_order(Mat<std::int32_t>(0, 2).cview(), 3, order);
  EXPECT_THAT(order.begin, ElementsAre(0, 0, 0, 0));
  EXPECT_TRUE(order.token.span().empty());
}

TEST(ExpertOrderTest, RefusesExpertsThatDoNotExist) {
  ExpertOrder order;
  Mat<std::int32_t> index(1, 1);
  for (const std::int32_t e : {-1, 3}) {
    index.at(0, 0) = e;
    EXPECT_THROW(expert_order(index.cview(), 3, order), Error);
  }
}

TEST_P(PermuteTest, GatherThenCombineWithoutWeightsCountsTheChoices) {
  ExpertOrder order;
  expert_order(some_choices().cview(), 5, order);
  const Mat<float> x = random_mat<float>(3, 21, 1);
  Mat<float> rows(6, 21), out(3, 21);
  gather_rows(context(), GatherRows<float>{x.cview(), order.token.span(), rows.view()});
  for (int r = 0; r < 6; ++r) {
    EXPECT_EQ(rows.at(r, 20), x.at(order.token.data()[r], 20));
  }
  combine(context(), Combine<float>{rows.cview(), order.slot.cview(), {}, out.view(), false});
  for (std::size_t i = 0; i < x.size(); ++i) EXPECT_EQ(out.data()[i], 2 * x.data()[i]);
  combine(context(), Combine<float>{rows.cview(), order.slot.cview(), {}, out.view(), true});
  for (std::size_t i = 0; i < x.size(); ++i) EXPECT_EQ(out.data()[i], 4 * x.data()[i]);
}

TEST_P(PermuteTest, CombineBackwardMayOverwriteItsInput) {
  ExpertOrder order;
  expert_order(some_choices().cview(), 5, order);
  const Mat<float> dout = random_mat<float>(3, 21, 1), weight = random_mat<float>(3, 2, 2);
  const Mat<float> y = random_mat<float>(6, 21, 3);
  Mat<float> dy(6, 21), dw(3, 2), same = y.clone(), dw_same(3, 2);
  combine_backward(context(), CombineBackward<float>{dout.cview(), y.cview(), order.slot.cview(),
                                                     weight.cview(), dy.view(), dw.view()});
  combine_backward(context(), CombineBackward<float>{dout.cview(), same.cview(), order.slot.cview(),
                                                     weight.cview(), same.view(), dw_same.view()});
  EXPECT_THAT(same.span(), ::testing::ElementsAreArray(dy.span()));
  EXPECT_THAT(dw_same.span(), ::testing::ElementsAreArray(dw.span()));
}

TEST_P(PermuteTest, RowsHaveToExist) {
  Mat<float> x(3, 4), out(1, 4);
  Mat<std::int32_t> slot(1, 1);
  for (const std::int32_t row : {-1, 3}) {
    const std::vector<std::int32_t> rows{row};
    slot.at(0, 0) = row;
    EXPECT_THROW(gather_rows(context(), GatherRows<float>{x.cview(), rows, out.view()}), Error);
    EXPECT_THROW(combine(context(), Combine<float>{x.cview(), slot.cview(), {}, out.view(), false}),
                 Error);
    EXPECT_THROW(combine_backward(context(),
                                  CombineBackward<float>{
                                      out.cview(), x.cview(), slot.cview(), {}, x.view(), {}}),
                 Error);
  }
}

TEST_P(PermuteTest, NoTokensIsNoWork) {
  Mat<float> none(0, 4);
  Mat<std::int32_t> slot(0, 2);
  gather_rows(context(), GatherRows<float>{none.cview(), {}, none.view()});
  combine(context(), Combine<float>{none.cview(), slot.cview(), {}, none.view(), true});
  combine_backward(context(), CombineBackward<float>{
                                  none.cview(), none.cview(), slot.cview(), {}, none.view(), {}});
}

TEST(PermuteGradientTest, Combine) {
  const Context ctx;
  ExpertOrder order;
  expert_order(some_choices().cview(), 5, order);
  Mat<double> y = random_mat<double>(6, 4, 1), weight = random_mat<double>(3, 2, 2), out(3, 4);
  const Mat<double> dout = random_mat<double>(3, 4, 3);
  const auto loss = [&] {
    combine_ref(ctx,
                Combine<double>{y.cview(), order.slot.cview(), weight.cview(), out.view(), false});
    return testing::dot<double>(out.span(), dout.span());
  };
  Mat<double> dy(6, 4), dweight(3, 2);
  combine_backward_ref(ctx, CombineBackward<double>{dout.cview(), y.cview(), order.slot.cview(),
                                                    weight.cview(), dy.view(), dweight.view()});
  testing::expect_gradient("dy", loss, y.span(), dy.span());
  testing::expect_gradient("dweight", loss, weight.span(), dweight.span());
}

// The gradient of a gather is the combine without weights.
TEST(PermuteGradientTest, Gather) {
  const Context ctx;
  ExpertOrder order;
  expert_order(some_choices().cview(), 5, order);
  Mat<double> x = random_mat<double>(3, 4, 1), rows(6, 4), dx(3, 4);
  const Mat<double> drows = random_mat<double>(6, 4, 2);
  const auto loss = [&] {
    gather_rows_ref(ctx, GatherRows<double>{x.cview(), order.token.span(), rows.view()});
    return testing::dot<double>(rows.span(), drows.span());
  };
  combine_ref(ctx, Combine<double>{drows.cview(), order.slot.cview(), {}, dx.view(), false});
  testing::expect_gradient("dx", loss, x.span(), dx.span());
}

}  // namespace
}  // namespace cachalot
