// The balance loss of one MoE layer over sequences of one or of several lengths.
//
// Threads: one caller; the op inside uses the context's threads.
// Paper:   V3 report 2.1.2, eq. 17-20; 4.5.3 for one run over a whole batch.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/route.h"

namespace cachalot::nn {

// Rows that are balanced by themselves.
struct BalanceRun {
  std::int32_t rows = 0;
  double share = 1;  // of the layer's loss; together 1, and equal where the rows are
};

// The balance loss a layer adds to the total: the runs' losses by their shares. One run of all rows
// is the batch-wise loss. A run without rows loses nothing.
struct BalanceTerm {
  std::span<const BalanceRun> runs;  // one behind the other, of all rows
  float grad_scale = 0;              // alpha times the micro-batch's share of its step
};

// Returns the loss; `dscores` [T, E] or empty is overwritten with grad_scale times its gradient.
double balance_loss(const Context& ctx, const BalanceTerm& term, MatView<const float> scores,
                    int topk, MatView<float> dscores);

}  // namespace cachalot::nn
