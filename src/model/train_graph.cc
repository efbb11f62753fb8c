#include "model/train_graph.h"

#include <algorithm>
#include <numeric>

#include "kernels/cross_entropy.h"
#include "kernels/elementwise.h"
#include "kernels/gemm.h"
#include "kernels/permute.h"
#include "kernels/profile.h"
#include "kernels/rms_norm.h"
#include "model/binding.h"
#include "tensor/host_copy.h"

namespace cachalot::model {

TrainGraph::TrainGraph(const Context& ctx, const Config& config, Precision precision)
    : TrainGraph(ctx, config,
                 precision == Precision::kF32 ? nn::Numerics::f32() : nn::Numerics::bf16()) {}

TrainGraph::TrainGraph(const Context& ctx, const Config& config, const nn::Numerics& numerics)
    : ctx_(ctx), config_(config), dims_(block_dims(config)), num_(numerics) {
  if (config.num_nextn_predict_layers > 1) {
    throw Error(Code::kUnsupported,
                cat("num_nextn_predict_layers is ", config.num_nextn_predict_layers,
                    "; training supports 0 or 1"));
  }
  num_.bf16_results =
      num_.bf16_results && ctx.device != nullptr && num_.fp8 && num_.products == Precision::kBF16;
  layers_.resize(static_cast<std::size_t>(config.num_hidden_layers));
}

double TrainGraph::head_loss(MatView<const float> normed, MatRef head, const Indices& targets,
                             float grad_scale, bool backward, const LossOptions& options,
                             MatView<float> dnormed, MatView<float> dhead, bool add_dhead,
                             Indices& argmax) {
  const PartScope part(ctx_, Part::kHead);
  argmax.ops.resize(1, normed.rows);
  op_row_losses_.resize(1, normed.rows);
  // Each piece reads the head and adds to its gradient, so pieces are as large as their logits
  // allow.
  constexpr int kLeastRows = 512;
  const int most_logits = ctx_.device != nullptr ? 256 << 20 : 8 << 20;
  const int head_rows =
      options.head_rows > 0 ? options.head_rows : std::max(most_logits / head.rows, kLeastRows);
  for (int begin = 0; begin < normed.rows; begin += head_rows) {
    const int rows = std::min(head_rows, normed.rows - begin);
    const auto from = static_cast<std::size_t>(begin);
    const auto n = static_cast<std::size_t>(rows);
    const auto logits = scratch_.moe.rows.as<float>(rows, head.rows);
    gemm(ctx_, num_.products, linear(normed.sub_rows(begin, rows), head, logits));
    // What the products read of the gradient.
    const bool in_bf16 = backward && (num_.bf16_operands || num_.bf16_results);
    dlogits_.resize(in_bf16 ? rows : 0, head.rows);
    cross_entropy(ctx_,
                  {logits, targets.span().subspan(from, n), op_row_losses_.span().subspan(from, n),
                   argmax.ops.span().subspan(from, n), backward, grad_scale, dlogits_.view()});
    if (backward) {
      const MatRef dlogits = in_bf16 ? MatRef(dlogits_.cview()) : MatRef(logits);
      const Gemm back[] = {
          {dlogits, head, dnormed.sub_rows(begin, rows), false, false, false},
          {dlogits, normed.sub_rows(begin, rows), dhead, true, false, add_dhead || begin > 0}};
      gemm(ctx_, num_.products, back);
    }
  }
  argmax.from_ops(targets.size());
  std::vector<double>& loss = row_losses_;
  loss.resize(targets.size());
  download<double>(op_row_losses_, loss);
  return std::accumulate(loss.begin(), loss.end(), 0.0);  // rows without a target lose nothing
}

Sequences TrainGraph::sequences_of(MatView<const std::int32_t> tokens) {
  window_tokens_.clear();
  for (int b = 0; b < tokens.rows; ++b) {
    window_tokens_.insert(window_tokens_.end(), tokens.row(b), tokens.row(b) + tokens.cols);
  }
  window_lengths_.assign(static_cast<std::size_t>(tokens.rows), tokens.cols);
  return {window_tokens_, window_lengths_};
}

const Losses& TrainGraph::forward_backward(Parameters& parameters,
                                           MatView<const std::int32_t> tokens,
                                           const LossOptions& options) {
  return run(parameters, sequences_of(tokens), options, true);
}
const Losses& TrainGraph::forward_backward(Parameters& parameters, const Sequences& sequences,
                                           const LossOptions& options) {
  return run(parameters, sequences, options, true);
}

const Losses& TrainGraph::evaluate(Parameters& parameters, MatView<const std::int32_t> tokens,
                                   const LossOptions& options) {
  return run(parameters, sequences_of(tokens), options, false);
}
const Losses& TrainGraph::evaluate(Parameters& parameters, const Sequences& sequences,
                                   const LossOptions& options) {
  return run(parameters, sequences, options, false);
}

void TrainGraph::prepare(const Sequences& sequences, bool mtp, int score_from) {
  layout_.lay_out(config_.rope, angles_, sequences.lengths);
  tokens_.set(sequences, 0, score_from);
  mtp_tokens_.scored = 0;
  if (!mtp) return;
  mtp_layout_.lay_out(config_.rope, angles_, sequences.lengths);
  mtp_tokens_.set(sequences, 1, score_from);
}

// A sequence of the MTP layer has a row less, and so has its number there.
void TrainGraph::begin_dropout(const Sequences& sequences, const LossOptions& options) {
  drop_ = mtp_drop_ = {};
  if (options.dropout <= 0) return;
  const auto lengths = sequences.lengths;
  std::int64_t rows = options.rows_per_sequence;
  if (rows == 0) {
    const auto as_first = [&](std::int32_t n) { return n == lengths.front(); };
    if (!std::all_of(lengths.begin(), lengths.end(), as_first)) {
      throw Error(Code::kUsage,
                  "dropout of sequences of several lengths: rows_per_sequence is 0, but a row's "
                  "mask follows from its number in the run, and rows have to be numbered by "
                  "windows of one size; set it to the most rows of a window");
    }
    rows = lengths.front() - 1;
  }
  const std::int64_t before = options.first_sequence;
  drop_ = {options.dropout, options.dropout_seed, before * rows, 0};
  mtp_drop_ = {options.dropout, options.dropout_seed, before * (rows - 1),
               config_.num_hidden_layers};
}

void TrainGraph::drop_entry(const nn::LayerDropout& drop, MatView<float> x) const {
  if (!drop.on()) return;
  const PartScope part(ctx_, Part::kElementwise);
  dropout(ctx_, {drop.mask(nn::DropoutPlace::kEmbedding), x, x});
}

// Nothing counted yet, in the memory of the last pass.
void TrainGraph::begin_losses() {
  std::vector<double> balance = std::move(losses_.balance_per_layer);
  std::vector<std::vector<std::int64_t>> load = std::move(losses_.expert_load);
  balance.clear();
  losses_ = {};
  losses_.balance_per_layer = std::move(balance);
  losses_.expert_load = std::move(load);
  loads_ = 0;
}

void TrainGraph::add_load(const ExpertOrder& order) {
  auto& loads = losses_.expert_load;
  if (loads_ == loads.size()) loads.emplace_back();
  std::vector<std::int64_t>& load = loads[loads_++];
  load.resize(order.begin.size() - 1);
  for (std::size_t e = 0; e < load.size(); ++e) load[e] = order.begin[e + 1] - order.begin[e];
}

void TrainGraph::forward_main(const nn::Weights& w) {
  const int rows = static_cast<int>(tokens_.inputs.size());
  const int d = dims_.hidden;
  x_.resize(rows, d);
  {
    const PartScope part(ctx_, Part::kElementwise);
    embedding(ctx_, {w.embed, tokens_.inputs.span(), x_.view()});
  }
  drop_entry(drop_, x_.view());
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    nn::block_forward(ctx_, num_, dims_, w.layers[l], layout_.rope(), layout_.spans(),
                      drop_.of_layer(static_cast<int>(l)), x_.view(), layers_[l], scratch_);
    if (w.layers[l].is_moe) add_load(layers_[l].moe.route.order);
  }
  normed_.resize(rows, d);
  dnormed_.resize(rows, d);
  norm_rstd_.resize(1, rows);
  const PartScope part(ctx_, Part::kElementwise);
  rms_norm(ctx_, {x_.cview(), w.norm, dims_.eps, normed_.view(), norm_rstd_.span()});
}

