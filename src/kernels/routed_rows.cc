#include "kernels/routed_rows.h"

#include "kernels/elementwise.h"
#include "kernels/gemm.h"
#include "kernels/quant_linear.h"
#include "kernels/rms_norm.h"
#include "kernels/shape_check.h"
#include "kernels/table.h"

namespace cachalot {

namespace {

constexpr std::string_view kOp = "routed_rows";

void check_mlp(const MlpRows& m, int hidden, int width) {
  const auto fits = [](const RowsWeight& w, int rows, int cols) {
    return w.rows() == rows && w.cols() == cols;
  };
  require_shape(
      fits(m.gate, width, hidden) && fits(m.up, width, hidden) && fits(m.down, hidden, width), kOp,
      ": an expert has gate [", m.gate.rows(), ", ", m.gate.cols(), "], up [", m.up.rows(), ", ",
      m.up.cols(), "] and down [", m.down.rows(), ", ", m.down.cols(), "]; needed are twice [",
      width, ", ", hidden, "] and its transposition");
}

void linear_of(const Context& ctx, Precision precision, MatView<const float> x, const RowsWeight& w,
               MatView<float> y) {
  if (w.quant.rows > 0) {
    quant_linear(ctx, QuantActivations::kBf16, {x, w.quant, y});
  } else {
    gemm(ctx, precision, linear(x, w.plain, y));
  }
}

// y += weight * down(silu(gate x) * up x), of one row.
void add_mlp(const Context& ctx, Precision precision, MatView<const float> x, const MlpRows& m,
             float weight, MatView<float> y) {
  const int width = m.gate.rows();
  Mat<float> gate(1, width), up(1, width), out(1, y.cols);
  linear_of(ctx, precision, x, m.gate, gate.view());
  linear_of(ctx, precision, x, m.up, up.view());
  swiglu(ctx, {gate.cview(), up.cview(), gate.view()});
  linear_of(ctx, precision, gate.cview(), m.down, out.view());
  for (int c = 0; c < y.cols; ++c) y.at(0, c) += weight * out.at(0, c);
}

}  // namespace

void check_shapes(const RoutedRows& a) {
  const int rows = a.x.rows, hidden = a.x.cols;
  require_shape(a.index.rows == rows && a.weight.rows == rows && a.weight.cols == a.index.cols, kOp,
                ": x has ", rows, " rows, but the choices are [", a.index.rows, ", ", a.index.cols,
                "] with weights [", a.weight.rows, ", ", a.weight.cols, "]");
  require_shape(a.y.rows == rows && a.y.cols == hidden, kOp, ": y is [", a.y.rows, ", ", a.y.cols,
                "]; it has to be as x, [", rows, ", ", hidden, "]");
  if (a.normed.rows > 0) {
    require_size(kOp, "normed", a.normed, rows, hidden);
    require_length(kOp, "norm_weight", a.norm_weight, static_cast<std::size_t>(hidden));
  }
  require_shape(!a.experts.empty() || a.index.cols == 0, kOp, ": choices without experts");
  for (const MlpRows& m : a.experts) check_mlp(m, hidden, a.experts.front().gate.rows());
  if (a.shared.gate.rows() > 0) check_mlp(a.shared, hidden, a.shared.gate.rows());
}

void routed_rows_ref(const Context& ctx, const RoutedRows& a) {
  for (int t = 0; t < a.x.rows; ++t) {
    const MatView<const float> x = a.x.sub_rows(t, 1);
    Mat<float> sum(1, a.y.cols);
    if (a.shared.gate.rows() > 0) add_mlp(ctx, a.precision, x, a.shared, 1, sum.view());
    for (int j = 0; j < a.index.cols; ++j) {
      const auto expert = static_cast<std::size_t>(a.index.at(t, j));
      add_mlp(ctx, a.precision, x, a.experts[expert], a.weight.at(t, j), sum.view());
    }
    for (int c = 0; c < a.y.cols; ++c) {
      a.y.at(t, c) = a.add ? a.y.at(t, c) + sum.at(0, c) : sum.at(0, c);
    }
  }
  if (a.normed.rows > 0) rms_norm(ctx, {a.y, a.norm_weight, a.eps, a.normed, {}});
}

bool takes_no_routed_rows(const Context&, const RoutedRows&) noexcept { return false; }

bool takes_routed_rows(const Context& ctx, const RoutedRows& a) noexcept {
  return ctx.ops().takes_routed_rows(ctx, a);
}

void routed_rows(const Context& ctx, const RoutedRows& a) {
  check_shapes(a);
  ctx.ops().routed_rows(ctx, a);
}

}  // namespace cachalot
