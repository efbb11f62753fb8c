#include "model/forward.h"

#include <algorithm>
#include <numeric>

#include "kernels/elementwise.h"
#include "kernels/gemm.h"
#include "kernels/rms_norm.h"
#include "model/binding.h"
#include "model/forward_small.h"
#include "tensor/host_copy.h"

namespace cachalot::model {

namespace {

// What a product of the expanded kind takes over one of the absorbed kind, operation by operation:
// measured (docs/performance.md).
constexpr double kExpandedCost = 1.25;

int begin_of(const LatentCache& cache, bool mtp) {
  return mtp ? cache.mtp_length() : cache.length();
}

int rows_of(std::span<const Chunk> chunks) {
  return std::accumulate(chunks.begin(), chunks.end(), 0, [](int sum, const Chunk& c) {
    return sum + static_cast<int>(c.tokens.size());
  });
}

}  // namespace

bool absorbed_is_cheaper(const nn::BlockDims& dims, int begin, int rows) {
  const AttentionDims& h = dims.heads;
  const double pairs = rows * (begin + (rows + 1) / 2.0);
  // Rebuilding a cached row, or carrying a query into the latent space and its result back.
  const double up = static_cast<double>(dims.kv_lora) * (h.nope + h.value);
  const double expanded = (begin + rows) * up + pairs * (h.nope + h.rope + h.value) * kExpandedCost;
  const double absorbed = rows * up + pairs * (2.0 * dims.kv_lora + h.rope);
  return absorbed <= expanded;
}

Forward::Forward(const Context& ctx, const Model& model, AttentionMode mode)
    : ctx_(ctx),
      model_(model),
      mode_(mode),
      dims_(block_dims(model.config())),
      num_(model.numerics()) {}
Forward::~Forward() = default;

void Forward::check(std::span<const Chunk> chunks, bool mtp) const {
  const Config& c = model_.config();
  for (const Chunk& chunk : chunks) {
    for (const std::int32_t id : chunk.tokens) {
      if (id < 0 || id >= c.vocab_size) {
        throw Error(Code::kUsage, cat("token id ", id, " is outside the model's vocabulary of ",
                                      c.vocab_size, ": the tokens come from another tokenizer"));
      }
    }
    const std::int64_t end =
        begin_of(*chunk.cache, mtp) + static_cast<std::int64_t>(chunk.tokens.size());
    if (end > c.max_position_embeddings) {
      throw Error(
          Code::kUsage,
          cat("position ", end - 1, " is past the model's context of ", c.max_position_embeddings,
              " tokens (max_position_embeddings): shorten the prompt or ask for fewer tokens"));
    }
  }
}

// Ids and angles to where the ops read them.
void Forward::take_tokens(std::span<const Chunk> chunks, bool mtp) {
  host_ids_.clear();
  positions_.clear();
  for (const Chunk& chunk : chunks) {
    host_ids_.insert(host_ids_.end(), chunk.tokens.begin(), chunk.tokens.end());
    const int begin = begin_of(*chunk.cache, mtp);
    for (std::size_t i = 0; i < chunk.tokens.size(); ++i) {
      positions_.push_back(begin + static_cast<int>(i));
    }
  }
  const int rows = static_cast<int>(positions_.size()), half = dims_.heads.rope / 2;
  ids_.resize(1, rows);
  upload<std::int32_t>(host_ids_, ids_);
  angles_.resize(2 * rows, half);
  Mat<float>& angles = ctx_.device != nullptr ? host_angles_ : angles_;
  {
    const MemoryScope host(nullptr);
    if (ctx_.device != nullptr) angles.resize(2 * rows, half);
    rope_table<float>(model_.config().rope, positions_, angles.view().sub_rows(0, rows),
                      angles.view().sub_rows(rows, rows));
  }
  if (ctx_.device != nullptr) upload<float>(angles.span(), angles_);
}

nn::RopeRows Forward::rope_rows() const noexcept {
  const int rows = angles_.rows() / 2;
  return {angles_.cview().sub_rows(0, rows), angles_.cview().sub_rows(rows, rows)};
}

bool Forward::is_absorbed(int begin, int rows) const {
  if (mode_ == AttentionMode::kAuto) return absorbed_is_cheaper(dims_, begin, rows);
  return mode_ == AttentionMode::kAbsorbed;
}

void Forward::attention(const nn::MlaWeights& w, int layer, std::span<const Chunk> chunks,
                        bool mtp) {
  if (planned_ != nullptr) return planned_attention(w, layer, chunks.front().cache->pool().shape());
  nn::mla_project(ctx_, num_, dims_, w, h_operand_, rope_rows(), mla_);
  std::vector<nn::LatentSpan> absorbed;
  std::vector<AttentionSpan> expanded;
  std::vector<LatentRows> expanded_rows;
  int row = 0;
  int cached = 0;  // rows to expand
  stores_.clear();
  for (const Chunk& chunk : chunks) {
    const int n = static_cast<int>(chunk.tokens.size());
    const int begin = begin_of(*chunk.cache, mtp);
    if (n == 0) continue;
    chunk.cache->list_writes(layer, begin, mla_.c_kv.cview().sub_rows(row, n),
                             mla_.k_rope().sub_rows(row, n), stores_);
    const LatentRows rows = chunk.cache->rows(layer, begin + n);
    if (is_absorbed(begin, n)) {
      absorbed.push_back({row, n, rows});
    } else {
      expanded.push_back({row, n, cached, rows.rows});
      expanded_rows.push_back(rows);
      cached += rows.rows;
    }
    row += n;
  }
  store_latent(ctx_, stores_);
  if (!expanded.empty()) {
    // Over what the caches hold, not over this pass's unrounded rows, so that a prompt gives the
    // same result in one chunk or in many.
    latent_rows_.resize(cached, dims_.kv_lora);
    k_rope_rows_.resize(cached, dims_.heads.rope);
    for (std::size_t i = 0; i < expanded.size(); ++i) {
      const LatentRows& rows = expanded_rows[i];
      const int first = expanded[i].kv_begin;
      load_latent(ctx_, rows, 0, latent_rows_.view().sub_rows(first, rows.rows));
      load_latent(ctx_, rows, dims_.kv_lora, k_rope_rows_.view().sub_rows(first, rows.rows));
    }
    nn::mla_expanded(ctx_, num_, dims_, w, latent_rows_.cview(), k_rope_rows_.cview(), expanded, {},
                     mla_);
  }
  if (!absorbed.empty()) nn::mla_absorbed(ctx_, num_, dims_, w, absorbed, mla_);
}

void Forward::planned_attention(const nn::MlaWeights& w, int layer, const CacheShape& shape) {
  // The MTP layer's plan begins with it.
  const int first = layer < shape.main_layers ? 0 : layer;
  const std::ptrdiff_t bytes = shape.layer_offset(layer) - shape.layer_offset(first);
  const nn::LatentSpan all{0, h_.rows(), {}};
  const nn::RopeRows rope = rope_rows();
  nn::mla_project_planned(ctx_, num_, dims_, w, h_operand_, rope, *planned_, bytes, mla_);
  nn::mla_into_latent(ctx_, num_, dims_, w, {&all, 1}, mla_, &rope);
  attend_planned(ctx_, *planned_, bytes);
  nn::mla_out_of_latent(ctx_, num_, dims_, w, {&all, 1}, mla_);
}

void Forward::reserve(std::span<const Chunk> chunks, bool mtp) {
  for (const Chunk& chunk : chunks) {
    const int begin = begin_of(*chunk.cache, mtp);
    if (chunk.cache->reserve(begin, begin + static_cast<int>(chunk.tokens.size()))) continue;
    const CachePool& pool = chunk.cache->pool();
    throw Error(Code::kUsage,
                cat("the latent cache is full: all of its ", pool.pages(), " pages of ",
                    kLatentBlock, " tokens are in use (", pool.free_pages(),
                    " are free); give it more memory or run fewer sequences"));
  }
}

void Forward::tell_routing(int layer) const {
  if (routing_tap_.layer != -1 && routing_tap_.layer != layer) return;
  if (ctx_.device == nullptr) {
    routing_tap_.hear(layer, route_.index.cview());
  } else {
    const Mat<std::int32_t> chosen = host_copy(route_.index.cview(), ctx_.device);
    routing_tap_.hear(layer, chosen.cview());
  }
}

void Forward::block(const nn::BlockWeights& w, int layer, std::span<const Chunk> chunks, bool mtp,
                    LayerTap* tap, nn::VecRef next_norm) {
  rstd_.resize(1, x_.rows());
  const auto norm = [&](nn::VecRef weight) {
    rms_norm(ctx_, {x_.cview(), weight, dims_.eps, h_.view(), rstd_.span()});
    h_operand_.set(ctx_, num_, h_.cview(), num_.activation_tile, nn::Operand::Use::kRows);
  };
  if (is_normed_) {
    h_operand_.set(ctx_, num_, h_.cview(), num_.activation_tile, nn::Operand::Use::kRows);
  } else {
    norm(w.input_norm);
  }
  is_normed_ = false;
  attention(w.mla, layer, chunks, mtp);
  nn::mla_output(ctx_, num_, w.mla, mla_, x_.view());
  norm(w.post_norm);
  if (w.is_moe && planned_ != nullptr && !next_norm.empty()) {
    nn::moe_forward_routed(ctx_, num_, dims_, w.moe, h_.cview(), x_.view(), next_norm, h_.view(),
                           moe_, route_);
    is_normed_ = true;
  } else if (w.is_moe) {
    nn::moe_forward(ctx_, num_, dims_, w.moe, h_operand_, h_.cview(), x_.view(), moe_, route_,
                    nullptr);
    if (routing_tap_.hear) tell_routing(layer);
  } else {
    nn::mlp_forward(ctx_, num_, w.mlp, h_operand_, x_.view(), mlp_, nullptr, products_);
  }
  if (tap == nullptr) return;
  tap->kv_c = host_copy(mla_.c_kv.cview(), ctx_.device);
  tap->k_rope = host_copy(mla_.k_rope(), ctx_.device);
  if (w.is_moe) {
    tap->scores = host_copy(route_.scores.cview(), ctx_.device);
    tap->topk_idx = host_copy(route_.index.cview(), ctx_.device);
    tap->topk_weight = host_copy(route_.weight.cview(), ctx_.device);
  }
}

MatView<const float> Forward::run(std::span<const Chunk> chunks, Taps* taps) {
  const MemoryScope scope(ctx_.device);
  check(chunks, false);
  const int rows = rows_of(chunks);
  reserve(chunks, false);
  const auto grow = [&] {
    for (const Chunk& chunk : chunks) {
      chunk.cache->set_length(chunk.cache->length() + static_cast<int>(chunk.tokens.size()));
    }
  };
  if (Small* small = taps == nullptr ? small_pass(chunks, false) : nullptr; small != nullptr) {
    const MatView<const float> result = small->run(chunks, false, {});
    grow();
    return result;
  }
  x_.resize(rows, dims_.hidden);
  h_.resize(rows, dims_.hidden);
  if (rows == 0) return h_.cview();
  take_tokens(chunks, false);
  main_pass(chunks, taps);
  grow();
  return h_.cview();
}

void Forward::main_pass(std::span<const Chunk> chunks, Taps* taps) {
  const nn::Weights& w = model_.weights();
  embedding(ctx_, {w.embed, ids_.span(), x_.view()});
  if (taps != nullptr) {
    taps->hidden.clear();
    taps->layers.clear();
    taps->layers.resize(w.layers.size());
    taps->hidden.push_back(host_copy(x_.cview(), ctx_.device));
  }
  for (std::size_t i = 0; i < w.layers.size(); ++i) {
    block(w.layers[i], static_cast<int>(i), chunks, false,
          taps != nullptr ? &taps->layers[i] : nullptr,
          i + 1 < w.layers.size() ? w.layers[i + 1].input_norm : w.norm);
    if (taps != nullptr) taps->hidden.push_back(host_copy(x_.cview(), ctx_.device));
  }
  if (!is_normed_) rms_norm(ctx_, {x_.cview(), w.norm, dims_.eps, h_.view(), rstd_.span()});
  is_normed_ = false;
}

MatView<const float> Forward::run_mtp(std::span<const Chunk> chunks, MatView<const float> hidden,
                                      Taps* taps) {
  if (!model_.has_mtp()) {
    throw Error(Code::kUsage,
                "this model has no MTP layer (num_nextn_predict_layers is 0 or its tensors are "
                "missing): use --mtp off");
  }
  const MemoryScope scope(ctx_.device);
  check(chunks, true);
  const int rows = rows_of(chunks);
  if (hidden.rows != rows || hidden.cols != dims_.hidden) {
    throw Error(Code::kShape, cat("run_mtp: ", hidden.rows, " hidden rows of ", hidden.cols,
                                  " for ", rows, " tokens of width ", dims_.hidden));
  }
  reserve(chunks, true);
  const auto grow = [&] {
    for (const Chunk& chunk : chunks) {
      chunk.cache->set_mtp_length(chunk.cache->mtp_length() +
                                  static_cast<int>(chunk.tokens.size()));
    }
  };
  if (Small* small = taps == nullptr ? small_pass(chunks, true) : nullptr; small != nullptr) {
    const MatView<const float> result = small->run(chunks, true, hidden);
    grow();
    return result;
  }
  if (rows > 0) take_tokens(chunks, true);
  mtp_pass(chunks, hidden, taps);
  grow();
  return x_.cview();
}

void Forward::mtp_pass(std::span<const Chunk> chunks, MatView<const float> hidden, Taps* taps) {
  const nn::MtpWeights& w = model_.weights().mtp.front();
  const int rows = hidden.rows;
  // hidden may be this object's own last result: read it before x_ and h_ change.
  joined_.resize(rows, 2 * dims_.hidden);
  rstd_.resize(1, rows);
  rms_norm(ctx_, {hidden, w.hnorm, dims_.eps, joined_.view().sub_cols(dims_.hidden, dims_.hidden),
                  rstd_.span()});
  x_.resize(rows, dims_.hidden);
  h_.resize(rows, dims_.hidden);
  if (rows == 0) return;
  embedding(ctx_, {w.embed, ids_.span(), x_.view()});
  rms_norm(ctx_, {x_.cview(), w.enorm, dims_.eps, joined_.view().sub_cols(0, dims_.hidden),
                  rstd_.span()});
  ctx_.fetch_while_waiting(w.eh_proj.read_next);
  gemm(ctx_, num_.products, nn::plain_linear(joined_.cview(), w.eh_proj, x_.view()));
  if (taps != nullptr) {
    taps->hidden.clear();
    taps->layers.clear();
    taps->layers.resize(1);
  }
  block(w.block, model_.config().num_hidden_layers, chunks, true,
        taps != nullptr ? &taps->layers.front() : nullptr);
  if (taps != nullptr) taps->hidden.push_back(host_copy(x_.cview(), ctx_.device));
}

// Rows are never quantised here: the head is one product of a pass, and its result is compared.
void Forward::head(MatView<const float> normed, const nn::WeightRef& w, MatView<float> out) {
  ctx_.fetch_while_waiting(w.read_next);
  if (w.quant.rows > 0) {
    quant_linear(ctx_, QuantActivations::kBf16, {normed, w.quant, out});
  } else {
    gemm(ctx_, num_.products, nn::plain_linear(normed, w, out));
  }
}

void Forward::logits(MatView<const float> normed, MatView<float> out) {
  head(normed, model_.weights().head, out);
}

void Forward::mtp_logits(MatView<const float> rows, MatView<float> out, MatView<float> normed) {
  const nn::MtpWeights& w = model_.weights().mtp.front();
  const MemoryScope scope(ctx_.device);
  rstd_.resize(1, rows.rows);
  rms_norm(ctx_, {rows, w.head_norm, dims_.eps, normed, rstd_.span()});
  head(normed, w.head, out);
}

void Forward::mtp_logits(MatView<const float> rows, MatView<float> out) {
  const MemoryScope scope(ctx_.device);
  Mat<float> normed;
  normed.resize(rows.rows, rows.cols);
  mtp_logits(rows, out, normed.view());
}

}  // namespace cachalot::model
