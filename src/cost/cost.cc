#include "cost/cost.h"

#include "cost/decoder.h"

namespace cachalot::cost {

namespace {

using model::Config;

struct Wide {
  explicit Wide(const Config& c)
      : hidden(c.hidden_size),
        vocab(c.vocab_size),
        heads(c.num_attention_heads),
        q_rank(c.q_lora_rank),
        latent(c.kv_lora_rank),
        rope(c.qk_rope_head_dim),
        qk(c.qk_head_dim()),
        nope(c.qk_nope_head_dim),
        v(c.v_head_dim) {}
  std::int64_t hidden, vocab, heads, q_rank, latent, rope, qk, nope, v;
};

std::int64_t attention_matmul(const Wide& w) {
  const std::int64_t query =
      w.q_rank > 0 ? w.hidden * w.q_rank + w.q_rank * w.heads * w.qk : w.hidden * w.heads * w.qk;
  return query + w.hidden * (w.latent + w.rope) + w.latent * w.heads * (w.nope + w.v) +
         w.heads * w.v * w.hidden;
}
// Two layer norms, the latent norm, and the query latent's where there is one.
std::int64_t layer_norms(const Wide& w) { return 2 * w.hidden + w.latent + w.q_rank; }

std::int64_t router_size(const Config& c) {
  const bool bias = c.route.method == TopkMethod::kNoauxTc;
  return std::int64_t{c.route.experts} * c.hidden_size + (bias ? c.route.experts : 0);
}
std::int64_t expert_size(const Config& c) {
  return 3 * std::int64_t{c.hidden_size} * c.moe_intermediate_size;
}

// Parts of one kind of layer that occurs `layers` times.
void add_part(std::vector<Part>& parts, const char* name, int layers, std::int64_t total,
              std::int64_t active, std::int64_t matmul) {
  if (layers == 0 || total == 0) return;
  parts.push_back({name, layers, total * layers, active * layers, matmul * layers});
}

Part mtp_part(const Config& c) {
  const int layers = c.num_nextn_predict_layers;
  if (layers == 0) return {"mtp", 0, 0, 0, 0};
  const Wide w(c);
  const bool moe = c.is_moe_layer(c.num_hidden_layers);
  const std::int64_t attention = attention_matmul(w);
  const std::int64_t projection = 2 * w.hidden * w.hidden;   // eh_proj
  const std::int64_t norms = layer_norms(w) + 3 * w.hidden;  // and enorm, hnorm, shared_head.norm
  const std::int64_t experts = expert_size(c);
  const std::int64_t ffn_all =
      moe ? (c.route.experts + c.n_shared_experts) * experts : 3 * w.hidden * c.intermediate_size;
  const std::int64_t ffn_used = moe ? (c.route.topk + c.n_shared_experts) * experts : ffn_all;
  const std::int64_t router = moe ? router_size(c) : 0;
  Part part{"mtp", layers, attention + projection + norms + router + ffn_all,
            attention + projection + norms + router + ffn_used + 2 * w.vocab * w.hidden,
            attention + projection + ffn_used + w.vocab * w.hidden};
  part.total *= layers;
  part.active *= layers;
  part.matmul *= layers;
  return part;
}

}  // namespace

Parameters parameters(const Config& c) {
  const Wide w(c);
  int moe = 0;
  for (int layer = 0; layer < c.num_hidden_layers; ++layer) moe += c.is_moe_layer(layer) ? 1 : 0;
  const int dense = c.num_hidden_layers - moe;
  const std::int64_t table = w.vocab * w.hidden;
  const std::int64_t attention = attention_matmul(w);
  const std::int64_t dense_ffn = 3 * w.hidden * c.intermediate_size;
  const std::int64_t expert = expert_size(c);
  const std::int64_t shared = c.n_shared_experts * expert;

  Parameters p;
  add_part(p.parts, "embedding", 1, table, table, 0);
  add_part(p.parts, "attention", c.num_hidden_layers, attention, attention, attention);
  add_part(p.parts, "norms", c.num_hidden_layers, layer_norms(w), layer_norms(w), 0);
  add_part(p.parts, "dense_ffn", dense, dense_ffn, dense_ffn, dense_ffn);
  add_part(p.parts, "router", moe, router_size(c), router_size(c), 0);
  add_part(p.parts, "shared_experts", moe, shared, shared, shared);
  add_part(p.parts, "routed_experts", moe, c.route.experts * expert, c.route.topk * expert,
           c.route.topk * expert);
  add_part(p.parts, "final_norm", 1, w.hidden, w.hidden, 0);
  if (c.tie_word_embeddings) {
    // Stored once, as the embedding; its product is work all the same.
    p.parts.push_back({"head", 1, 0, 0, table});
  } else {
    add_part(p.parts, "head", 1, table, table, table);
  }
  for (const Part& part : p.parts) {
    p.total += part.total;
    p.active += part.active;
    p.matmul += part.matmul;
  }
  p.mtp = mtp_part(c);
  return p;
}

std::int64_t kv_bytes_per_token(const Config& c, int bytes_per_value) {
  return std::int64_t{c.num_hidden_layers} * c.cache_row_width() * bytes_per_value;
}

std::int64_t mha_kv_bytes_per_token(const Config& c, int bytes_per_value) {
  const Wide w(c);
  return std::int64_t{c.num_hidden_layers} * w.heads * (w.qk + w.v) * bytes_per_value;
}

double training_flops_per_token(const Config& c, std::int64_t sequence, bool causal) {
  return training_flops_per_token(decoder_of(c, {}), sequence, causal);
}

double decode_flops_per_token(const Config& c, std::int64_t context) {
  return decode_flops_per_token(decoder_of(c, {}), context);
}

}  // namespace cachalot::cost
