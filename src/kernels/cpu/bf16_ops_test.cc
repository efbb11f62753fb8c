// Ops between bf16 products: at every level the bits of the level's float op, rounded.
#include "kernels/bf16_ops.h"

#include <gmock/gmock.h>

#include "kernels/cpu/level_test.h"
#include "kernels/elementwise.h"
#include "kernels/permute.h"
#include "kernels/rope.h"
#include "kernels/saved.h"
#include "testing/random_mat.h"

namespace cachalot {
namespace {

using testing::random_mat;
class Bf16Ops : public testing::LevelTest {};
CACHALOT_EVERY_LEVEL(Bf16Ops);

constexpr int kRows = 37;  // more than one task where rows are long

std::vector<std::uint16_t> bits(const Mat<Bf16>& m) {
  std::vector<std::uint16_t> out(m.size());
  std::memcpy(out.data(), m.data(), m.size() * sizeof(Bf16));
  return out;
}
std::vector<std::uint16_t> rounded(const Context& ctx, const Mat<float>& m) {
  Mat<Bf16> half(m.rows(), m.cols());
  store_bf16(ctx, m.cview(), half.view());
  return bits(half);
}
Mat<float> widened(const Context& ctx, const Mat<Bf16>& m) {
  Mat<float> wide(m.rows(), m.cols());
  load_bf16(ctx, m.cview(), wide.view());
  return wide;
}

Mat<Bf16> random_bf16(int rows, int cols, std::uint64_t seed, double scale = 1) {
  Mat<Bf16> half(rows, cols);
  store_bf16_ref(Context{}, random_mat<float>(rows, cols, seed, scale).cview(), half.view());
  return half;
}

TEST_P(Bf16Ops, SwigluIsTheFloatOpRounded) {
  for (const int cols : testing::tail_sizes()) {
    // Halves of one matrix, as one product gives them.
    const Mat<Bf16> both = random_bf16(kRows, 2 * cols, 1, 4);
    const Mat<float> wide = widened(context(), both);
    with_threads([&](const Context& ctx, int) {
      Mat<float> want(kRows, cols);
      swiglu(ctx, Swiglu<float>{wide.cview().sub_cols(0, cols), wide.cview().sub_cols(cols, cols),
                                want.view()});
      Mat<Bf16> out(kRows, cols);
      swiglu_bf16(ctx,
                  {both.cview().sub_cols(0, cols), both.cview().sub_cols(cols, cols), out.view()});
      EXPECT_EQ(bits(out), rounded(ctx, want)) << cols;
    });
  }
}

TEST_P(Bf16Ops, SwigluBackwardIsTheFloatOpRounded) {
  for (const int cols : testing::tail_sizes()) {
    const Mat<Bf16> gate = random_bf16(kRows, cols, 1, 4), up = random_bf16(kRows, cols, 2),
                    dout = random_bf16(kRows, cols, 3);
    const Mat<float> weights = random_mat<float>(1, kRows, 4);
    for (const bool weighted : {false, true}) {
      const auto weight = weighted ? weights.span() : std::span<const float>();
      with_threads([&](const Context& ctx, int) {
        const Mat<float> g = widened(ctx, gate), u = widened(ctx, up), d = widened(ctx, dout);
        Mat<float> joined(kRows, 2 * cols), hidden(kRows, cols);
        std::vector<float> want(kRows), dweight(kRows);
        swiglu_backward(ctx, {g.cview(), u.cview(), d.cview(), joined.view().sub_cols(0, cols),
                              joined.view().sub_cols(cols, cols), weight, want, hidden.view()});
        Mat<Bf16> both(kRows, 2 * cols), half(kRows, cols);
        swiglu_backward_bf16(ctx,
                             {gate.cview(), up.cview(), dout.cview(), both.view().sub_cols(0, cols),
                              both.view().sub_cols(cols, cols), half.view(), weight, dweight});
        EXPECT_EQ(bits(half), rounded(ctx, hidden)) << cols;
        EXPECT_EQ(bits(both), rounded(ctx, joined)) << cols;
        EXPECT_EQ(dweight, want) << cols;
      });
    }
  }
}

TEST_P(Bf16Ops, CombineIsTheFloatOp) {
  constexpr int kTokens = 19, kChoices = 3;
  Mat<std::int32_t> slot(kTokens, kChoices);
  for (int i = 0; i < kTokens * kChoices; ++i) slot.data()[i] = (i * 5) % (kTokens * kChoices);
  const Mat<float> weight = random_mat<float>(kTokens, kChoices, 2);
  for (const int cols : testing::tail_sizes()) {
    const Mat<Bf16> y = random_bf16(kTokens * kChoices, cols, 1);
    const Mat<float> before = random_mat<float>(kTokens, cols, 3);
    for (const bool weighted : {false, true}) {
      const auto w = weighted ? weight.cview() : MatView<const float>{};
      for (const bool add : {false, true}) {
        with_threads([&](const Context& ctx, int) {
          const Mat<float> wide = widened(ctx, y);
          Mat<float> want = before.clone(), got = before.clone();
          combine(ctx, {wide.cview(), slot.cview(), w, want.view(), add});
          combine_bf16(ctx, {y.cview(), slot.cview(), w, got.view(), add});
          EXPECT_TRUE(std::equal(want.span().begin(), want.span().end(), got.data())) << cols;
        });
      }
    }
  }
  const Mat<Bf16> few(kTokens, 4);
  Mat<float> out(kTokens, 4);
  EXPECT_THROW(combine_bf16(context(), {few.cview(), slot.cview(), {}, out.view()}), Error);
}

TEST_P(Bf16Ops, RopeIsTheFloatOpRounded) {
  constexpr int kHeads = 3;
  for (const int pairs : {1, 2, 7, 8, 9, 16}) {
    for (const int nope : {0, 5, 16, 33}) {
      for (const int behind : {0, 3}) {
        const int head = nope + 2 * pairs + behind;
        const Mat<float> x = random_mat<float>(kRows, kHeads * head, 1);
        const Mat<float> cos = random_mat<float>(kRows, pairs, 2),
                         sin = random_mat<float>(kRows, pairs, 3);
        with_threads([&](const Context& ctx, int) {
          for (const bool inverse : {false, true}) {
            Mat<float> want = x.clone();
            rope(ctx, {want.view(), kHeads, head, nope, cos.cview(), sin.cview(), inverse});
            Mat<Bf16> out(kRows, kHeads * head);
            rope_bf16(ctx, {x.cview(), kHeads, head, nope, cos.cview(), sin.cview(), out.view(),
                            inverse});
            EXPECT_EQ(bits(out), rounded(ctx, want)) << pairs << " " << nope << " " << behind;
          }
        });
      }
    }
  }
}

TEST_P(Bf16Ops, GatheredRowsAreRounded) {
  const std::vector<std::int32_t> rows{4, 0, 4, 2, 1, 3, 3};
  const auto n = static_cast<int>(rows.size());
  for (const int cols : testing::tail_sizes()) {
    const Mat<float> x = random_mat<float>(5, cols, 1);
    with_threads([&](const Context& ctx, int) {
      Mat<float> want(n, cols);
      gather_rows(ctx, {x.cview(), rows, want.view()});
      Mat<Bf16> out(n, cols);
      gather_rows_bf16(ctx, {x.cview(), rows, out.view()});
      EXPECT_EQ(bits(out), rounded(ctx, want)) << cols;
    });
  }
}

TEST(Bf16OpsShapes, ErrorsNameTheShapes) {
  const Context ctx{&kReferenceTable, nullptr};
  Mat<float> x(2, 3);
  Mat<Bf16> gate(2, 3), up(2, 4), half(2, 3);
  try {
    swiglu_bf16(ctx, {gate.cview(), up.cview(), half.view()});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kShape);
    EXPECT_STREQ(e.what(),
                 "swiglu_bf16: up is [2, 4] but has to be [2, 3]; make it as large as the other "
                 "operands");
  }
  const std::vector<std::int32_t> rows{0, 2};
  EXPECT_THROW(gather_rows_bf16(ctx, {x.cview(), rows, half.view()}), Error);
}

}  // namespace
}  // namespace cachalot
