// One AdamW step of one tensor, and the running mean of the weights.
//
//   g' = g * grad_scale;  m = b1 m + (1 - b1) g';  v = b2 v + (1 - b2) g'^2
//   p = p (1 - lr wd) - lr (m / (1 - b1^step)) / (sqrt(v / (1 - b2^step)) + eps)
//   ema = ema + (1 - decay) (p - ema)
// The moments are kept as float, or as bf16: then this step's update still takes them as they were
// computed, and only what is kept for the next step is rounded (to nearest, ties to even). A kept
// moment stands still once a step changes it by less than half a bf16 step, so a decay must take
// at least that: see moments_can_decay.
// Threads: elements are independent.
// Paper:   Loshchilov & Hutter 2019; identical to torch.optim.AdamW (eps outside the root). V3
//          report 3.3.3: moments in bf16, master weights in FP32; 3.2.3: EMA of the weights.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/context.h"
#include "tensor/dtype.h"

namespace cachalot {

struct AdamWConfig {
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;  // of this tensor: 0 for norms
};

template <class T, class M = T>
struct AdamW {
  AdamWConfig config;
  std::int64_t step = 1;  // counts from 1
  double grad_scale = 1;  // clipping
  std::span<const T> grad;
  std::span<T> param;
  std::span<M> m, v;
};

struct WeightAverage {
  double decay = 0;
  std::span<const float> param;
  std::span<float> ema;
};

// min(1, clip_norm / (norm + 1e-6)); 1 where clip_norm is 0.
double clip_scale(double norm, double clip_norm) noexcept;

// Whether a moment of this type with this decay reaches zero where its input is zero: x * decay
// must round below x for every x. bf16 has 8 significant bits, so 1 - decay >= 2^-8 is needed
// (0.95 is; 0.999 is not: its second moment would keep the size of the largest gradient it ever
// met).
bool moments_can_decay(DType moments, double decay) noexcept;

template <class T, class M>
void adamw_ref(const Context& ctx, const AdamW<T, M>& a);
void check_shapes(const AdamW<float>& a);
void check_shapes(const AdamW<float, Bf16>& a);
void adamw(const Context& ctx, const AdamW<float>& a);
void adamw(const Context& ctx, const AdamW<float, Bf16>& a);

void weight_average_ref(const Context& ctx, const WeightAverage& a);
void check_shapes(const WeightAverage& a);
void weight_average(const Context& ctx, const WeightAverage& a);

}  // namespace cachalot
