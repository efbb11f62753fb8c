#include "kernels/elementwise.h"

#include <gmock/gmock.h>

#include <cmath>

#include "kernels/cpu/level_test.h"
#include "testing/finite_difference.h"
#include "testing/random_mat.h"

namespace cachalot {
namespace {

using ::testing::ElementsAre;
using testing::random_mat;
using testing::random_vec;
class ElementwiseTest : public testing::LevelTest {};
CACHALOT_EVERY_LEVEL(ElementwiseTest);

TEST_P(ElementwiseTest, SwigluIsSiluOfGateTimesUp) {
  Mat<float> gate(1, 5), up(1, 5), out(1, 5);
  const std::vector<float> g{0.0f, 1.0f, -1.0f, 200.0f, -200.0f};
  std::copy(g.begin(), g.end(), gate.data());
  std::fill_n(up.data(), 5, 2.0f);
  swiglu(context(), Swiglu<float>{gate.cview(), up.cview(), out.view()});
  const double one = 1 / (1 + std::exp(-1.0));
  EXPECT_EQ(out.at(0, 0), 0.0f);
  EXPECT_NEAR(out.at(0, 1), 2 * one, 1e-6);
  EXPECT_NEAR(out.at(0, 2), -2 * (1 - one), 1e-6);
  EXPECT_EQ(out.at(0, 3), 400.0f);
  EXPECT_NEAR(out.at(0, 4), 0.0f, 1e-30);  // and not NaN: exp(200) is past a float
}

TEST(ElementwiseGradientTest, Swiglu) {
  const Context ctx;
  Mat<double> gate = random_mat<double>(3, 7, 1, 2), up = random_mat<double>(3, 7, 2), out(3, 7);
  const Mat<double> dout = random_mat<double>(3, 7, 3);
  const auto loss = [&] {
    swiglu_ref(ctx, Swiglu<double>{gate.cview(), up.cview(), out.view()});
    return testing::dot<double>(out.span(), dout.span());
  };
  Mat<double> dgate(3, 7), dup(3, 7);
  swiglu_backward_ref(ctx, SwigluBackward<double>{gate.cview(), up.cview(), dout.cview(),
                                                  dgate.view(), dup.view()});
  testing::expect_gradient("dgate", loss, gate.span(), dgate.span());
  testing::expect_gradient("dup", loss, up.span(), dup.span());
}

TEST_P(ElementwiseTest, SwigluBackwardMayOverwriteItsInputs) {
  const Mat<float> gate = random_mat<float>(3, 41, 1), up = random_mat<float>(3, 41, 2);
  const Mat<float> dout = random_mat<float>(3, 41, 3);
  Mat<float> dgate(3, 41), dup(3, 41), g = gate.clone(), u = up.clone();
  swiglu_backward(context(), SwigluBackward<float>{gate.cview(), up.cview(), dout.cview(),
                                                   dgate.view(), dup.view()});
  swiglu_backward(context(),
                  SwigluBackward<float>{g.cview(), u.cview(), dout.cview(), g.view(), u.view()});
  EXPECT_THAT(g.span(), ::testing::ElementsAreArray(dgate.span()));
  EXPECT_THAT(u.span(), ::testing::ElementsAreArray(dup.span()));
}

// The loss of rows that count by a weight: its gradient in gate, up and weight.
TEST(Elementwise, SwigluBackwardOfWeightedRowsMatchesFiniteDifferences) {
  const Context ctx;
  Mat<double> gate = random_mat<double>(3, 7, 1), up = random_mat<double>(3, 7, 2);
  const Mat<double> dout = random_mat<double>(3, 7, 3);
  std::vector<double> weight{0.3, -1.25, 2.0};
  Mat<double> out(3, 7);
  const auto loss = [&] {
    swiglu_ref(ctx, Swiglu<double>{gate.cview(), up.cview(), out.view()});
    double sum = 0;
    for (int t = 0; t < 3; ++t) {
      for (int j = 0; j < 7; ++j) {
        sum += weight[static_cast<std::size_t>(t)] * out.at(t, j) * dout.at(t, j);
      }
    }
    return sum;
  };
  Mat<double> dgate(3, 7), dup(3, 7), hidden(3, 7);
  std::vector<double> dweight(3);
  swiglu_backward_ref(
      ctx, SwigluBackward<double>{gate.cview(), up.cview(), dout.cview(), dgate.view(), dup.view(),
                                  weight, dweight, hidden.view()});
  testing::expect_gradient("dgate", loss, gate.span(), dgate.span());
  testing::expect_gradient("dup", loss, up.span(), dup.span());
  testing::expect_gradient("dweight", loss, std::span<double>(weight), std::span<double>(dweight));
  loss();
  for (int t = 0; t < 3; ++t) {
    for (int j = 0; j < 7; ++j) {
      EXPECT_NEAR(hidden.at(t, j), weight[static_cast<std::size_t>(t)] * out.at(t, j), 1e-15);
    }
  }
}

TEST_P(ElementwiseTest, EmbeddingCopiesRowsOfBothTypes) {
  Mat<float> table = random_mat<float>(5, 19, 1);
  Mat<Bf16> half(5, 19);
  for (std::size_t i = 0; i < table.size(); ++i) {
    half.data()[i] = to_bf16(table.data()[i]);
    table.data()[i] = to_float(half.data()[i]);  // so that both tables hold the same numbers
  }
  const std::vector<std::int32_t> ids{4, 0, 4, 2};
  Mat<float> a(4, 19), b(4, 19);
  embedding(context(), Embedding{table.cview(), ids, a.view()});
  embedding(context(), Embedding{half.cview(), ids, b.view()});
  for (int t = 0; t < 4; ++t) {
    for (int j = 0; j < 19; ++j) {
      EXPECT_EQ(a.at(t, j), table.at(ids[static_cast<std::size_t>(t)], j));
      EXPECT_EQ(b.at(t, j), a.at(t, j));
    }
  }
}

TEST_P(ElementwiseTest, EmbeddingRefusesIdsOutsideTheTable) {
  Mat<float> table(5, 4), out(1, 4);
  for (const std::int32_t id : {-1, 5, 1 << 30}) {
    const std::vector<std::int32_t> ids{id};
    EXPECT_THROW(embedding(context(), Embedding{table.cview(), ids, out.view()}), Error);
    EXPECT_THROW(
        embedding_backward(context(), EmbeddingBackward<float>{ids, out.cview(), table.view()}),
        Error);
  }
}

TEST_P(ElementwiseTest, EmbeddingBackwardAddsRepeatedIdsInOrder) {
  // 1e8 + 1 - 1e8 in floats is 0, in another order 1: the order is part of the contract.
  const std::vector<std::int32_t> ids{2, 0, 2, 2};
  Mat<float> dout(4, 1), dtable(3, 1);
  dout.at(0, 0) = 1e8f, dout.at(1, 0) = 5, dout.at(2, 0) = 1, dout.at(3, 0) = -1e8f;
  dtable.at(0, 0) = 1;  // added to
  embedding_backward(context(), EmbeddingBackward<float>{ids, dout.cview(), dtable.view()});
  EXPECT_THAT(dtable.span(), ElementsAre(6.0f, 0.0f, 0.0f));
}

TEST(ElementwiseGradientTest, Embedding) {
  const std::vector<std::int32_t> ids{2, 0, 2, 2, 1};  // row 3 is never read
  const Context ctx;
  Mat<double> table = random_mat<double>(4, 3, 1);
  const Mat<double> dout = random_mat<double>(5, 3, 2);
  const auto loss = [&] {
    double sum = 0;
    for (int t = 0; t < 5; ++t) {
      for (int j = 0; j < 3; ++j)
        sum += table.at(ids[static_cast<std::size_t>(t)], j) * dout.at(t, j);
    }
    return sum;
  };
  Mat<double> dtable(4, 3);
  embedding_backward_ref(ctx, EmbeddingBackward<double>{ids, dout.cview(), dtable.view()});
  testing::expect_gradient("dtable", loss, table.span(), dtable.span());
}

TEST_P(ElementwiseTest, SumSquaresInDouble) {
  EXPECT_EQ(sum_squares(context(), std::vector<float>{}), 0.0);
  EXPECT_EQ(sum_squares(context(), std::vector<float>{3}), 9.0);
  for (const std::size_t n : {4095u, 4096u, 4097u, 20001u}) {
    const auto x = random_vec<float>(n, n);
    const double want = sum_squares_ref<double>(Context{}, testing::convert<double>(x));
    EXPECT_NEAR(sum_squares(context(), x), want, static_cast<double>(n) * 0x1p-53 * want);
  }
  // Squares of these overflow or vanish in float.
  EXPECT_DOUBLE_EQ(sum_squares(context(), std::vector<float>{0x1p100f, 0x1p100f}), 0x1p201);
  EXPECT_DOUBLE_EQ(sum_squares(context(), std::vector<float>{0x1p-100f}), 0x1p-200);
}

TEST_P(ElementwiseTest, NoRowsIsNoWork) {
  Mat<float> none(0, 8), table(3, 8);
  const std::vector<std::int32_t> ids;
  swiglu(context(), Swiglu<float>{none.cview(), none.cview(), none.view()});
  swiglu_backward(context(), SwigluBackward<float>{none.cview(), none.cview(), none.cview(),
                                                   none.view(), none.view()});
  embedding(context(), Embedding{table.cview(), ids, none.view()});
  embedding_backward(context(), EmbeddingBackward<float>{ids, none.cview(), table.view()});
}

}  // namespace
}  // namespace cachalot
