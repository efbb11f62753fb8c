// What a model costs: parameters by part, cache bytes and training FLOPs per token. Plain functions
// of model::Config, used by train, infer and plan alike.
//
// Threads: pure functions.
// Errors:  none; the Config has been validated.
// Paper:   V3 report section 4.2 (sizes); "Insights into DeepSeek-V3" tables 1 and 2 (bytes and
//          FLOPs per token). Both count the main model only: what multi-token prediction adds is
//          kept apart here.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/config.h"

namespace cachalot::cost {

// One kind of weights, summed over the layers that have it.
struct Part {
  std::string name;
  int layers = 0;           // how often it occurs
  std::int64_t total = 0;   // parameters stored
  std::int64_t active = 0;  // parameters one token uses (top-k of the routed experts)
  // Active weights that are factors of a matrix product counted as training work: everything but
  // the input embedding (a lookup), the norms, and the router with its bias. Counting the router
  // would miss the published utilisation digits.
  std::int64_t matmul = 0;
};

struct Parameters {
  std::vector<Part> parts;  // of the main model, in the order of the forward pass
  std::int64_t total = 0;
  std::int64_t active = 0;
  std::int64_t matmul = 0;
  // All MTP layers: total counts what they own (embedding and head are the main model's), active
  // also the shared embedding and head, once per layer.
  Part mtp;
};

Parameters parameters(const model::Config& config);

// Latent rows [L + R] of every main layer.
std::int64_t kv_bytes_per_token(const model::Config& config, int bytes_per_value = 2);
// What plain multi-head attention of the same shape would keep: full keys and values per head.
std::int64_t mha_kv_bytes_per_token(const model::Config& config, int bytes_per_value = 2);

// Forward and backward: 6 per matrix weight, and 3 times the attention scores and sums over
// `sequence` positions (half of them where causal).
double training_flops_per_token(const model::Config& config, std::int64_t sequence = 4096,
                                bool causal = true);
// One decoded token with `context` positions in the cache: 2 per matrix weight, and absorbed
// attention, whose keys are L + R wide and whose values are L wide.
double decode_flops_per_token(const model::Config& config, std::int64_t context);

}  // namespace cachalot::cost
