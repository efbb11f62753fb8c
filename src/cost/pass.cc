#include "cost/pass.h"

#include <algorithm>
#include <cmath>

#include "cost/cost.h"

namespace cachalot::cost {

ExpertLayerCost expert_layer_cost(const Decoder& d, const WeightBytes& weights,
                                  const PassShape& s) {
  const double tokens = s.expert_tokens > 0 ? s.expert_tokens : s.rows;
  const double topk = d.experts.topk, all = d.experts.experts;
  const double here = tokens / s.expert_devices;
  ExpertLayerCost cost;
  cost.experts = all / s.expert_devices * (1 - std::pow(1 - topk / all, tokens));
  cost.products = {cost.experts * weights.expert,
                   2 * here * topk * static_cast<double>(d.experts.parameters),
                   cost.experts > 0 ? here * topk / cost.experts : 0};
  return cost;
}

PassCost pass_cost(const Decoder& d, const WeightBytes& weights, const PassShape& s) {
  PassCost cost;
  if (d.experts.layers > 0) {
    const ExpertLayerCost layer = expert_layer_cost(d, weights, s);
    cost.experts = layer.experts;
    cost.expert = {weights.moe_layers * layer.products.bytes,
                   d.experts.layers * layer.products.flops, layer.products.rows};
  }
  const auto part = [](double value, double devices) { return value / devices; };
  cost.dense.bytes = part(weights.dense, s.tensor_devices);
  cost.head.bytes = s.logits > 0 ? part(weights.head, s.tensor_devices) : 0;
  cost.weight_bytes = cost.dense.bytes + cost.expert.bytes + cost.head.bytes;

  const double each = static_cast<double>(s.rows) / s.sequences;
  // A latent is whole on each of the devices that share its heads; keys and values are shared out.
  const double cache_devices = std::min<double>(s.tensor_devices, d.kv_heads);
  cost.cache_bytes =
      s.sequences * (s.context + each) * s.cache_bytes_per_token / std::max(1.0, cache_devices);

  const double head = static_cast<double>(d.vocab) * d.hidden;
  const double routed = static_cast<double>(d.experts.layers) * d.experts.topk *
                        static_cast<double>(d.experts.parameters);
  const double rest = static_cast<double>(d.parameters.matmul) - head - routed;
  cost.dense.flops = part(2.0 * s.rows * rest, s.tensor_devices);
  cost.head.flops = part(2.0 * s.logits * head, s.tensor_devices);
  cost.dense.rows = s.rows;
  cost.head.rows = s.logits;
  cost.product_flops = cost.dense.flops + cost.expert.flops + cost.head.flops;

  // Row i of a sequence's chunk sees the context, the rows before it and itself.
  const double pairs = s.sequences * (each * s.context + each * (each + 1) / 2);
  cost.attention_rows = each * d.heads / s.tensor_devices /
                        std::max(1.0, static_cast<double>(d.kv_heads) / s.tensor_devices);
  cost.attention_flops =
      part(d.layers * pairs * (s.absorbed ? d.cached_pair_flops : d.pair_flops), s.tensor_devices);
  cost.useful_flops = cost.product_flops + part(d.layers * pairs * d.pair_flops, s.tensor_devices);
  return cost;
}

PassCost pass_cost(const model::Config& config, const WeightBytes& weights, const PassShape& s) {
  return pass_cost(decoder_of(config, {}), weights, s);
}

double predicted_seconds(const PassCost& cost, const MachineRates& m) {
  const auto time = [&](double bytes, double flops) {
    return std::max(bytes / (1e9 * m.read_gbps), flops / (1e9 * m.product_gflops));
  };
  return time(cost.weight_bytes, cost.product_flops) + time(cost.cache_bytes, cost.attention_flops);
}

double RateCurve::at(double r) const {
  if (rows.empty()) return 0;
  if (r <= rows.front()) return flops.front() * r / rows.front();
  if (r >= rows.back()) return flops.back();
  const auto above =
      static_cast<std::size_t>(std::upper_bound(rows.begin(), rows.end(), r) - rows.begin());
  const std::size_t below = above - 1;
  const double share = std::log(r / rows[below]) / std::log(rows[above] / rows[below]);  // 0 .. 1
  return flops[below] * std::pow(flops[above] / flops[below], share);
}

std::string_view name(Limit limit) noexcept {
  switch (limit) {
    case Limit::kMemory:
      return "memory bandwidth";
    case Limit::kCompute:
      return "compute";
    case Limit::kCommunication:
      return "expert communication";
    case Limit::kOverhead:
      return "overhead";
  }
  return "?";
}

Limit PassTime::limit() const noexcept {
  if (overhead > memory && overhead > compute) return Limit::kOverhead;
  return memory >= compute ? Limit::kMemory : Limit::kCompute;
}

PassTime pass_time(const PassCost& cost, int layers, const DeviceRates& rates) {
  PassTime time;
  // A kind of products: as measured for its rows where that is known, and never faster than its
  // weights can be read.
  const auto spend = [&](double bytes, double flops, double rate, double peak) {
    if (flops <= 0) return 0.0;
    const double reading = bytes / rates.read, computing = flops / rate;
    const double t = std::max(reading, computing);
    (reading >= flops / peak ? time.memory : time.compute) += t;
    return t;
  };
  const auto products = [&](const PassCost::Products& p, const RateCurve& curve) {
    if (curve.empty()) return spend(p.bytes, p.flops, rates.products, rates.products);
    const double best = *std::max_element(curve.flops.begin(), curve.flops.end());
    return spend(p.bytes, p.flops, curve.at(p.rows), best);
  };
  time.dense = products(cost.dense, rates.curve) + products(cost.head, rates.curve);
  time.experts =
      products(cost.expert, rates.expert_curve.empty() ? rates.curve : rates.expert_curve);
  const bool measured = !rates.attention_curve.empty();
  time.attention = spend(cost.cache_bytes, cost.attention_flops,
                         measured ? rates.attention_curve.at(cost.attention_rows) : rates.attention,
                         measured ? rates.attention_curve.flops.back() : rates.attention);
  time.overhead = rates.pass_seconds + layers * rates.layer_seconds;
  return time;
}

}  // namespace cachalot::cost