void TrainGraph::forward_mtp(const nn::MtpWeights& w) {
  const int rows = static_cast<int>(mtp_tokens_.inputs.size());
  const int d = dims_.hidden;
  mtp_embed_.resize(rows, d);
  mtp_hidden_.resize(rows, d);
  mtp_joined_.resize(rows, 2 * d);
  mtp_x_.resize(rows, d);
  mtp_normed_.resize(rows, d);
  mtp_dnormed_.resize(rows, d);
  for (Mat<float>* rstd : {&enorm_rstd_, &hnorm_rstd_, &mtp_rstd_}) {
    rstd->resize(1, rows);
  }
  {
    const PartScope part(ctx_, Part::kElementwise);
    embedding(ctx_, {w.embed, mtp_tokens_.inputs.span(), mtp_embed_.view()});
    gather_rows(ctx_, {normed_.cview(), mtp_tokens_.rows.span(), mtp_hidden_.view()});
    rms_norm(ctx_, {mtp_embed_.cview(), w.enorm, dims_.eps, mtp_joined_.view().sub_cols(0, d),
                    enorm_rstd_.span()});
    rms_norm(ctx_, {mtp_hidden_.cview(), w.hnorm, dims_.eps, mtp_joined_.view().sub_cols(d, d),
                    hnorm_rstd_.span()});
  }
  {
    const PartScope part(ctx_, Part::kDense);
    gemm(ctx_, num_.products, linear(mtp_joined_.cview(), w.eh_proj, mtp_x_.view()));
  }
  drop_entry(mtp_drop_, mtp_x_.view());
  nn::block_forward(ctx_, num_, dims_, w.block, mtp_layout_.rope(), mtp_layout_.spans(), mtp_drop_,
                    mtp_x_.view(), mtp_block_, scratch_);
  if (w.block.is_moe) add_load(mtp_block_.moe.route.order);
  const PartScope part(ctx_, Part::kElementwise);
  rms_norm(ctx_, {mtp_x_.cview(), w.head_norm, dims_.eps, mtp_normed_.view(), mtp_rstd_.span()});
}

