// Fused ops give the bits of the ops they are made of, at every level and with any threads.
#include <gmock/gmock.h>

#include "kernels/cpu/fp8_case_test.h"
#include "kernels/cpu/level_test.h"
#include "kernels/fp8_fused.h"
#include "testing/random_mat.h"

namespace cachalot {
namespace {

using numeric::ScaleKind;
using testing::first_difference;
using testing::Fp8Operand;
using testing::random_mat;
using testing::random_vec;

class Fp8FusedTest : public testing::LevelTest {};
CACHALOT_EVERY_LEVEL(Fp8FusedTest);

void expect_same(Fp8Mat& got, Fp8Mat& want, const std::string& what) {
  const Fp8View a = got.view(), b = want.view();
  ASSERT_EQ(a.rows, b.rows);
  for (int i = 0; i < a.rows; ++i) {
    for (int j = 0; j < a.cols; ++j) {
      ASSERT_EQ(b.row(i)[j], a.row(i)[j]) << what << " code " << i << " " << j;
      ASSERT_EQ(b.scale_at(i, j), a.scale_at(i, j)) << what << " scale " << i << " " << j;
    }
  }
}

Fp8Mat made(int rows, int cols, ScaleTile tile) {
  Fp8Mat m;
  m.resize(rows, cols, tile);
  return m;
}

TEST_P(Fp8FusedTest, NormOfEveryWidth) {
  for (const int cols : {1, 17, 127, 128, 129, 700}) {
    const auto n = static_cast<std::size_t>(cols);
    const Mat<float> x = random_mat<float>(150, cols, 1);
    const auto weight = random_vec<float>(n, 2);
    Mat<float> y(150, cols), kept(150, cols);
    std::vector<float> rstd(150), want_rstd(150);
    Fp8Mat want = made(150, cols, ScaleTile::kRow);
    rms_norm(context(), RmsNorm<float>{x.cview(), weight, 1e-6f, y.view(), want_rstd});
    quantize_fp8(context(), {y.cview(), ScaleKind::kPow2, want.out(), {}});
    with_threads([&](const Context& ctx, int) {
      Fp8Mat got = made(150, cols, ScaleTile::kRow), other = made(150, cols, ScaleTile::kRow);
      rms_norm_fp8(ctx, {{x.cview(), weight, 1e-6f, {}, rstd}, ScaleKind::kPow2, got.out()});
      rms_norm_fp8(ctx,
                   {{x.cview(), weight, 1e-6f, kept.view(), {}}, ScaleKind::kPow2, other.out()});
      expect_same(got, want, "norm");
      expect_same(other, want, "norm kept");
      EXPECT_EQ(-1, first_difference(rstd, want_rstd));
      EXPECT_EQ(-1, first_difference(kept.span(), y.span()));
    });
  }
}

TEST_P(Fp8FusedTest, SwigluOfFloats) {
  for (const auto& size : {std::pair{1, 1}, {3, 17}, {128, 128}, {150, 300}, {260, 700}}) {
    const int rows = size.first, cols = size.second;
    const Mat<float> gate = random_mat<float>(rows, cols, 3), up = random_mat<float>(rows, cols, 4);
    Mat<float> hidden(rows, cols);
    swiglu(context(), {gate.cview(), up.cview(), hidden.view()});
    for (const ScaleTile tile : {ScaleTile::kRow, ScaleTile::kColumn, ScaleTile::kTensor}) {
      Fp8Mat want = made(rows, cols, tile), want_also = made(rows, cols, ScaleTile::kColumn);
      quantize_fp8(context(), {hidden.cview(), ScaleKind::kPlain, want.out(), want_also.out()});
      with_threads([&](const Context& ctx, int) {
        Fp8Mat got = made(rows, cols, tile), also = made(rows, cols, ScaleTile::kColumn);
        SwigluFp8 a{gate.cview(), up.cview(), {}, {}, ScaleKind::kPlain, got.out(), also.out()};
        swiglu_fp8(ctx, a);
        expect_same(got, want, testing::name(tile));
        expect_same(also, want_also, "also");
      });
    }
  }
}

TEST_P(Fp8FusedTest, SwigluOfWhatWasKept) {
  for (const auto& size : {std::pair{1, 1}, {3, 17}, {150, 300}}) {
    const int rows = size.first, cols = size.second;
    const Fp8Operand gate(rows, cols, ScaleTile::kRow, 5, 1), up(rows, cols, ScaleTile::kRow, 6);
    const Mat<float> dout = random_mat<float>(rows, cols, 7);
    Mat<float> g(rows, cols), u(rows, cols), hidden(rows, cols);
    dequantize_fp8(context(), {gate.view(), g.view(), {}});
    dequantize_fp8(context(), {up.view(), u.view(), {}});
    swiglu(context(), {g.cview(), u.cview(), hidden.view()});
    Fp8Mat want = made(rows, cols, ScaleTile::kColumn);
    quantize_fp8(context(), {hidden.cview(), ScaleKind::kPow2, want.out(), {}});
    Mat<float> want_dgate(rows, cols), want_dup(rows, cols);
    swiglu_backward(context(),
                    {g.cview(), u.cview(), dout.cview(), want_dgate.view(), want_dup.view()});
    with_threads([&](const Context& ctx, int) {
      Fp8Mat got = made(rows, cols, ScaleTile::kColumn);
      swiglu_fp8(ctx, {{}, {}, gate.view(), up.view(), ScaleKind::kPow2, got.out(), {}});
      expect_same(got, want, "kept");
      Mat<float> dgate(rows, cols), dup(rows, cols);
      swiglu_backward_fp8(ctx, {gate.view(), up.view(), dout.cview(), dgate.view(), dup.view()});
      EXPECT_EQ(-1, first_difference(dgate.span(), want_dgate.span()));
      EXPECT_EQ(-1, first_difference(dup.span(), want_dup.span()));
    });
  }
}

TEST_P(Fp8FusedTest, NoRowsIsNoWork) {
  const Mat<float> none(0, 40);
  const std::vector<float> weight(40, 1.0f);
  Fp8Mat q = made(0, 40, ScaleTile::kRow);
  rms_norm_fp8(context(), {{none.cview(), weight, 1e-6f, {}, {}}, ScaleKind::kPow2, q.out()});
  swiglu_fp8(context(), SwigluFp8{none.cview(), none.cview(), {}, {}, ScaleKind::kPow2, q.out()});
  swiglu_fp8(context(), std::span<const SwigluFp8>());
  swiglu_backward_fp8(context(), {q.view(), q.view(), none.cview(), Mat<float>(0, 40).view(),
                                  Mat<float>(0, 40).view()});
}

TEST(Fp8FusedShapes, ErrorsNameTheShapes) {
  const Context ctx{&kReferenceTable, nullptr};
  const Mat<float> x(4, 8), other(4, 9);
  const std::vector<float> weight(8, 1.0f);
  Fp8Mat row = made(4, 8, ScaleTile::kRow), column = made(4, 8, ScaleTile::kColumn);
  try {
    rms_norm_fp8(ctx, {{x.cview(), weight, 1e-6f, {}, {}}, ScaleKind::kPow2, column.out()});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kShape);
    EXPECT_THAT(e.what(), ::testing::HasSubstr("give it tiles of 1 x 128"));
  }
  try {
    swiglu_fp8(ctx, SwigluFp8{x.cview(), other.cview(), {}, {}, ScaleKind::kPow2, row.out()});
    FAIL();
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), ::testing::HasSubstr("swiglu_fp8: up is [4, 9] but has to be [4, 8]"));
  }
}

}  // namespace
}  // namespace cachalot
