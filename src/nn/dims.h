// The sizes one transformer block needs, and what is fixed for a whole forward pass.
// Symbols as in docs/symbols.md.
#pragma once

#include "kernels/attention.h"
#include "kernels/context.h"
#include "kernels/rope.h"
#include "kernels/route.h"

namespace cachalot::nn {

struct BlockDims {
  int hidden = 0;       // D
  int q_lora = 0;       // Q; 0: queries come from one projection
  int kv_lora = 0;      // L
  AttentionDims heads;  // H, N, R, V
  float eps = 1e-6F;
  float softmax_scale = 0;  // 1 / sqrt(N + R), times YaRN's factor
  RouteConfig route;

  int q_width() const noexcept { return heads.heads * (heads.nope + heads.rope); }
  int kv_width() const noexcept { return heads.heads * (heads.nope + heads.value); }
  int out_width() const noexcept { return heads.heads * heads.value; }
  int cache_width() const noexcept { return kv_lora + heads.rope; }
};

// Angles of the rows of a pass: row i belongs to the position of row i.
struct RopeRows {
  MatView<const float> cos;  // [T, R / 2]
  MatView<const float> sin;  // [T, R / 2]
};

}  // namespace cachalot::nn