double TrainGraph::backward_mtp(const nn::MtpWeights& w, const nn::MtpGradients& g,
                                const nn::BalanceTerm& balance) {
  const int rows = static_cast<int>(mtp_tokens_.inputs.size());
  const int d = dims_.hidden;
  mtp_dx_.resize(rows, d);
  mtp_djoined_.resize(rows, 2 * d);
  rms_norm_backward(ctx_, {mtp_x_.cview(), w.head_norm, mtp_rstd_.span(), mtp_dnormed_.cview(),
                           mtp_dx_.view(), false, g.head_norm});
  const double loss = nn::block_backward(ctx_, num_, dims_, w.block, g.block, mtp_layout_.rope(),
                                         mtp_layout_.spans(), balance, mtp_drop_, mtp_dx_.view(),
                                         mtp_block_, scratch_);
  drop_entry(mtp_drop_, mtp_dx_.view());
  {
    const PartScope part(ctx_, Part::kDense);
    const Gemm back[] = {
        {mtp_dx_.cview(), w.eh_proj, mtp_djoined_.view(), false, false, false},
        {mtp_dx_.cview(), mtp_joined_.cview(), g.eh_proj, true, false, !num_.fresh_gradients}};
    gemm(ctx_, num_.products, back);
  }
  const PartScope part(ctx_, Part::kElementwise);
  // mtp_dx_ and mtp_dnormed_ are free again: the gradients of the embedding and of the hidden rows.
  rms_norm_backward(ctx_, {mtp_embed_.cview(), w.enorm, enorm_rstd_.span(),
                           mtp_djoined_.cview().sub_cols(0, d), mtp_dx_.view(), false, g.enorm});
  rms_norm_backward(
      ctx_, {mtp_hidden_.cview(), w.hnorm, hnorm_rstd_.span(), mtp_djoined_.cview().sub_cols(d, d),
             mtp_dnormed_.view(), false, g.hnorm});
  embedding_backward(ctx_, {mtp_tokens_.inputs.span(), mtp_dx_.cview(), g.embed});
  // Each hidden row was used once.
  add_rows(ctx_, {mtp_dnormed_.cview(), mtp_tokens_.rows.span(), dnormed_.view()});
  return loss;
}

