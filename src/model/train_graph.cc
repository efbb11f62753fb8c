#include "model/train_graph.h"

#include <algorithm>
#include <numeric>

#include "kernels/cross_entropy.h"
#include "kernels/elementwise.h"
#include "kernels/gemm.h"
#include "kernels/permute.h"
#include "kernels/rms_norm.h"
#include "model/binding.h"
#include "nn/linear.h"

namespace cachalot::model {

namespace {

std::vector<std::int64_t> load_of(const ExpertOrder& order) {
  std::vector<std::int64_t> load(order.begin.size() - 1);
  for (std::size_t e = 0; e < load.size(); ++e) load[e] = order.begin[e + 1] - order.begin[e];
  return load;
}

}  // namespace

TrainGraph::TrainGraph(const Context& ctx, const Config& config, Precision precision)
    : ctx_(ctx), config_(config), dims_(block_dims(config)), precision_(precision) {
  if (config.num_nextn_predict_layers > 1) {
    throw Error(Code::kUnsupported,
                cat("num_nextn_predict_layers is ", config.num_nextn_predict_layers,
                    "; training supports 0 or 1"));
  }
  layers_.resize(static_cast<std::size_t>(config.num_hidden_layers));
}

void TrainGraph::layout(int sequences, int length, nn::RopeRows& rope, Mat<float>& cos,
                        Mat<float>& sin, std::vector<AttentionSpan>& spans) {
  std::vector<int> positions;
  spans.clear();
  for (int s = 0; s < sequences; ++s) {
    spans.push_back({s * length, length, s * length, length});
    for (int i = 0; i < length; ++i) positions.push_back(i);
  }
  cos.resize(sequences * length, dims_.heads.rope / 2);
  sin.resize(sequences * length, dims_.heads.rope / 2);
  rope_table<float>(config_.rope, positions, cos.view(), sin.view());
  rope = {cos.cview(), sin.cview()};
}

double TrainGraph::head_loss(MatView<const float> normed, MatRef head,
                             std::span<const std::int32_t> targets, float grad_scale, bool backward,
                             const LossOptions& options, MatView<float> dnormed,
                             MatView<float> dhead, std::vector<std::int32_t>& argmax) {
  argmax.resize(targets.size());
  std::vector<double> loss(targets.size());
  for (int begin = 0; begin < normed.rows; begin += options.head_rows) {
    const int rows = std::min(options.head_rows, normed.rows - begin);
    const auto from = static_cast<std::size_t>(begin);
    const auto n = static_cast<std::size_t>(rows);
    logits_.resize(rows, head.rows);
    gemm(ctx_, precision_, linear(normed.sub_rows(begin, rows), head, logits_.view()));
    cross_entropy(ctx_, {logits_.view(), targets.subspan(from, n), std::span(loss).subspan(from, n),
                         std::span(argmax).subspan(from, n), backward, grad_scale});
    if (backward) {
      nn::linear_backward(ctx_, precision_,
                          {{logits_.cview(), normed.sub_rows(begin, rows), head, dhead,
                            dnormed.sub_rows(begin, rows), false}});
    }
  }
  return std::accumulate(loss.begin(), loss.end(), 0.0);
}

Losses TrainGraph::forward_backward(Parameters& parameters, MatView<const std::int32_t> tokens,
                                    const LossOptions& options) {
  return run(parameters, tokens, options, true);
}

Losses TrainGraph::evaluate(Parameters& parameters, MatView<const std::int32_t> tokens,
                            const LossOptions& options) {
  return run(parameters, tokens, options, false);
}

Losses TrainGraph::run(Parameters& parameters, MatView<const std::int32_t> tokens,
                       const LossOptions& options, bool backward) {
  const nn::Weights& w = parameters.weights();
  const nn::Gradients& g = parameters.gradient_tree();
  const int batch = tokens.rows;
  const int length = tokens.cols - 1;
  const int rows = batch * length;
  const int d = dims_.hidden;
  const bool mtp = !w.mtp.empty() && length > 1;
  const int mtp_rows = mtp ? batch * (length - 1) : 0;

  for (int b = 0; b < batch; ++b) {
    for (int i = 0; i <= length; ++i) {
      if (tokens.at(b, i) < 0 || tokens.at(b, i) >= config_.vocab_size) {
        throw Error(Code::kUsage,
                    cat("token id ", tokens.at(b, i), " is outside the vocabulary of ",
                        config_.vocab_size, ": the token file belongs to another tokenizer"));
      }
    }
  }
  if (batch != sequences_ || length != length_) {
    layout(batch, length, rope_, cos_, sin_, spans_);
    if (mtp) layout(batch, length - 1, mtp_rope_, mtp_cos_, mtp_sin_, mtp_spans_);
    sequences_ = batch;
    length_ = length;
  }
  inputs_.clear();
  targets_.clear();
  mtp_inputs_.clear();
  mtp_targets_.clear();
  mtp_rows_.clear();
  for (int b = 0; b < batch; ++b) {
    for (int i = 0; i < length; ++i) {
      inputs_.push_back(tokens.at(b, i));
      targets_.push_back(tokens.at(b, i + 1));
      if (mtp && i + 1 < length) {
        mtp_inputs_.push_back(tokens.at(b, i + 1));
        mtp_targets_.push_back(tokens.at(b, i + 2));
        mtp_rows_.push_back(b * length + i);
      }
    }
  }

  // Forward.
  Losses out;
  out.main_rows = rows;
  layers_.front().x.resize(rows, d);
  embedding(ctx_, {w.embed, inputs_, layers_.front().x.view()});
  x_out_.resize(rows, d);
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    const bool last = l + 1 == layers_.size();
    if (!last) layers_[l + 1].x.resize(rows, d);
    nn::block_forward(ctx_, precision_, dims_, w.layers[l], rope_, spans_,
                      last ? x_out_.view() : layers_[l + 1].x.view(), layers_[l]);
    if (w.layers[l].is_moe) out.expert_load.push_back(load_of(layers_[l].moe.order));
  }
  normed_.resize(rows, d);
  dnormed_.resize(rows, d);
  norm_rstd_.resize(static_cast<std::size_t>(rows));
  rms_norm(ctx_, {x_out_.cview(), w.norm, dims_.eps, normed_.view(), norm_rstd_});
  out.main = head_loss(normed_.cview(), w.head, targets_, options.weight / static_cast<float>(rows),
                       backward, options, dnormed_.view(), g.head, argmax_) /
             rows;
  for (int i = 0; i < rows; ++i) {
    const auto r = static_cast<std::size_t>(i);
    out.main_correct += argmax_[r] == targets_[r] ? 1 : 0;
  }

