#include "nn/balance.h"

#include <algorithm>

namespace cachalot::nn {

// Runs of one length go through the op at once.
double balance_loss(const Context& ctx, const BalanceTerm& term, MatView<const float> scores,
                    int topk, MatView<float> dscores) {
  const auto runs = term.runs;
  const auto as_first = [&](const BalanceRun& r) { return r.rows == runs.front().rows; };
  if (std::all_of(runs.begin(), runs.end(), as_first)) {
    return cachalot::balance_loss(
        ctx, {scores, static_cast<int>(runs.size()), topk, term.grad_scale, dscores});
  }
  double loss = 0;
  int begin = 0;
  for (const BalanceRun& r : runs) {
    if (r.rows == 0) continue;
    const auto scale = static_cast<float>(term.grad_scale * r.share);
    const MatView<float> d = dscores.empty() ? dscores : dscores.sub_rows(begin, r.rows);
    loss +=
        r.share * cachalot::balance_loss(ctx, {scores.sub_rows(begin, r.rows), 1, topk, scale, d});
    begin += r.rows;
  }
  return loss;
}

}  // namespace cachalot::nn