void TrainGraph::backward_main(const nn::Weights& w, const nn::Gradients& g,
                               const nn::BalanceTerm& balance) {
  const MatView<float> dx = normed_.view();  // the head has read it
  {
    const PartScope part(ctx_, Part::kElementwise);
    rms_norm_backward(ctx_,
                      {x_.cview(), w.norm, norm_rstd_.span(), dnormed_.cview(), dx, false, g.norm});
  }
  for (std::size_t l = layers_.size(); l-- > 0;) {
    layer_balance_[l] = nn::block_backward(
        ctx_, num_, dims_, w.layers[l], g.layers[l], layout_.rope(), layout_.spans(), balance,
        drop_.of_layer(static_cast<int>(l)), dx, layers_[l], scratch_);
  }
  drop_entry(drop_, dx);
  const PartScope part(ctx_, Part::kElementwise);
  embedding_backward(ctx_, {tokens_.inputs.span(), dx, g.embed});
}

double TrainGraph::balance_of(const nn::BlockSaved& saved, const nn::BalanceTerm& term) const {
  return nn::balance_loss(ctx_, term, saved.moe.route.scores.cview(), dims_.route.topk, {});
}

void TrainGraph::backward_and_balance(const nn::Weights& w, const nn::Gradients& g, bool mtp,
                                      bool backward, const LossOptions& options) {
  layer_balance_.assign(layers_.size(), 0.0);
  double mtp_balance = 0;
  const bool over_batch = options.balance_over_batch;
  const float scale = options.balance_alpha * options.share.balance;
  const nn::BalanceTerm term{layout_.runs(over_batch), scale};
  const nn::BalanceTerm mtp_term{mtp_layout_.runs(over_batch), scale};
  if (backward) {
    if (mtp) mtp_balance = backward_mtp(w.mtp.front(), g.mtp.front(), mtp_term);
    backward_main(w, g, term);
  } else {
    for (std::size_t l = 0; l < layers_.size(); ++l) {
      if (w.layers[l].is_moe) layer_balance_[l] = balance_of(layers_[l], term);
    }
    if (mtp && w.mtp.front().block.is_moe) mtp_balance = balance_of(mtp_block_, mtp_term);
  }
  Losses& out = losses_;
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    if (w.layers[l].is_moe) out.balance_per_layer.push_back(layer_balance_[l]);
  }
  if (mtp && w.mtp.front().block.is_moe) out.balance_per_layer.push_back(mtp_balance);
  out.balance = std::accumulate(out.balance_per_layer.begin(), out.balance_per_layer.end(), 0.0);
}

void TrainGraph::count_hits(bool mtp) {
  Losses& out = losses_;
  const std::vector<std::int32_t>& targets = tokens_.targets.host;
  for (std::size_t i = 0; i < targets.size(); ++i) {
    if (targets[i] == kNoTarget) continue;
    out.main_correct += argmax_.host[i] == targets[i] ? 1 : 0;
  }
  if (!mtp) return;
  const std::vector<std::int32_t>& mtp_targets = mtp_tokens_.targets.host;
  for (std::size_t i = 0; i < mtp_targets.size(); ++i) {
    if (mtp_targets[i] == kNoTarget) continue;
    out.mtp_correct += mtp_argmax_.host[i] == mtp_targets[i] ? 1 : 0;
    // Row i drafted the token after next; the main model says it one row later, which is the same
    // sequence's: the MTP layer has none of a sequence's last row.
    const auto next = static_cast<std::size_t>(mtp_tokens_.rows.host[i]) + 1;
    out.mtp_accepted += mtp_argmax_.host[i] == argmax_.host[next] ? 1 : 0;
  }
}

