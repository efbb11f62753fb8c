// SwiGLU, embedding and sums at every level against the reference in double, at every tail.
#include "kernels/elementwise.h"

#include <gmock/gmock.h>

#include "kernels/cpu/level_test.h"
#include "testing/random_mat.h"

namespace cachalot {
namespace {

using testing::convert;
using testing::kSigmoidError;
using testing::kUnit;
using testing::random_mat;
class ElementwiseLevels : public testing::LevelTest {};
CACHALOT_EVERY_LEVEL(ElementwiseLevels);

TEST_P(ElementwiseLevels, SwigluAtEveryTail) {
  for (const int cols : testing::tail_sizes()) {
    const Mat<float> gate = random_mat<float>(3, cols, 1, 8), up = random_mat<float>(3, cols, 2);
    const Mat<float> dout = random_mat<float>(3, cols, 3);
    const Mat<double> g = convert<double>(gate), u = convert<double>(up), d = convert<double>(dout);
    Mat<float> out(3, cols), dgate(3, cols), dup(3, cols);
    Mat<double> want(3, cols), want_dgate(3, cols), want_dup(3, cols), size(3, cols);
    ops().swiglu(context(), Swiglu<float>{gate.cview(), up.cview(), out.view()});
    swiglu_ref(Context{}, Swiglu<double>{g.cview(), u.cview(), want.view()});
    testing::expect_within(out.span(), want.span(), want.span(), kSigmoidError + 3 * kUnit, "out");

    ops().swiglu_backward(context(), SwigluBackward<float>{gate.cview(), up.cview(), dout.cview(),
                                                           dgate.view(), dup.view()});
    swiglu_backward_ref(Context{}, SwigluBackward<double>{g.cview(), u.cview(), d.cview(),
                                                          want_dgate.view(), want_dup.view()});
    testing::expect_within(dup.span(), want_dup.span(), want_dup.span(), kSigmoidError + 3 * kUnit,
                           "dup");
    // s + g s (1 - s): 1 - s is off by the error of s, absolutely.
    for (std::size_t i = 0; i < size.size(); ++i) {
      const double s = 1 / (1 + std::exp(-g.data()[i]));
      size.data()[i] = d.data()[i] * u.data()[i] * s * (1 + std::abs(g.data()[i]) * 2);
    }
    testing::expect_within(dgate.span(), want_dgate.span(), size.span(), kSigmoidError + 6 * kUnit,
                           "dgate");
  }
}

TEST_P(ElementwiseLevels, SwigluBackwardOfWeightedRowsAtEveryTail) {
  const std::vector<float> weight{0.3f, -1.25f, 2.0f};
  const std::vector<double> weights{weight.begin(), weight.end()};
  for (const int cols : testing::tail_sizes()) {
    const Mat<float> gate = random_mat<float>(3, cols, 1, 8), up = random_mat<float>(3, cols, 2);
    const Mat<float> dout = random_mat<float>(3, cols, 3);
    const Mat<double> g = convert<double>(gate), u = convert<double>(up), d = convert<double>(dout);
    Mat<float> dgate(3, cols), dup(3, cols), hidden(3, cols);
    Mat<double> want_dgate(3, cols), want_dup(3, cols), want_hidden(3, cols);
    std::vector<float> dweight(3);
    std::vector<double> want_dweight(3), sizes(3);
    ops().swiglu_backward(
        context(), SwigluBackward<float>{gate.cview(), up.cview(), dout.cview(), dgate.view(),
                                         dup.view(), weight, dweight, hidden.view()});
    swiglu_backward_ref(Context{}, SwigluBackward<double>{
                                       g.cview(), u.cview(), d.cview(), want_dgate.view(),
                                       want_dup.view(), weights, want_dweight, want_hidden.view()});
    testing::expect_within(hidden.span(), want_hidden.span(), want_hidden.span(),
                           kSigmoidError + 4 * kUnit, "hidden");
    testing::expect_within(dup.span(), want_dup.span(), want_dup.span(), kSigmoidError + 4 * kUnit,
                           "dup");
    for (int t = 0; t < 3; ++t) {
      for (int j = 0; j < cols; ++j) {
        sizes[static_cast<std::size_t>(t)] +=
            std::abs(d.at(t, j) * want_hidden.at(t, j) / weights[static_cast<std::size_t>(t)]);
      }
    }
    testing::expect_within(std::span<const float>(dweight), std::span<const double>(want_dweight),
                           std::span<const double>(sizes), kSigmoidError + (cols + 4) * kUnit,
                           "dweight");
  }
}

TEST_P(ElementwiseLevels, EmbeddingIsExactAtEveryTail) {
  const std::vector<std::int32_t> ids{4, 0, 4, 2, 4};
  for (const int cols : testing::tail_sizes()) {
    const Mat<float> table = random_mat<float>(5, cols, 1), dout = random_mat<float>(5, cols, 2);
    Mat<Bf16> half(5, cols);
    for (std::size_t i = 0; i < half.size(); ++i) half.data()[i] = to_bf16(table.data()[i]);
    Mat<float> out(5, cols), want(5, cols), grad = table.clone(), want_grad = table.clone();
    for (const MatRef source : {MatRef(table.cview()), MatRef(half.cview())}) {
      ops().embedding(context(), Embedding{source, ids, out.view()});
      embedding_ref(Context{}, Embedding{source, ids, want.view()});
      ASSERT_THAT(out.span(), ::testing::ElementsAreArray(want.span()));
    }
    ops().embedding_backward(context(), EmbeddingBackward<float>{ids, dout.cview(), grad.view()});
    embedding_backward_ref(Context{},
                           EmbeddingBackward<float>{ids, dout.cview(), want_grad.view()});
    ASSERT_THAT(grad.span(), ::testing::ElementsAreArray(want_grad.span()));
  }
}

TEST_P(ElementwiseLevels, ThreadsDoNotMatter) {
  const Mat<float> gate = random_mat<float>(70, 700, 1), up = random_mat<float>(70, 700, 2);
  std::vector<std::int32_t> ids(70);
  for (int t = 0; t < 70; ++t) ids[static_cast<std::size_t>(t)] = t * t % 7;
  Mat<float> out1, table1;
  double sum1 = 0;
  with_threads([&](const Context& ctx, int threads) {
    Mat<float> out(70, 700), table(7, 700);
    swiglu(ctx, Swiglu<float>{gate.cview(), up.cview(), out.view()});
    embedding_backward(ctx, EmbeddingBackward<float>{ids, gate.cview(), table.view()});
    const double sum = sum_squares(ctx, gate.span());
    if (threads == 1) out1 = out.clone(), table1 = table.clone(), sum1 = sum;
    EXPECT_TRUE(std::equal(out.span().begin(), out.span().end(), out1.data())) << threads;
    EXPECT_TRUE(std::equal(table.span().begin(), table.span().end(), table1.data())) << threads;
    EXPECT_EQ(sum, sum1) << threads;
  });
}

}  // namespace
}  // namespace cachalot
