// One AdamW step of one tensor.
//
//   g' = g * grad_scale;  m = b1 m + (1 - b1) g';  v = b2 v + (1 - b2) g'^2
//   p = p (1 - lr wd) - lr (m / (1 - b1^step)) / (sqrt(v / (1 - b2^step)) + eps)
// Threads: elements are independent.
// Paper:   Loshchilov & Hutter 2019; identical to torch.optim.AdamW (eps outside the root).
#pragma once

#include <cstdint>
#include <span>

#include "kernels/context.h"

namespace cachalot {

struct AdamWConfig {
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;  // of this tensor: 0 for norms
};

template <class T>
struct AdamW {
  AdamWConfig config;
  std::int64_t step = 1;  // counts from 1
  double grad_scale = 1;  // clipping
  std::span<const T> grad;
  std::span<T> param, m, v;
};

// min(1, clip_norm / (norm + 1e-6)); 1 where clip_norm is 0.
double clip_scale(double norm, double clip_norm) noexcept;

template <class T>
void adamw_ref(const Context& ctx, const AdamW<T>& a);
void check_shapes(const AdamW<float>& a);
void adamw(const Context& ctx, const AdamW<float>& a);

}  // namespace cachalot
