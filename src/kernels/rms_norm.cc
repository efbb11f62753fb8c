#include "kernels/rms_norm.h"

#include <cmath>

#include "kernels/shape_check.h"
#include "kernels/table.h"

namespace cachalot {

template <class T>
void rms_norm_ref(const Context& ctx, const RmsNorm<T>& a) {
  const int cols = a.x.cols;
  ctx.for_each(a.x.rows, /*grain=*/1, [&](std::int64_t t) {
    const T* x = a.x.row(t);  // [D]
    double sum = 0;
    for (int j = 0; j < cols; ++j) sum += double{x[j]} * double{x[j]};
    const double rstd = 1.0 / std::sqrt(sum / cols + double{a.eps});
    T* y = a.y.row(t);
    for (int j = 0; j < cols; ++j) {
      y[j] = static_cast<T>(double{x[j]} * rstd * double{a.weight[static_cast<std::size_t>(j)]});
    }
    if (!a.rstd.empty()) a.rstd[static_cast<std::size_t>(t)] = static_cast<T>(rstd);
  });
}

// With xhat = x * rstd and g = dy * weight:
//   dx = rstd * (g - xhat * mean(g * xhat)),  dweight += sum over rows of dy * xhat.
template <class T>
void rms_norm_backward_ref(const Context& ctx, const RmsNormBackward<T>& a) {
  const int rows = a.x.rows, cols = a.x.cols;
  // Columns first: dx may be dy, so dy is gone after the rows.
  if (!a.dweight.empty()) {
    ctx.for_each(cols, /*grain=*/16, [&](std::int64_t j) {
      double sum = 0;
      for (int t = 0; t < rows; ++t) {
        sum += double{a.dy.row(t)[j]} * double{a.x.row(t)[j]} *
               double{a.rstd[static_cast<std::size_t>(t)]};
      }
      T& dw = a.dweight[static_cast<std::size_t>(j)];
      dw = static_cast<T>(double{dw} + sum);
    });
  }
  ctx.for_each(rows, /*grain=*/1, [&](std::int64_t t) {
    const T* x = a.x.row(t);
    const T* dy = a.dy.row(t);
    T* dx = a.dx.row(t);
    const T* w = a.weight.data();
    const double rstd = double{a.rstd[static_cast<std::size_t>(t)]};
    double dot = 0;
    for (int j = 0; j < cols; ++j) dot += double{dy[j]} * double{w[j]} * double{x[j]};
    const double mean = dot * rstd / cols;  // of g * xhat
    for (int j = 0; j < cols; ++j) {
      const double d = rstd * (double{dy[j]} * double{w[j]} - double{x[j]} * rstd * mean);
      dx[j] = static_cast<T>(a.add_dx ? double{dx[j]} + d : d);
    }
  });
}

template void rms_norm_ref(const Context&, const RmsNorm<float>&);
template void rms_norm_ref(const Context&, const RmsNorm<double>&);
template void rms_norm_backward_ref(const Context&, const RmsNormBackward<float>&);
template void rms_norm_backward_ref(const Context&, const RmsNormBackward<double>&);

void check_shapes(const RmsNorm<float>& a) {
  constexpr std::string_view kOp = "rms_norm";
  require_shape(a.x.cols > 0, kOp, ": x has rows of 0 columns, whose mean does not exist");
  require_size(kOp, "y", a.y, a.x.rows, a.x.cols);
  require_length(kOp, "weight", a.weight, static_cast<std::size_t>(a.x.cols));
  if (!a.rstd.empty()) require_length(kOp, "rstd", a.rstd, static_cast<std::size_t>(a.x.rows));
}

void check_shapes(const RmsNormBackward<float>& a) {
  constexpr std::string_view kOp = "rms_norm_backward";
  require_shape(a.x.cols > 0, kOp, ": x has rows of 0 columns, whose mean does not exist");
  require_size(kOp, "dy", a.dy, a.x.rows, a.x.cols);
  require_size(kOp, "dx", a.dx, a.x.rows, a.x.cols);
  require_length(kOp, "weight", a.weight, static_cast<std::size_t>(a.x.cols));
  require_length(kOp, "rstd", a.rstd, static_cast<std::size_t>(a.x.rows));
  if (!a.dweight.empty()) {
    require_length(kOp, "dweight", a.dweight, static_cast<std::size_t>(a.x.cols));
  }
  require_shape(!a.add_dx || a.dx.data != a.dy.data, kOp,
                ": add_dx adds to dx, so dx cannot be dy as well; give it memory of its own");
}

void rms_norm(const Context& ctx, const RmsNorm<float>& a) {
  check_shapes(a);
  ctx.ops().rms_norm(ctx, a);
}

void rms_norm_backward(const Context& ctx, const RmsNormBackward<float>& a) {
  check_shapes(a);
  ctx.ops().rms_norm_backward(ctx, a);
}

}  // namespace cachalot
