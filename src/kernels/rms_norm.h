// y = x * rsqrt(mean(x^2) + eps) * weight, row by row; and its gradient.
//
// Threads: rows (forward, dx) and column blocks (dweight) are independent; sums over a row or a
//          column run in a fixed order, so results do not depend on the thread count.
// Paper:   RMSNorm (Zhang & Sennrich 2019); eps inside the root, as every DeepSeek checkpoint has
// it.
#pragma once

#include <span>

#include "kernels/context.h"
#include "tensor/mat.h"

namespace cachalot {

template <class T>
struct RmsNorm {
  MatView<const T> x;         // [T, D]
  std::span<const T> weight;  // [D]
  T eps;
  MatView<T> y;       // [T, D]; may be x
  std::span<T> rstd;  // [T] or empty: 1 / rms, kept for the backward
};

template <class T>
struct RmsNormBackward {
  MatView<const T> x;         // [T, D] the forward's input
  std::span<const T> weight;  // [D]
  std::span<const T> rstd;    // [T]
  MatView<const T> dy;        // [T, D]
  MatView<T> dx;              // [T, D]; may be dy unless add_dx
  bool add_dx = false;        // dx += instead of dx =
  std::span<T> dweight;       // [D], added to; or empty: not wanted
};

template <class T>
void rms_norm_ref(const Context& ctx, const RmsNorm<T>& a);
template <class T>
void rms_norm_backward_ref(const Context& ctx, const RmsNormBackward<T>& a);

void check_shapes(const RmsNorm<float>& a);
void check_shapes(const RmsNormBackward<float>& a);
void rms_norm(const Context& ctx, const RmsNorm<float>& a);                   // the table's
void rms_norm_backward(const Context& ctx, const RmsNormBackward<float>& a);  // the table's

}  // namespace cachalot
