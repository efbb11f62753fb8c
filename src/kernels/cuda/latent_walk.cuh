// What the blocks of threads of all kernels do alike: their pieces, references of softmax, sums of
// chunks.
#pragma once

#include "kernels/cuda/latent_device.cuh"
#include "kernels/cuda/latent_plan.h"

namespace cachalot::cuda {

// The pieces of a block of threads.
struct PieceRange {
  int first, last;
};
__device__ inline PieceRange pieces_of_block(const DevicePlan& plan) {
  return {plan.begins[blockIdx.x], plan.begins[blockIdx.x + 1]};
}

// Largest scores are rounded up to whole powers of two, and kept while no score is 2^8 past them:
// factors between them are exact, so that when they change changes no bits of a result.
inline constexpr float kReferenceSlack = 8;
__device__ inline float next_reference(float reference, float largest) {
  return largest > reference + kReferenceSlack ? ceilf(largest) : reference;
}

// 2^(from - to), exact; of nothing yet (-infinity) 0.
__device__ inline float between(float from, float to) {
  return exp2_of(from - (to == -INFINITY ? 0 : to));
}

// What becomes of a chunk's sums: the first of a piece is stored as a partial, others are added to
// it, and where the piece is all of a row its last one makes the result. `carry` brings the partial
// to the reference of the sums. Always a + b of exact a and b: bits do not depend on the path.
enum class Deposit { kStore, kAdd, kResult, kLastResult };

__device__ inline Deposit deposit_of(const RowGroup& g, bool first, bool last) {
  if (g.pieces == 1 && last) return first ? Deposit::kResult : Deposit::kLastResult;
  return first ? Deposit::kStore : Deposit::kAdd;
}
// `carried`: some lane of the warp has a carry other than 1.
__device__ inline void deposit(Deposit how, float x, float* partial, float carry, bool carried) {
  if (how == Deposit::kStore) {
    *partial = x;
  } else if (carried) {
    *partial = __fmaf_rn(__ldcg(partial), carry, x);
  } else {
    asm volatile("red.relaxed.gpu.global.add.f32 [%0], %1;" ::"l"(partial), "f"(x) : "memory");
  }
}
// Two neighbouring sums; `carried`: some lane of the warp has a carry other than 1.
__device__ inline void deposit(Deposit how, float2 x, float* partial, float carry, bool carried,
                               float* out, float by) {
  if (how == Deposit::kStore) {
    *reinterpret_cast<float2*>(partial) = x;
    return;
  }
  if (how == Deposit::kAdd && !carried) {
    asm volatile("red.relaxed.gpu.global.add.v2.f32 [%0], {%1, %2};" ::"l"(partial), "f"(x.x),
                 "f"(x.y)
                 : "memory");
    return;
  }
  if (how != Deposit::kResult) {
    const float2 before = __ldcg(reinterpret_cast<const float2*>(partial));
    x = {__fmaf_rn(before.x, carry, x.x), __fmaf_rn(before.y, carry, x.y)};
  }
  if (how == Deposit::kAdd) {
    *reinterpret_cast<float2*>(partial) = x;
  } else {  // + 0: no -0, which no sum of partials is
    *reinterpret_cast<float2*>(out) = {__fmaf_rn(x.x, by, 0.0f), __fmaf_rn(x.y, by, 0.0f)};
  }
}

}  // namespace cachalot::cuda
