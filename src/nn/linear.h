// The backward of y = x W^T, for one Linear or several at once (experts).
#pragma once

#include <initializer_list>
#include <span>

#include "kernels/gemm.h"

namespace cachalot::nn {

struct LinearBackward {
  MatView<const float> dy;  // [T, out]
  MatView<const float> x;   // [T, in]
  MatRef w;                 // [out, in]
  MatView<float> dw;        // [out, in]  added to
  MatView<float> dx;        // [T, in]; rows 0: not wanted
  bool add_dx = false;      // dx += instead of dx =
};

// dx = dy W, dw += dy^T x, for all of them in one batch. No two may write the same dx or dw.
void linear_backward(const Context& ctx, Precision precision,
                     std::span<const LinearBackward> layers);
inline void linear_backward(const Context& ctx, Precision precision,
                            std::initializer_list<LinearBackward> layers) {
  linear_backward(ctx, precision, std::span<const LinearBackward>(layers.begin(), layers.size()));
}

}  // namespace cachalot::nn
