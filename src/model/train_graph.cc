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

// Tables of out.runs. Fewer sequences than before read the beginning of the same tables: the last
// micro-batch of a step may be a short one.
void TrainGraph::lay_out(Layout& out) {
  const std::vector<int>& runs = out.runs;
  out.spans.clear();
  int rows = 0;
  for (const int run : runs) {
    out.spans.push_back({rows, run, rows, run});
    rows += run;
  }
  const bool is_tabled =
      runs.size() <= out.tabled.size() && std::equal(runs.begin(), runs.end(), out.tabled.begin());
  if (!is_tabled) {
    const int half = dims_.heads.rope / 2;
    const MemoryScope host(nullptr);
    const int longest = *std::max_element(runs.begin(), runs.end());
    if (longest > cos_.rows()) {
      std::vector<int> positions(static_cast<std::size_t>(longest));
      std::iota(positions.begin(), positions.end(), 0);
      cos_.resize(longest, half);
      sin_.resize(longest, half);
      rope_table<float>(config_.rope, positions, cos_.view(), sin_.view());
    }
    row_cos_.resize(rows, half);
    row_sin_.resize(rows, half);
    for (const AttentionSpan& span : out.spans) {
      const auto values = static_cast<std::size_t>(span.q_rows) * static_cast<std::size_t>(half);
      std::copy_n(cos_.data(), values, row_cos_.row(span.q_begin));
      std::copy_n(sin_.data(), values, row_sin_.row(span.q_begin));
    }
    {
      const MemoryScope ops(ctx_.device);
      out.cos.resize(rows, half);
      out.sin.resize(rows, half);
    }
    upload<float>(row_cos_.span(), out.cos);
    upload<float>(row_sin_.span(), out.sin);
    out.tabled = runs;
  }
  out.rope = {out.cos.cview().sub_rows(0, rows), out.sin.cview().sub_rows(0, rows)};
}

// Row i of the MTP layer predicts what row i + 1 of the main model predicts.
static int mtp_score_from(int score_from) { return std::max(score_from - 1, 0); }

// As sequences of one length, in the memory of the pass before.
Sequences TrainGraph::rows_of(MatView<const std::int32_t> tokens) {
  lengths_.assign(static_cast<std::size_t>(tokens.rows), tokens.cols);
  copied_.clear();
  for (int b = 0; b < tokens.rows; ++b) {
    copied_.insert(copied_.end(), tokens.row(b), tokens.row(b) + tokens.cols);
  }
  return {copied_, lengths_};
}

const Losses& TrainGraph::forward_backward(Parameters& parameters,
                                           MatView<const std::int32_t> tokens,
                                           const LossOptions& options) {
  return run(parameters, rows_of(tokens), options, true);
}
const Losses& TrainGraph::forward_backward(Parameters& parameters, const Sequences& sequences,
                                           const LossOptions& options) {
  return run(parameters, sequences, options, true);
}

const Losses& TrainGraph::evaluate(Parameters& parameters, MatView<const std::int32_t> tokens,
                                   const LossOptions& options) {
  return run(parameters, rows_of(tokens), options, false);
}
const Losses& TrainGraph::evaluate(Parameters& parameters, const Sequences& sequences,
                                   const LossOptions& options) {
  return run(parameters, sequences, options, false);
}

void TrainGraph::prepare(const Sequences& sequences, bool mtp, int score_from) {
  check(sequences, config_.vocab_size);
  const int shortest = *std::min_element(sequences.lengths.begin(), sequences.lengths.end()) - 1;
  if (score_from < 0 || score_from >= shortest) {
    throw Error(Code::kUsage, cat("losses begin at row ", score_from,
                                  ", but a sequence has rows 0 to ", shortest - 1));
  }
  if (score_from > 0 && !sequences.learnt.empty()) {
    throw Error(Code::kUsage, cat("losses begin at row ", score_from,
                                  " of sequences that say themselves which tokens are learnt; "
                                  "give one of the two"));
  }
  const int mtp_from = mtp_score_from(score_from);
  for (RowIndices* i : {&inputs_, &mtp_inputs_, &mtp_rows_}) i->host.clear();
  targets_.clear();
  mtp_targets_.clear();
  layout_.runs.clear();
  mtp_layout_.runs.clear();
  std::size_t begin = 0;  // of the sequence, in all tokens
  for (const std::int32_t length : sequences.lengths) {
    const std::int32_t* tokens = sequences.tokens.data() + begin;
    const auto target = [&](int i, bool scored) {
      const std::size_t at = begin + static_cast<std::size_t>(i);
      const bool learnt = sequences.learnt.empty() || sequences.learnt[at] != 0;
      return scored && learnt ? tokens[i] : kNoTarget;
    };
    const int rows = length - 1;
    const auto first = static_cast<std::int32_t>(inputs_.host.size());
    for (int i = 0; i < rows; ++i) {
      inputs_.host.push_back(tokens[i]);
      targets_.push_back(target(i + 1, i >= score_from));
      if (!mtp || i + 1 == rows) continue;
      mtp_inputs_.host.push_back(tokens[i + 1]);
      mtp_targets_.push_back(target(i + 2, i >= mtp_from));
      mtp_rows_.host.push_back(first + i);
    }
    layout_.runs.push_back(rows);
    if (mtp && rows > 1) mtp_layout_.runs.push_back(rows - 1);
    begin += static_cast<std::size_t>(length);
  }
  lay_out(layout_);
  inputs_.to_ops();
  if (!mtp) return;
  lay_out(mtp_layout_);
  for (RowIndices* i : {&mtp_inputs_, &mtp_rows_}) i->to_ops();
}