  const nn::BalanceTerm balance{batch, backward ? options.balance_alpha * options.weight : 0.0F};
  std::vector<double> layer_balance;
  if (mtp) {
    const nn::MtpWeights& m = w.mtp.front();
    mtp_block_.x.resize(mtp_rows, d);
    mtp_embed_.resize(mtp_rows, d);
    mtp_hidden_.resize(mtp_rows, d);
    mtp_joined_.resize(mtp_rows, 2 * d);
    mtp_out_.resize(mtp_rows, d);
    mtp_normed_.resize(mtp_rows, d);
    mtp_dnormed_.resize(mtp_rows, d);
    const auto n = static_cast<std::size_t>(mtp_rows);
    enorm_rstd_.resize(n);
    hnorm_rstd_.resize(n);
    mtp_rstd_.resize(n);
    embedding(ctx_, {m.embed, mtp_inputs_, mtp_embed_.view()});
    gather_rows(ctx_, {normed_.cview(), mtp_rows_, mtp_hidden_.view()});
    rms_norm(ctx_, {mtp_embed_.cview(), m.enorm, dims_.eps, mtp_joined_.view().sub_cols(0, d),
                    enorm_rstd_});
    rms_norm(ctx_, {mtp_hidden_.cview(), m.hnorm, dims_.eps, mtp_joined_.view().sub_cols(d, d),
                    hnorm_rstd_});
    gemm(ctx_, precision_, linear(mtp_joined_.cview(), m.eh_proj, mtp_block_.x.view()));
    nn::block_forward(ctx_, precision_, dims_, m.block, mtp_rope_, mtp_spans_, mtp_out_.view(),
                      mtp_block_);
    if (m.block.is_moe) out.expert_load.push_back(load_of(mtp_block_.moe.order));
    rms_norm(ctx_, {mtp_out_.cview(), m.head_norm, dims_.eps, mtp_normed_.view(), mtp_rstd_});
    out.mtp = head_loss(mtp_normed_.cview(), m.head, mtp_targets_,
                        options.mtp_lambda * options.weight / static_cast<float>(mtp_rows),
                        backward, options, mtp_dnormed_.view(),
                        backward ? g.mtp.front().head : MatView<float>{}, mtp_argmax_) /
              mtp_rows;
    out.mtp_rows = mtp_rows;
    for (std::size_t i = 0; i < n; ++i) {
      out.mtp_correct += mtp_argmax_[i] == mtp_targets_[i] ? 1 : 0;
      // Row i drafted the token after next; the main model says it one row later.
      const auto next = static_cast<std::size_t>(mtp_rows_[i]) + 1;
      out.mtp_accepted += mtp_argmax_[i] == argmax_[next] ? 1 : 0;
    }
  }

