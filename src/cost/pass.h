// What one pass of inference has to read and to compute, and the time that follows from what a
// machine can do: predicted beside measured.
//
// Threads: pure functions.
// Errors:  none; the Config has been validated.
// Paper:   "Insights into DeepSeek-V3" 2.1 to 2.3; the expected number of experts that T tokens
//          touch is E (1 - (1 - k / E)^T) where all are as likely.
#pragma once

#include <cstdint>

#include "model/config.h"
#include "model/weights.h"

namespace cachalot::cost {

// Bytes of the weights as a loaded model multiplies them, codes and scales.
struct WeightBytes {
  double dense = 0;   // of every pass: all but routed experts, head and embedding
  double expert = 0;  // one routed expert, mean over the layers that have some
  int moe_layers = 0;
  double head = 0;
  double mtp_dense = 0;  // of the MTP layer, its head apart
  double mtp_head = 0;
};
WeightBytes weight_bytes(const model::Model& model);

// What a pass reads: `rows` tokens in all, of `sequences` sequences that have `context` tokens in
// the cache each.
struct PassShape {
  int rows = 1;
  int sequences = 1;
  int context = 0;
  int logits = 1;                    // rows that become logits
  double cache_bytes_per_token = 0;  // of all main layers
  bool absorbed = true;
};

struct PassCost {
  double weight_bytes = 0;
  double cache_bytes = 0;    // each cached row once per sequence
  double product_flops = 0;  // of weights
  double attention_flops = 0;
  double useful_flops = 0;  // products, and attention as if keys and values were there
  double experts = 0;       // of a layer that are read
  double bytes() const noexcept { return weight_bytes + cache_bytes; }
  double flops() const noexcept { return product_flops + attention_flops; }
};
PassCost pass_cost(const model::Config& config, const WeightBytes& weights, const PassShape& shape);

struct MachineRates {
  double read_gbps = 0;
  double product_gflops = 0;
};
// Products and attention one after the other, each limited by memory or by arithmetic.
double predicted_seconds(const PassCost& cost, const MachineRates& machine);

}  // namespace cachalot::cost
