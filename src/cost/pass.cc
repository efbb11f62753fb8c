#include "cost/pass.h"

#include <algorithm>
#include <cmath>

#include "cost/cost.h"

namespace cachalot::cost {

namespace {

double bytes_of(const nn::WeightRef& w) {
  if (!w.quant.empty()) {
    const QuantView& q = w.quant;
    const double codes = static_cast<double>(q.rows) * q.cols * q.bits() / 8;
    const bool blocks = q.code == QuantCode::kE4m3;
    const double scale_rows =
        blocks ? std::ceil(static_cast<double>(q.rows) / QuantView::kBlockRows) : q.rows;
    return codes + scale_rows * q.groups() * (blocks ? 4 : 2);
  }
  return static_cast<double>(w.rows) * w.cols * static_cast<double>(size_of(w.dtype));
}

double bytes_of(const nn::MlaWeights& w) {
  return bytes_of(w.q_proj) + bytes_of(w.q_a) + bytes_of(w.q_b) + bytes_of(w.kv_a) +
         bytes_of(w.kv_b) + bytes_of(w.o);
}
double bytes_of(const nn::MlpWeights& w) {
  return bytes_of(w.gate) + bytes_of(w.up) + bytes_of(w.down);
}
// Without the routed experts.
double dense_bytes(const nn::BlockWeights& w) {
  return bytes_of(w.mla) +
         (w.is_moe ? bytes_of(w.moe.router) + bytes_of(w.moe.shared) : bytes_of(w.mlp));
}

}  // namespace

WeightBytes weight_bytes(const model::Model& model) {
  const nn::Weights& w = model.weights();
  WeightBytes bytes;
  double experts = 0;
  int count = 0;
  for (const nn::BlockWeights& block : w.layers) {
    bytes.dense += dense_bytes(block);
    if (!block.is_moe) continue;
    ++bytes.moe_layers;
    for (const nn::MlpWeights& expert : block.moe.experts) experts += bytes_of(expert);
    count += static_cast<int>(block.moe.experts.size());
  }
  if (count > 0) bytes.expert = experts / count;
  bytes.head = bytes_of(w.head);
  if (!w.mtp.empty()) {
    bytes.mtp_dense = dense_bytes(w.mtp.front().block) + bytes_of(w.mtp.front().eh_proj);
    bytes.mtp_head = bytes_of(w.mtp.front().head);
  }
  return bytes;
}

PassCost pass_cost(const model::Config& c, const WeightBytes& weights, const PassShape& s) {
  PassCost cost;
  const double experts = c.route.experts;
  if (experts > 0) {
    cost.experts = experts * (1 - std::pow(1 - c.route.topk / experts, s.rows));
  }
  cost.weight_bytes = weights.dense + weights.moe_layers * cost.experts * weights.expert +
                      (s.logits > 0 ? weights.head : 0);
  const double each = static_cast<double>(s.rows) / s.sequences;
  cost.cache_bytes = s.sequences * (s.context + each) * s.cache_bytes_per_token;
  const double head = static_cast<double>(c.vocab_size) * c.hidden_size;
  const double matmul = static_cast<double>(parameters(c).matmul);
  cost.product_flops = 2 * (s.rows * (matmul - head) + s.logits * head);
  // Row i of a sequence's chunk sees the context, the rows before it and itself.
  const double pairs = s.sequences * (each * s.context + each * (each + 1) / 2);
  const double layer_heads = static_cast<double>(c.num_hidden_layers) * c.num_attention_heads;
  const double expanded = c.qk_head_dim() + c.v_head_dim;
  const double absorbed = 2.0 * c.kv_lora_rank + c.qk_rope_head_dim;
  cost.attention_flops = 2 * layer_heads * pairs * (s.absorbed ? absorbed : expanded);
  cost.useful_flops = cost.product_flops + 2 * layer_heads * pairs * expanded;
  return cost;
}

double predicted_seconds(const PassCost& cost, const MachineRates& m) {
  const auto time = [&](double bytes, double flops) {
    return std::max(bytes / (1e9 * m.read_gbps), flops / (1e9 * m.product_gflops));
  };
  return time(cost.weight_bytes, cost.product_flops) + time(cost.cache_bytes, cost.attention_flops);
}

}  // namespace cachalot::cost