void TrainGraph::set_dropout(const Sequences& sequences, const LossOptions& options,
                             bool backward) {
  drop_ = mtp_drop_ = {};
  if (!backward) return;
  int rows = options.rows_per_sequence;
  if (rows == 0) {
    if (options.dropout > 0 && !of_one_length(sequences)) {
      throw Error(Code::kUsage,
                  "dropout of sequences of several lengths needs rows_per_sequence: how many rows "
                  "the number of a sequence stands for");
    }
    rows = sequences.lengths.front() - 1;
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

// Of the next layer, zeros where no pass before had it.
std::vector<std::int64_t>& TrainGraph::next_load() {
  auto& loads = losses_.expert_load;
  if (loads_ == loads.size()) loads.emplace_back();
  std::vector<std::int64_t>& load = loads[loads_++];
  load.resize(static_cast<std::size_t>(dims_.route.experts));
  return load;
}

// Passes over samples of two tokens have no rows in the MTP layer; other passes of the step, and
// other ranks, may have some, and all count the same layers.
void TrainGraph::add_no_load() {
  std::vector<std::int64_t>& load = next_load();
  std::fill(load.begin(), load.end(), 0);
}

void TrainGraph::add_load(const ExpertOrder& order) {
  std::vector<std::int64_t>& load = next_load();
  for (std::size_t e = 0; e < load.size(); ++e) load[e] = order.begin[e + 1] - order.begin[e];
}

void TrainGraph::forward_main(const nn::Weights& w) {
  const int rows = static_cast<int>(inputs_.size());
  const int d = dims_.hidden;
  x_.resize(rows, d);
  {
    const PartScope part(ctx_, Part::kElementwise);
    embedding(ctx_, {w.embed, inputs_.span(), x_.view()});
  }
  drop_entry(drop_, x_.view());
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    nn::block_forward(ctx_, num_, dims_, w.layers[l], layout_.rope, layout_.spans,
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
  const int rows = static_cast<int>(mtp_inputs_.size());
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
    embedding(ctx_, {w.embed, mtp_inputs_.span(), mtp_embed_.view()});
    gather_rows(ctx_, {normed_.cview(), mtp_rows_.span(), mtp_hidden_.view()});
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
  nn::block_forward(ctx_, num_, dims_, w.block, mtp_layout_.rope, mtp_layout_.spans, mtp_drop_,
                    mtp_x_.view(), mtp_block_, scratch_);
  if (w.block.is_moe) add_load(mtp_block_.moe.route.order);
  const PartScope part(ctx_, Part::kElementwise);
  rms_norm(ctx_, {mtp_x_.cview(), w.head_norm, dims_.eps, mtp_normed_.view(), mtp_rstd_.span()});
}

double TrainGraph::backward_mtp(const nn::MtpWeights& w, const nn::MtpGradients& g,
                                const nn::BalanceTerm& balance) {
  const int rows = static_cast<int>(mtp_inputs_.size());
  const int d = dims_.hidden;
  mtp_dx_.resize(rows, d);
  mtp_djoined_.resize(rows, 2 * d);
  rms_norm_backward(ctx_, {mtp_x_.cview(), w.head_norm, mtp_rstd_.span(), mtp_dnormed_.cview(),
                           mtp_dx_.view(), false, g.head_norm});
  const double loss =
      nn::block_backward(ctx_, num_, dims_, w.block, g.block, mtp_layout_.rope, mtp_layout_.spans,
                         balance, mtp_drop_, mtp_dx_.view(), mtp_block_, scratch_);
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
  embedding_backward(ctx_, {mtp_inputs_.span(), mtp_dx_.cview(), g.embed});
  // Each hidden row was used once.
  add_rows(ctx_, {mtp_dnormed_.cview(), mtp_rows_.span(), dnormed_.view()});
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
    layer_balance_[l] =
        nn::block_backward(ctx_, num_, dims_, w.layers[l], g.layers[l], layout_.rope, layout_.spans,
                           balance, drop_.of_layer(static_cast<int>(l)), dx, layers_[l], scratch_);
  }
  drop_entry(drop_, dx);
  const PartScope part(ctx_, Part::kElementwise);
  embedding_backward(ctx_, {inputs_.span(), dx, g.embed});
}

double TrainGraph::balance_of(const nn::BlockSaved& saved, std::span<const int> runs) const {
  return nn::balance_over(ctx_, saved.moe.route.scores.cview(), {runs, 0.0F}, dims_.route.topk, {});
}

void TrainGraph::count_hits() {
  Losses& out = losses_;
  for (std::size_t i = 0; i < targets_.size(); ++i) {
    if (targets_[i] == kNoTarget) continue;
    out.main_correct += argmax_[i] == targets_[i] ? 1 : 0;
  }
  for (std::size_t i = 0; i < mtp_targets_.size(); ++i) {
    if (mtp_targets_[i] == kNoTarget) continue;
    out.mtp_correct += mtp_argmax_[i] == mtp_targets_[i] ? 1 : 0;
    // Row i drafted the token after next; the main model says it one row later.
    const auto next = static_cast<std::size_t>(mtp_rows_.host[i]) + 1;
    out.mtp_accepted += mtp_argmax_[i] == argmax_[next] ? 1 : 0;
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

static std::int64_t scored(std::span<const std::int32_t> targets) {
  return static_cast<std::int64_t>(targets.size()) -
         std::count(targets.begin(), targets.end(), kNoTarget);
}

const Losses& TrainGraph::run(Parameters& parameters, const Sequences& sequences,
                              const LossOptions& options, bool backward) {
  const nn::Weights& w = parameters.weights();
  const nn::Gradients& g = parameters.gradient_tree();
  const bool mtp = !w.mtp.empty() && std::any_of(sequences.lengths.begin(), sequences.lengths.end(),
                                                 [](std::int32_t n) { return n > 2; });
  const MemoryScope scope(ctx_.device);
  prepare(sequences, mtp, options.score_from);
  parameters.refresh(ctx_, num_);
  if (num_.fp8) parameters.quantize(ctx_, num_);
  num_.fresh_gradients = backward && options.fresh_gradients;
  if (num_.fresh_gradients) zero_added_gradients(parameters, mtp);
  set_dropout(sequences, options, backward);

  begin_losses();
  Losses& out = losses_;
  out.main_rows = scored(targets_);
  out.mtp_rows = mtp ? scored(mtp_targets_) : 0;
  const auto rows = static_cast<float>(std::max<std::int64_t>(out.main_rows, 1));
  const auto mtp_rows = static_cast<float>(std::max<std::int64_t>(out.mtp_rows, 1));
  const LossShare& share = options.share;
  forward_main(w);
  HeadPass head{normed_.cview(), w.head, targets_, options.head_rows, backward};
  head.grad_scale = share.main / rows;
  head.dnormed = dnormed_.view();
  head.dhead = g.head;
  head.add_dhead = !num_.fresh_gradients;
  out.main = head_.run(ctx_, num_, head, scratch_.moe.rows, argmax_) / rows;
  if (mtp) {
    forward_mtp(w.mtp.front());
    HeadPass mtp_head{mtp_normed_.cview(), w.mtp.front().head, mtp_targets_, options.head_rows,
                      backward};
    mtp_head.grad_scale = options.mtp_lambda * share.mtp / mtp_rows;
    mtp_head.dnormed = mtp_dnormed_.view();
    mtp_head.dhead = g.mtp.front().head;
    mtp_head.add_dhead = true;  // the same head
    out.mtp = head_.run(ctx_, num_, mtp_head, scratch_.moe.rows, mtp_argmax_) / mtp_rows;
  }
  count_hits();

  if (!mtp && !w.mtp.empty() && w.mtp.front().block.is_moe) add_no_load();
  out.expert_load.resize(loads_);
  layer_balance_.assign(layers_.size(), 0.0);
  double mtp_balance = 0;
  // Runs of rows, each on its own.
  const int whole[] = {static_cast<int>(inputs_.size()), static_cast<int>(mtp_inputs_.size())};
  const bool at_once = options.balance_over_batch;
  const std::span<const int> runs = at_once ? std::span(whole, 1) : std::span(layout_.runs);
  const std::span<const int> mtp_runs =
      at_once ? std::span(whole + 1, 1) : std::span(mtp_layout_.runs);
  if (backward) {
    const float alpha = options.balance_alpha;
    if (mtp) {
      mtp_balance =
          backward_mtp(w.mtp.front(), g.mtp.front(), {mtp_runs, alpha * share.mtp_balance});
    }
    backward_main(w, g, {runs, alpha * share.balance});
  } else {
    for (std::size_t l = 0; l < layers_.size(); ++l) {
      if (w.layers[l].is_moe) layer_balance_[l] = balance_of(layers_[l], runs);
    }
    if (mtp && w.mtp.front().block.is_moe) mtp_balance = balance_of(mtp_block_, mtp_runs);
  }
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    if (w.layers[l].is_moe) out.balance_per_layer.push_back(layer_balance_[l]);
  }
  if (mtp && w.mtp.front().block.is_moe) out.balance_per_layer.push_back(mtp_balance);
  out.balance = std::accumulate(out.balance_per_layer.begin(), out.balance_per_layer.end(), 0.0);
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