  const auto balance_only = [&](const nn::BlockActs& acts) {
    return balance_loss(ctx_, {acts.moe.scores.cview(), batch, dims_.route.topk, 0.0F, {}});
  };
  double mtp_balance = 0;
  if (mtp && backward) {
    const nn::MtpWeights& m = w.mtp.front();
    const nn::MtpGradients& mg = g.mtp.front();
    mtp_dx_.resize(mtp_rows, d);
    mtp_djoined_.resize(mtp_rows, 2 * d);
    rms_norm_backward(ctx_, {mtp_out_.cview(), m.head_norm, mtp_rstd_, mtp_dnormed_.cview(),
                             mtp_dx_.view(), false, mg.head_norm});
    mtp_balance = nn::block_backward(ctx_, precision_, dims_, m.block, mg.block, mtp_rope_,
                                     mtp_spans_, balance, mtp_dx_.view(), mtp_block_, scratch_);
    nn::linear_backward(ctx_, precision_,
                        {{mtp_dx_.cview(), mtp_joined_.cview(), m.eh_proj, mg.eh_proj,
                          mtp_djoined_.view(), false}});
    // mtp_dx_ and mtp_dnormed_ are free again: the gradients of the embedding and of the hidden
    // rows.
    rms_norm_backward(ctx_, {mtp_embed_.cview(), m.enorm, enorm_rstd_,
                             mtp_djoined_.cview().sub_cols(0, d), mtp_dx_.view(), false, mg.enorm});
    rms_norm_backward(
        ctx_, {mtp_hidden_.cview(), m.hnorm, hnorm_rstd_, mtp_djoined_.cview().sub_cols(d, d),
               mtp_dnormed_.view(), false, mg.hnorm});
    embedding_backward(ctx_, {mtp_inputs_, mtp_dx_.cview(), mg.embed});
    ctx_.for_each(mtp_rows, 32, [&](std::int64_t i) {  // each hidden row was used once
      float* to = dnormed_.row(mtp_rows_[static_cast<std::size_t>(i)]);
      const float* from = mtp_dnormed_.row(i);
      for (int j = 0; j < d; ++j) to[j] += from[j];
    });
  } else if (mtp && w.mtp.front().block.is_moe) {
    mtp_balance = balance_only(mtp_block_);
  }

  layer_balance.assign(layers_.size(), 0.0);
  if (backward) {
    dx_.resize(rows, d);
    rms_norm_backward(
        ctx_, {x_out_.cview(), w.norm, norm_rstd_, dnormed_.cview(), dx_.view(), false, g.norm});
    for (std::size_t l = layers_.size(); l-- > 0;) {
      layer_balance[l] =
          nn::block_backward(ctx_, precision_, dims_, w.layers[l], g.layers[l], rope_, spans_,
                             balance, dx_.view(), layers_[l], scratch_);
    }
    embedding_backward(ctx_, {inputs_, dx_.cview(), g.embed});
  } else {
    for (std::size_t l = 0; l < layers_.size(); ++l) {
      if (w.layers[l].is_moe) layer_balance[l] = balance_only(layers_[l]);
    }
  }
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    if (w.layers[l].is_moe) out.balance_per_layer.push_back(layer_balance[l]);
  }
  if (mtp && w.mtp.front().block.is_moe) out.balance_per_layer.push_back(mtp_balance);
  out.balance = std::accumulate(out.balance_per_layer.begin(), out.balance_per_layer.end(), 0.0);
  out.total = out.main + static_cast<double>(options.mtp_lambda) * out.mtp +
              static_cast<double>(options.balance_alpha) * out.balance;
  return out;
}

std::size_t TrainGraph::activation_bytes() const {
  const auto mla = [](const nn::MlaActs& a) {
    return a.q_a.bytes() + a.q_an.bytes() + a.q.bytes() + a.kv_a.bytes() + a.c_kv.bytes() +
           a.kv.bytes() + a.out.bytes() + a.lse.bytes();
  };
  const auto mlp = [](const nn::MlpActs& a) {
    return a.gate.bytes() + a.up.bytes() + a.hidden.bytes();
  };
  const auto block = [&](const nn::BlockActs& a) {
    return a.x.bytes() + a.h_attn.bytes() + mla(a.mla) + a.x_mid.bytes() + a.h_ffn.bytes() +
           mlp(a.mlp) + a.moe.scores.bytes() + a.moe.x.bytes() + a.moe.gate.bytes() +
           a.moe.up.bytes() + a.moe.hidden.bytes() + a.moe.y.bytes() + mlp(a.moe.shared);
  };
  std::size_t total = block(mtp_block_);
  for (const nn::BlockActs& layer : layers_) total += block(layer);
  return total;
}

}  // namespace cachalot::model
