// SwiGLU of one value, with every rounding spelt out: whoever fuses it gets the bits of whoever
// does not.
#pragma once

#include <cuda_runtime.h>

namespace cachalot::cuda {

// 1 / (1 + e^-x), off by 2^-22 + |x| 2^-24, relatively; 0 from about -88 on.
__device__ __forceinline__ float sigmoid(float x) {
  float power, s;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(__fmul_rn(x, -1.44269504088896341f)));
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(s) : "f"(__fadd_rn(1.0f, power)));
  return s;
}

__device__ __forceinline__ float gated(float gate, float up) {
  return __fmul_rn(__fmul_rn(gate, sigmoid(gate)), up);
}

struct GatedBackward {
  float dgate, dup;
  float hidden;  // silu(gate) * up
};
// `dout` has the weight in it. silu' = s + g s (1 - s).
__device__ __forceinline__ GatedBackward gated_backward(float gate, float up, float dout) {
  const float s = sigmoid(gate);
  const float silu = __fmul_rn(gate, s);
  const float slope = __fmaf_rn(silu, __fsub_rn(1.0f, s), s);
  return {__fmul_rn(__fmul_rn(dout, up), slope), __fmul_rn(dout, silu), __fmul_rn(silu, up)};
}

}  // namespace cachalot::cuda
