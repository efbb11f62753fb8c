#include "model/train_head.h"

#include <algorithm>
#include <numeric>

#include "kernels/cross_entropy.h"
#include "kernels/elementwise.h"
#include "kernels/gemm.h"
#include "kernels/permute.h"
#include "kernels/profile.h"

namespace cachalot::model {

// Of rows that all have a target.
void TrainHead::pieces(const Context& ctx, const nn::Numerics& num, const HeadPass& pass,
                       Room& room) {
  const MatView<const float> normed = pass.normed;
  const int vocab = pass.head.rows;
  argmax_.ops.resize(1, normed.rows);
  op_losses_.resize(1, normed.rows);
  // Each piece reads the head and adds to its gradient, so pieces are as large as their logits
  // allow.
  constexpr int kLeastRows = 512;
  const int most_logits = ctx.device != nullptr ? 256 << 20 : 8 << 20;
  const int head_rows =
      pass.head_rows > 0 ? pass.head_rows : std::max(most_logits / vocab, kLeastRows);
  for (int begin = 0; begin < normed.rows; begin += head_rows) {
    const int rows = std::min(head_rows, normed.rows - begin);
    const auto from = static_cast<std::size_t>(begin);
    const auto n = static_cast<std::size_t>(rows);
    const auto logits = room.as<float>(rows, vocab);
    gemm(ctx, num.products, linear(normed.sub_rows(begin, rows), pass.head, logits));
    // What the products read of the gradient.
    const bool in_bf16 = pass.backward && (num.bf16_operands || num.bf16_results);
    dlogits_.resize(in_bf16 ? rows : 0, vocab);
    cross_entropy(ctx, {logits, targets_.span().subspan(from, n),
                        op_losses_.span().subspan(from, n), argmax_.ops.span().subspan(from, n),
                        pass.backward, pass.grad_scale, dlogits_.view()});
    if (!pass.backward) continue;
    const MatRef dlogits = in_bf16 ? MatRef(dlogits_.cview()) : MatRef(logits);
    const Gemm back[] = {
        {dlogits, pass.head, pass.dnormed.sub_rows(begin, rows), false, false, false},
        {dlogits, normed.sub_rows(begin, rows), pass.dhead, true, false,
         pass.add_dhead || begin > 0}};
    gemm(ctx, num.products, back);
  }
  argmax_.from_ops();
  losses_.resize(argmax_.size());
  download<double>(op_losses_, losses_);
}

double TrainHead::run(const Context& ctx, const nn::Numerics& num, const HeadPass& pass, Room& room,
                      std::vector<std::int32_t>& argmax) {
  const PartScope part(ctx, Part::kHead);
  rows_.host.clear();
  targets_.host.clear();
  for (std::size_t i = 0; i < pass.targets.size(); ++i) {
    if (pass.targets[i] == kNoTarget) continue;
    rows_.host.push_back(static_cast<std::int32_t>(i));
    targets_.host.push_back(pass.targets[i]);
  }
  argmax.assign(pass.targets.size(), kNoTarget);
  const bool all = rows_.size() == pass.targets.size();
  if (pass.backward && !all) zero_rows(ctx, pass.dnormed);
  if (rows_.host.empty()) {
    if (pass.backward && !pass.add_dhead) zero_rows(ctx, pass.dhead);
    return 0;
  }
  targets_.to_ops();
  if (all) {
    pieces(ctx, num, pass, room);
  } else {
    const auto rows = static_cast<int>(rows_.size());
    rows_.to_ops();
    normed_.resize(rows, pass.normed.cols);
    dnormed_.resize(pass.backward ? rows : 0, pass.normed.cols);
    gather_rows(ctx, {pass.normed, rows_.span(), normed_.view()});
    HeadPass chosen = pass;
    chosen.normed = normed_.cview();
    chosen.dnormed = dnormed_.view();
    pieces(ctx, num, chosen, room);
    if (pass.backward) add_rows(ctx, {dnormed_.cview(), rows_.span(), pass.dnormed});
  }
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    argmax[static_cast<std::size_t>(rows_.host[i])] = argmax_.host[i];
  }
  return std::accumulate(losses_.begin(), losses_.end(), 0.0);
}

}  // namespace cachalot::model
