#include "kernels/cross_entropy.h"

#include <algorithm>
#include <cmath>

#include "kernels/shape_check.h"
#include "kernels/table.h"

namespace cachalot {

template <class T>
void cross_entropy_ref(const Context& ctx, const CrossEntropy<T>& a) {
  const int vocab = a.logits.cols;
  ctx.for_each(a.logits.rows, /*grain=*/1, [&](std::int64_t t) {
    T* row = a.logits.row(t);  // [vocab]
    const auto put = [&](int v, T gradient) {
      if (a.gradient.rows > 0) {
        a.gradient.row(t)[v] = to_bf16(static_cast<float>(gradient));
      } else {
        row[v] = gradient;
      }
    };
    const auto i = static_cast<std::size_t>(t);
    const std::int32_t target = a.targets[i];
    const int best = static_cast<int>(std::max_element(row, row + vocab) - row);
    if (!a.argmax.empty()) a.argmax[i] = best;
    if (target < 0) {
      a.loss[i] = 0;
      for (int v = 0; v < vocab && a.backward; ++v) put(v, T{0});
      return;
    }
    const double top = double{row[best]};
    double sum = 0;
    for (int v = 0; v < vocab; ++v) sum += std::exp(double{row[v]} - top);
    a.loss[i] = std::log(sum) - (double{row[target]} - top);
    if (!a.backward) return;
    const double scale = double{a.grad_scale};
    for (int v = 0; v < vocab; ++v) {
      const double p = std::exp(double{row[v]} - top) / sum;
      put(v, static_cast<T>(scale * (p - (v == target ? 1.0 : 0.0))));
    }
  });
}

template void cross_entropy_ref(const Context&, const CrossEntropy<float>&);
template void cross_entropy_ref(const Context&, const CrossEntropy<double>&);

void check_shapes(const CrossEntropy<float>& a) {
  constexpr std::string_view kOp = "cross_entropy";
  const auto rows = static_cast<std::size_t>(a.logits.rows);
  require_shape(a.logits.cols > 0 || rows == 0, kOp, ": the vocabulary is empty");
  require_length(kOp, "targets", a.targets, rows);
  require_length(kOp, "loss", a.loss, rows);
  if (!a.argmax.empty()) require_length(kOp, "argmax", a.argmax, rows);
  require_range(kOp, "targets", a.targets, -1, a.logits.cols);
  if (a.gradient.rows > 0) {
    require_size(kOp, "gradient", a.gradient, a.logits.rows, a.logits.cols);
  }
}

void cross_entropy(const Context& ctx, const CrossEntropy<float>& a) {
  check_shapes(a);
  ctx.ops().cross_entropy(ctx, a);
}

}  // namespace cachalot