// What a pass adds to even where gradients are fresh: norms and the embedding; and what it does not
// come to. Every other matrix is written once by its product.
void TrainGraph::zero_added_gradients(Parameters& parameters, bool mtp) const {
  const PartScope part(ctx_, Part::kOptimizer);
  const bool leaves_mtp = !mtp && config_.num_nextn_predict_layers > 0;
  for (const Parameter& p : parameters.list()) {
    const bool added = !p.is_matrix() || p.name == "model.embed_tokens.weight";
    const std::span<float> g = parameters.gradient(p);
    const auto n = static_cast<int>(g.size());
    if (added || leaves_mtp) zero_rows(ctx_, {g.data(), 1, n, n});
  }
}

const Losses& TrainGraph::run(Parameters& parameters, const Sequences& sequences,
                              const LossOptions& options, bool backward) {
  const nn::Weights& w = parameters.weights();
  const nn::Gradients& g = parameters.gradient_tree();
  check(sequences, config_.vocab_size, options.score_from);
  const auto has_mtp_row = [](std::int32_t length) { return length > 2; };
  const bool mtp = !w.mtp.empty() &&
                   std::any_of(sequences.lengths.begin(), sequences.lengths.end(), has_mtp_row);
  const MemoryScope scope(ctx_.device);
  drop_ = mtp_drop_ = {};
  if (backward) begin_dropout(sequences, options);
  prepare(sequences, mtp, options.score_from);
  parameters.refresh(ctx_, num_);
  if (num_.fp8) parameters.quantize(ctx_, num_);
  num_.fresh_gradients = backward && options.fresh_gradients;
  if (num_.fresh_gradients) zero_added_gradients(parameters, mtp);

  begin_losses();
  Losses& out = losses_;
  out.main_rows = tokens_.scored;
  out.mtp_rows = mtp_tokens_.scored;
  // Without a row that is learnt sums and gradients are 0, whatever they are divided by.
  const auto rows = static_cast<float>(std::max<std::int64_t>(out.main_rows, 1));
  const auto mtp_rows = static_cast<float>(std::max<std::int64_t>(out.mtp_rows, 1));
  forward_main(w);
  out.main = head_loss(normed_.cview(), w.head, tokens_.targets, options.share.main / rows,
                       backward, options, dnormed_.view(), g.head, !num_.fresh_gradients, argmax_) /
             rows;
  if (mtp) {
    forward_mtp(w.mtp.front());
    out.mtp = head_loss(mtp_normed_.cview(), w.mtp.front().head, mtp_tokens_.targets,
                        options.mtp_lambda * options.share.mtp / mtp_rows, backward, options,
                        mtp_dnormed_.view(), g.mtp.front().head, /*add_dhead=*/true, mtp_argmax_) /
              mtp_rows;
  }
  count_hits(mtp);
  out.expert_load.resize(loads_);
  backward_and_balance(w, g, mtp, backward, options);
  out.total = out.main + static_cast<double>(options.mtp_lambda) * out.mtp +
              static_cast<double>(options.balance_alpha) * out.balance;
  return out;
}

nn::KeptBytes TrainGraph::kept_bytes() const {
  nn::KeptBytes total = nn::kept_bytes(mtp_block_);
  for (const nn::BlockSaved& layer : layers_) total += nn::kept_bytes(layer);
  return total;
}

Mat<std::int32_t> TrainGraph::chosen_experts(int layer) const {
  return host_copy(layers_[static_cast<std::size_t>(layer)].moe.route.index.cview(), ctx_.device);
}

}  // namespace cachalot::model
