// DeepSeekMoE with bias-balanced routing; and the dense MLP of the first layers.
//
// Symbols: T rows, D hidden, E experts, k experts per token, P = T * k.
// Threads: one caller; the ops inside use the context's threads.
// Paper:   V3 report 2.1.2, eq. 12-20.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/permute.h"
#include "kernels/routed_rows.h"
#include "nn/dims.h"
#include "nn/ffn.h"
#include "tensor/room.h"

namespace cachalot::nn {

// y += mlp(h) (without `add`, y = mlp(h)); what the backward needs goes to `saved` where it is not
// null.
void mlp_forward(const Context& ctx, const Numerics& num, const MlpWeights& w, const Operand& h,
                 MatView<float> y, FfnActs& acts, FfnSaved* saved, Products& products,
                 bool add = true);
// From dy to dh [T, D] (overwritten).
void mlp_backward(const Context& ctx, const Numerics& num, const MlpWeights& w,
                  const MlpGradients& g, const Operand& h, const Operand& dy, MatView<float> dh,
                  FfnActs& acts, FfnSaved& saved, Products& products);

// Which experts each token went to, and how much each of them counted.
struct MoeRoute {
  Mat<float> scores;        // [T, E]
  Mat<std::int32_t> index;  // [T, k]
  Mat<float> weight;        // [T, k]
  ExpertOrder order;
};

// Buffers of a pass, reused from layer to layer.
struct MoeActs {
  Mat<float> logits;  // [T, E]
  Operand x;          // [P, D] rows in expert order
  // [P, D] the experts' results; in the backward the gradients of their inputs, in bf16 where
  // in_bf16. Free between the passes over blocks.
  Room rows;
  FfnActs experts, shared;      // `experts` serves dense layers, too
  std::vector<MlpRows> routed;  // weights of a layer, where few rows choose them on a device
  Products products;
};

struct MoeSaved {
  MoeRoute route;
  FfnSaved experts, shared;
};

// y += shared(h) + sum of the chosen experts; without `add`, y = that. `h_plain` are the floats of
// h: the gate's product is always float. `saved` null: nothing is kept but the route.
void moe_forward(const Context& ctx, const Numerics& num, const BlockDims& dims,
                 const MoeWeights& w, const Operand& h, MatView<const float> h_plain,
                 MatView<float> y, MoeActs& acts, MoeRoute& route, MoeSaved* saved,
                 bool add = true);
// The same with nothing kept, where routes_on_device says so: y += it, and `normed` is the norm of
// that by these weights.
void moe_forward_routed(const Context& ctx, const Numerics& num, const BlockDims& dims,
                        const MoeWeights& w, MatView<const float> h, MatView<float> y,
                        VecRef norm_weight, MatView<float> normed, MoeActs& acts, MoeRoute& route);

// Whether moe_forward of so many rows, with nothing kept, asks nothing of the host: its launches
// then depend on the shape alone.
bool routes_on_device(const Context& ctx, const Numerics& num, const BlockDims& dims,
                      const MoeWeights& w, int rows, MoeActs& acts);

struct MoeScratch {
  Mat<float> dweight, dscores, dlogits;
  Mat<float> row_weight, drow_weight;  // [1, P]
  Operand dy;                          // [P, D]
};

// The balance loss this layer adds to the total: grad_scale is alpha times the micro-batch's share
// of its step; the loss is the mean over runs of rows, one for each sequence or a single one for
// the batch-wise loss. Runs of several lengths count by their rows.
struct BalanceTerm {
  std::span<const int> runs;  // together all rows; none is empty
  float grad_scale = 0;
};
// That loss of scores [T, E], before alpha; `dscores` (or empty) as BalanceLoss has it.
double balance_over(const Context& ctx, MatView<const float> scores, const BalanceTerm& balance,
                    int topk, MatView<float> dscores);

// From dy [T, D], tiles both ways, to dh [T, D] (overwritten). Returns the balance loss before
// alpha. h has tiles along its rows; those along its columns are added here.
double moe_backward(const Context& ctx, const Numerics& num, const BlockDims& dims,
                    const MoeWeights& w, const MoeGradients& g, const Operand& h,
                    MatView<const float> h_plain, const BalanceTerm& balance, const Operand& dy,
                    MatView<float> dh, MoeActs& acts, MoeSaved& saved, MoeScratch& scratch);

}  // namespace cachalot::nn
