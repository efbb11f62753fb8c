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

void expect_same(const Fp8Mat& got, const Fp8Mat& want, std::size_t group,
                 const std::string& what) {
  const Fp8View a = got.view(group), b = want.view(group);
  ASSERT_EQ(a.rows, b.rows);
  for (int i = 0; i < a.rows; ++i) {
    for (int j = 0; j < a.cols; ++j) {
      ASSERT_EQ(b.row(i)[j], a.row(i)[j]) << what << " code " << i << " " << j;
      ASSERT_EQ(b.scale_at(i, j), a.scale_at(i, j)) << what << " scale " << i << " " << j;
    }
  }
}

void expect_same(const Fp8Mat& got, const Fp8Mat& want, const std::string& what) {
  expect_same(got, want, 0, what);
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
    with_threads([&](const Context& ctx, int) {
      Fp8Mat got = made(rows, cols, ScaleTile::kColumn);
      swiglu_fp8(ctx, {{}, {}, gate.view(), up.view(), ScaleKind::kPow2, got.out(), {}});
      expect_same(got, want, "kept");
    });
  }
}

TEST_P(Fp8FusedTest, SwigluKeepsItsInputsInPassing) {
  for (const auto& size : {std::pair{1, 1}, {3, 17}, {128, 128}, {150, 300}}) {
    const int rows = size.first, cols = size.second;
    const Mat<float> gate = random_mat<float>(rows, cols, 3), up = random_mat<float>(rows, cols, 4);
    Fp8Mat want = made(rows, cols, ScaleTile::kRow), want_gate = made(rows, cols, ScaleTile::kRow),
           want_up = made(rows, cols, ScaleTile::kRow);
    swiglu_fp8(context(),
               SwigluFp8{gate.cview(), up.cview(), {}, {}, ScaleKind::kPlain, want.out()});
    quantize_fp8(context(), {gate.cview(), ScaleKind::kPow2, want_gate.out(), {}});
    quantize_fp8(context(), {up.cview(), ScaleKind::kPow2, want_up.out(), {}});
    with_threads([&](const Context& ctx, int) {
      Fp8Mat got = made(rows, cols, ScaleTile::kRow), kept_gate = made(rows, cols, ScaleTile::kRow),
             kept_up = made(rows, cols, ScaleTile::kRow);
      SwigluFp8 a{gate.cview(), up.cview(), {}, {}, ScaleKind::kPlain, got.out()};
      a.keep_gate = kept_gate.out();
      a.keep_up = kept_up.out();
      swiglu_fp8(ctx, a);
      expect_same(got, want, "hidden");
      expect_same(kept_gate, want_gate, "gate");
      expect_same(kept_up, want_up, "up");
    });
  }
}

// Of several experts at once, with and without the weights of their rows.
TEST_P(Fp8FusedTest, SwigluBackwardOfWhatWasKept) {
  const std::int32_t begin[] = {0, 1, 1, 130, 270};
  const int rows = 270;
  for (const int cols : {1, 17, 128, 300}) {
    const Fp8Operand gate(rows, cols, ScaleTile::kRow, 5, 1), up(rows, cols, ScaleTile::kRow, 6);
    const Mat<float> dout = random_mat<float>(rows, cols, 7);
    const auto weight = random_vec<float>(rows, 8);
    Mat<float> g(rows, cols), u(rows, cols);
    dequantize_fp8(context(), {gate.view(), g.view(), {}});
    dequantize_fp8(context(), {up.view(), u.view(), {}});
    for (const bool weighted : {false, true}) {
      Mat<float> dgate(rows, cols), dup(rows, cols), hidden(rows, cols);
      std::vector<float> want_dweight(rows);
      SwigluBackward<float> parts{g.cview(), u.cview(), dout.cview(), dgate.view(), dup.view()};
      if (weighted) parts.weight = weight;
      parts.dweight = want_dweight;
      parts.hidden = hidden.view();
      swiglu_backward(context(), parts);
      // dgate, dup along rows; dgate, dup, hidden along columns
      const auto five = [&] {
        std::vector<Fp8Mat> m(5);
        for (std::size_t i = 0; i < 5; ++i) {
          m[i].resize(begin, cols, i < 2 ? ScaleTile::kRow : ScaleTile::kColumn);
        }
        return m;
      };
      std::vector<Fp8Mat> want = five();
      const Mat<float>* const from[] = {&dgate, &dup, &dgate, &dup, &hidden};
      for (std::size_t i = 0; i < 5; ++i) {
        for (std::size_t e = 0; e < 4; ++e) {
          const auto x = from[i]->cview().sub_rows(begin[e], begin[e + 1] - begin[e]);
          quantize_fp8(context(), {x, ScaleKind::kPow2, want[i].out(e), {}});
        }
      }
      with_threads([&](const Context& ctx, int) {
        std::vector<Fp8Mat> got = five();
        std::vector<float> dweight(rows);
        std::vector<SwigluBackwardFp8> jobs;
        for (std::size_t e = 0; e < 4; ++e) {
          const int first = begin[e], n = begin[e + 1] - first;
          const auto at = static_cast<std::size_t>(first), count = static_cast<std::size_t>(n);
          SwigluBackwardFp8 a;
          a.gate = gate.view().sub_rows(first, n);
          a.up = up.view().sub_rows(first, n);
          a.dout = dout.cview().sub_rows(first, n);
          if (weighted) a.weight = std::span(weight).subspan(at, count);
          a.dweight = std::span(dweight).subspan(at, count);
          a.dgate = got[0].out(e);
          a.dup = got[1].out(e);
          a.dgate_columns = got[2].out(e);
          a.dup_columns = got[3].out(e);
          a.hidden_columns = got[4].out(e);
          jobs.push_back(a);
        }
        swiglu_backward_fp8(ctx, jobs);
        EXPECT_EQ(-1, first_difference(dweight, want_dweight)) << cols;
        for (std::size_t i = 0; i < 5; ++i) {
          for (std::size_t e = 0; e < 4; ++e) {
            expect_same(got[i], want[i], e, cat("result ", i, " of expert ", e));
          }
        }
      });
    }
  }
}

TEST_P(Fp8FusedTest, NoRowsIsNoWork) {
  const Mat<float> none(0, 40);
  const std::vector<float> weight(40, 1.0f);
  Fp8Mat q = made(0, 40, ScaleTile::kRow);
  rms_norm_fp8(context(), {{none.cview(), weight, 1e-6f, {}, {}}, ScaleKind::kPow2, q.out()});
  swiglu_fp8(context(), SwigluFp8{none.cview(), none.cview(), {}, {}, ScaleKind::kPow2, q.out()});
  swiglu_fp8(context(), std::span<const SwigluFp8>());
  Fp8Mat columns = made(0, 40, ScaleTile::kColumn);
  swiglu_backward_fp8(context(), {q.view(),
                                  q.view(),
                                  none.cview(),
                                  {},
                                  {},
                                  ScaleKind::kPow2,
                                  q.out(),
                                  q.out(),
                                  columns.out(),
                                  columns.out(),
                                  columns.out()});
  swiglu_backward_fp8(context(), std::span<const SwigluBackwardFp8>());
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
