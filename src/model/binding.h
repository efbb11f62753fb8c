// The one list of a model's tensors: published names, shapes, and their place in the tree.
//
// `bind` asks a Source for every tensor in file order and returns the tree of what it got. With
// different sources the same list serves loading, allocation, gradients and writing.
//   M matrix(name, rows, cols);  V vector(name, n);  V router_bias(name, n);
//   M shared_copy(name, rows, cols, main): the MTP layer's copy of embedding or head; a source
//   gives what it has, or `main`.
// Names: Hugging Face's for DeepSeek-V2/V3; the MTP layer is model.layers.{num_hidden_layers}.
#pragma once

#include <string>

#include "model/config.h"
#include "nn/dims.h"
#include "nn/params.h"

namespace cachalot::model {

inline nn::BlockDims block_dims(const Config& c) {
  nn::BlockDims d;
  d.hidden = c.hidden_size;
  d.q_lora = c.q_lora_rank;
  d.kv_lora = c.kv_lora_rank;
  d.heads = {c.num_attention_heads, c.qk_nope_head_dim, c.qk_rope_head_dim, c.v_head_dim};
  d.eps = static_cast<float>(c.rms_norm_eps);
  d.softmax_scale = static_cast<float>(c.softmax_scale());
  d.route = c.route;
  return d;
}

template <class M, class V, class Source>
class Binder {
 public:
  Binder(const Config& config, Source& source) : c_(config), d_(block_dims(config)), s_(source) {}

  nn::ModelParams<M, V> bind() {
    nn::ModelParams<M, V> m;
    m.embed = s_.matrix("model.embed_tokens.weight", c_.vocab_size, c_.hidden_size);
    for (int i = 0; i < c_.num_hidden_layers; ++i) m.layers.push_back(block(i));
    m.norm = s_.vector("model.norm.weight", c_.hidden_size);
    m.head = c_.tie_word_embeddings ? m.embed
                                    : s_.matrix("lm_head.weight", c_.vocab_size, c_.hidden_size);
    for (int i = 0; i < c_.num_nextn_predict_layers; ++i) {
      m.mtp.push_back(mtp(c_.num_hidden_layers + i, m));
    }
    return m;
  }

 private:
  nn::MlpParams<M, V> mlp(const std::string& p, int width) {
    const int d = c_.hidden_size;
    nn::MlpParams<M, V> m;
    m.gate = s_.matrix(p + "gate_proj.weight", width, d);
    m.up = s_.matrix(p + "up_proj.weight", width, d);
    m.down = s_.matrix(p + "down_proj.weight", d, width);
    return m;
  }

  nn::MlaParams<M, V> mla(const std::string& p) {
    nn::MlaParams<M, V> m;
    if (d_.q_lora > 0) {
      m.q_a = s_.matrix(p + "q_a_proj.weight", d_.q_lora, d_.hidden);
      m.q_norm = s_.vector(p + "q_a_layernorm.weight", d_.q_lora);
      m.q_b = s_.matrix(p + "q_b_proj.weight", d_.q_width(), d_.q_lora);
    } else {
      m.q_proj = s_.matrix(p + "q_proj.weight", d_.q_width(), d_.hidden);
    }
    m.kv_a = s_.matrix(p + "kv_a_proj_with_mqa.weight", d_.cache_width(), d_.hidden);
    m.kv_norm = s_.vector(p + "kv_a_layernorm.weight", d_.kv_lora);
    m.kv_b = s_.matrix(p + "kv_b_proj.weight", d_.kv_width(), d_.kv_lora);
    m.o = s_.matrix(p + "o_proj.weight", d_.hidden, d_.out_width());
    return m;
  }

  nn::BlockParams<M, V> block(int layer) {
    const std::string p = "model.layers." + std::to_string(layer) + ".";
    nn::BlockParams<M, V> b;
    b.input_norm = s_.vector(p + "input_layernorm.weight", d_.hidden);
    b.mla = mla(p + "self_attn.");
    b.post_norm = s_.vector(p + "post_attention_layernorm.weight", d_.hidden);
    b.is_moe = c_.is_moe_layer(layer);
    if (!b.is_moe) {
      b.mlp = mlp(p + "mlp.", c_.intermediate_size);
      return b;
    }
    b.moe.router = s_.matrix(p + "mlp.gate.weight", c_.route.experts, d_.hidden);
    if (c_.route.method == TopkMethod::kNoauxTc) {
      b.moe.bias = s_.router_bias(p + "mlp.gate.e_score_correction_bias", c_.route.experts);
    }
    for (int e = 0; e < c_.route.experts; ++e) {
      b.moe.experts.push_back(
          mlp(p + "mlp.experts." + std::to_string(e) + ".", c_.moe_intermediate_size));
    }
    if (c_.n_shared_experts > 0) {
      b.moe.shared = mlp(p + "mlp.shared_experts.", c_.n_shared_experts * c_.moe_intermediate_size);
    }
    return b;
  }

  nn::MtpParams<M, V> mtp(int layer, const nn::ModelParams<M, V>& main) {
    const std::string p = "model.layers." + std::to_string(layer) + ".";
    nn::MtpParams<M, V> m;
    m.embed = s_.shared_copy(p + "embed_tokens.weight", c_.vocab_size, d_.hidden, main.embed);
    m.enorm = s_.vector(p + "enorm.weight", d_.hidden);
    m.hnorm = s_.vector(p + "hnorm.weight", d_.hidden);
    m.eh_proj = s_.matrix(p + "eh_proj.weight", d_.hidden, 2 * d_.hidden);
    m.block = block(layer);
    m.head_norm = s_.vector(p + "shared_head.norm.weight", d_.hidden);
    m.head = s_.shared_copy(p + "shared_head.head.weight", c_.vocab_size, d_.hidden, main.head);
    return m;
  }

  const Config& c_;
  nn::BlockDims d_;
  Source& s_;
};

template <class M, class V, class Source>
nn::ModelParams<M, V> bind(const Config& config, Source& source) {
  return Binder<M, V, Source>(config, source).bind();
}

}  // namespace cachalot::model
