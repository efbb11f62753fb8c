// What one pass of inference has to read and to compute, and the time that follows from what a
// machine can do: predicted beside measured.
//
// Threads: pure functions.
// Errors:  none; the Config has been validated.
// Paper:   "Insights into DeepSeek-V3" 2.1 to 2.3; the expected number of experts that T tokens
//          touch is E (1 - (1 - k / E)^T) where all are as likely.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "cost/decoder.h"
#include "cost/weight_bytes.h"
#include "model/config.h"

namespace cachalot::cost {

// What a pass reads: `rows` tokens in all, of `sequences` sequences that have `context` tokens in
// the cache each.
struct PassShape {
  int rows = 1;
  int sequences = 1;
  int context = 0;
  int logits = 1;                    // rows that become logits
  double cache_bytes_per_token = 0;  // of all main layers
  bool absorbed = true;
  // Experts spread over devices: each holds its part of every layer's, and computes on the tokens
  // that `expert_tokens` (of all of them together; 0: rows) send it. Costs are those of one device.
  double expert_devices = 1;
  double expert_tokens = 0;
  // Everything else spread over so many devices, which share the rows.
  double tensor_devices = 1;
};

struct PassCost {
  double weight_bytes = 0;
  double cache_bytes = 0;    // each cached row once per sequence
  double product_flops = 0;  // of weights
  double attention_flops = 0;
  double useful_flops = 0;  // products, and attention as if keys and values were there
  double experts = 0;       // of a layer that are read (by one device)
  // The products by kind; each reads its weights once for so many rows.
  struct Products {
    double bytes = 0, flops = 0, rows = 0;
  };
  Products dense = {}, expert = {}, head = {};
  double attention_rows = 0;  // queries times heads that share a cached row
  double bytes() const noexcept { return weight_bytes + cache_bytes; }
  double flops() const noexcept { return product_flops + attention_flops; }
};
// Of the routed experts of one layer, and how many of them are read.
struct ExpertLayerCost {
  PassCost::Products products;
  double experts = 0;
};
ExpertLayerCost expert_layer_cost(const Decoder& decoder, const WeightBytes& weights,
                                  const PassShape& shape);
PassCost pass_cost(const Decoder& decoder, const WeightBytes& weights, const PassShape& shape);
PassCost pass_cost(const model::Config& config, const WeightBytes& weights, const PassShape& shape);

struct MachineRates {
  double read_gbps = 0;
  double product_gflops = 0;
};
// Products and attention one after the other, each limited by memory or by arithmetic.
double predicted_seconds(const PassCost& cost, const MachineRates& machine);

// FLOP/s of products by the rows that share a weight, as measured: between the points on a line in
// the logarithms; below the first in proportion to the rows (the weights are read all the same),
// above the last as there.
struct RateCurve {
  std::vector<double> rows, flops;
  bool empty() const noexcept { return rows.empty(); }
  double at(double rows) const;
};

// What is known of a device, in bytes and operations per second.
struct DeviceRates {
  double read = 0;
  double products = 0;   // of large ones
  double attention = 0;  // scores and sums
  // Take the place of those two where they are not empty; attention's rows are queries times heads.
  RateCurve curve = {}, attention_curve = {};
  RateCurve expert_curve = {};  // of the experts' products; empty: as `curve`
  double pass_seconds = 0;
  double layer_seconds = 0;
};

// Which resource a time is spent on.
enum class Limit : std::uint8_t { kMemory, kCompute, kCommunication, kOverhead };
std::string_view name(Limit limit) noexcept;

struct PassTime {
  double dense = 0;  // products apart from experts
  double experts = 0;
  double attention = 0;
  double overhead = 0;
  // The same time by what it waits for.
  double memory = 0;
  double compute = 0;
  double total() const noexcept { return dense + experts + attention + overhead; }
  Limit limit() const noexcept;  // the largest of memory, compute and overhead
};
PassTime pass_time(const PassCost& cost, int layers, const DeviceRates& rates);

}  // namespace cachalot::cost
