// Softmax cross entropy in place: the logits become their gradient, so a large vocabulary needs no
// second copy; or the gradient is written beside them in half the bytes.
//
// Threads: rows are independent.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/context.h"
#include "tensor/mat.h"

namespace cachalot {

inline constexpr std::int32_t kNoTarget = -1;  // such a row has loss 0 and gradient 0

template <class T>
struct CrossEntropy {
  MatView<T> logits;                      // [T, vocab]
  std::span<const std::int32_t> targets;  // [T], or kNoTarget
  std::span<double> loss;                 // [T]  -log softmax(logits)[target]
  std::span<std::int32_t> argmax;         // [T] or empty: the largest logit (lowest index on ties)
  bool backward = false;                  // logits := grad_scale * (softmax - onehot)
  T grad_scale = 1;
  // [T, vocab] or no rows. With backward the gradient goes here, rounded to bf16 as a bf16 product
  // would round it, and the logits stay what they were.
  MatView<Bf16> gradient = {};
};

template <class T>
void cross_entropy_ref(const Context& ctx, const CrossEntropy<T>& a);
void check_shapes(const CrossEntropy<float>& a);
void cross_entropy(const Context& ctx, const CrossEntropy<float>& a);

}  // namespace cachalot
