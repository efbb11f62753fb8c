// The head in a training pass: logits, losses and gradients of the rows that have a target. The
// others cost nothing: of conversations that is every row in front of a token that is only read, of
// a validation's windows what the window before has scored.
//
// Owns:    its buffers, reused from pass to pass.
// Threads: one caller.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/gemm.h"
#include "model/row_indices.h"
#include "nn/numerics.h"
#include "tensor/room.h"

namespace cachalot::model {

struct HeadPass {
  MatView<const float> normed;                 // [T, D]
  MatRef head;                                 // [vocab, D]
  std::span<const std::int32_t> targets = {};  // [T] or kNoTarget, on the host
  int head_rows =
      0;  // rows of logits in memory at a time; 0: 32 MiB of them, but at least 512 rows
  bool backward = false;
  // With backward:
  float grad_scale = 0;
  MatView<float> dnormed = {};  // [T, D] overwritten
  MatView<float> dhead = {};    // [vocab, D] added to, or overwritten
  bool add_dhead = false;
};

class TrainHead {
 public:
  // The sum of the losses; `argmax` [T] gets each such row's largest logit, and kNoTarget
  // elsewhere. Logits lie in `room`.
  double run(const Context& ctx, const nn::Numerics& num, const HeadPass& pass, Room& room,
             std::vector<std::int32_t>& argmax);

 private:
  void pieces(const Context& ctx, const nn::Numerics& num, const HeadPass& pass, Room& room);

  RowIndices rows_, targets_, argmax_;  // those with a target
  Mat<float> normed_, dnormed_;         // of them, where they are not all
  Mat<Bf16> dlogits_;
  Mat<double> op_losses_;  // as cross entropy writes them
  std::vector<double> losses_;
};

}  // namespace cachalot::model
