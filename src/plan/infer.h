// Serving a model on given hardware, predicted: what fits, how long a token takes and what it
// waits for, what it costs.
//
// Layout: attention and everything dense lie whole on each group of `tensor` devices, which serves
// sequences of its own (data parallel); routed experts are spread over all devices (expert
// parallel), as DeepSeek-V3 is served. A time is products and attention, each bound by memory or by
// arithmetic, against the experts' communication, hidden behind a second micro-batch where that
// gains. What is not counted: waiting for requests, uneven experts, sampling, text.
//
// Threads: pure functions.
// Errors:  kUsage for options that contradict each other; kConfig where the profile lacks a figure
//          that is needed, naming it; kUnsupported where the model does not fit, saying by how much
//          and what to change.
// Paper:   "Insights into DeepSeek-V3" 2.3 (the bound by communication, MTP); V3 report 3.4.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cost/decoder.h"
#include "cost/expert_traffic.h"
#include "cost/pass.h"
#include "model/weight_format.h"
#include "plan/hardware.h"

namespace cachalot::plan {

struct InferOptions {
  int nodes = 0;   // 0: as few as the weights and the smallest case fit on
  int tensor = 0;  // devices that share the dense weights; 0: 1, or as many as are needed to fit
  model::WeightFormat weights = model::WeightFormat::kFp8;
  cost::CacheFormat cache = cost::CacheFormat::kBf16;
  std::vector<int> batches{1, 8, 32, 64, 128};  // sequences of each group of `tensor` devices
  std::vector<int> contexts{4096, 32768};       // tokens in the cache
  int prompt = 4096;                            // tokens of a prompt
  int output = 1024;                            // tokens of an answer, for the split
  double hit_rate = 0;                          // of prompt tokens, found in a prefix cache
  int drafts = 0;                               // MTP drafts verified with each token
  double acceptance = 0;                        // chance that a draft is right
  double reserve = 0.1;                         // share of memory for activations and buffers
  double requests_per_s = 0;                    // to size prefill and decode for; 0: the ratio only
  double tpot = 0;                              // seconds per token at most; 0: no limit
};

// Bytes of one device.
struct MemoryFit {
  double dense = 0;
  double experts = 0;
  double available = 0;  // without the reserve
  double cache_per_token = 0;
  double weights() const noexcept { return dense + experts; }
  double free() const noexcept { return available - weights(); }
};

struct ServeLayout {
  int nodes = 1;
  int devices = 1;
  int tensor = 1;
  int experts_per_device = 0;  // of a layer
};

struct DecodeCase {
  int batch = 0, context = 0;
  bool fits = false;
  double cache = 0;  // bytes of a device
  double over = 0;   // bytes too many per device, where it does not fit
  double step = 0;   // seconds of a pass, drafts and their verification included
  double tokens_per_step = 1;
  double tpot = 0;
  double tokens_per_s = 0;  // of all devices
  bool overlapped = false;  // two micro-batches
  cost::PassTime time;      // of one device, communication apart
  double communication = 0;
  cost::Limit limit = cost::Limit::kMemory;
  double per_million = 0;  // money per million tokens; 0: no price
  double mtp_gain = 1;     // speed with drafts over the speed without
};

// Of the cases of one context: the one with the most tokens per second that keeps to the limit on
// the time per token.
struct TpotChoice {
  int context = 0;
  bool within = false;               // else nothing keeps to it, and `decode` is the quickest
  std::optional<DecodeCase> decode;  // none: nothing fits
};

struct PrefillCase {
  int prompt = 0;
  double ttft = 0;          // a prompt on each group at once, nothing waiting before it
  double tokens_per_s = 0;  // of all devices
  cost::PassTime time;
  double communication = 0;
  cost::Limit limit = cost::Limit::kCompute;
  double per_million = 0;
};

// The bound of "Insights" 2.3.2 on this hardware: every copy through the network (or the link,
// where one node is all), nothing but communication.
struct ExpertBound {
  double tokens = 32;  // of a device and micro-batch
  double destinations = 0;
  double rate = 0;           // bytes per second by the data sheet
  double achieved_rate = 0;  // and as measured
  double stage = 0;          // seconds of one dispatch and combine
  double tpot = 0;
  double achieved_tpot = 0;
};

// Nodes that read prompts beside nodes that generate.
struct Split {
  DecodeCase decode;               // with the most tokens per second that fits and keeps to `tpot`
  double prefill_per_node = 0;     // prompt tokens per second computed
  double decode_per_node = 0;      // new tokens per second
  double prefill_per_decode = 0;   // nodes of prefill per node of decoding
  double per_million_request = 0;  // money per million new tokens, their prompts included
  std::int64_t prefill_nodes = 0;  // for requests_per_s, in whole layouts
  std::int64_t decode_nodes = 0;
};

struct InferPlan {
  std::string model;
  std::string hardware;
  std::string arithmetic;  // of the products
  ServeLayout layout;
  MemoryFit memory;
  std::vector<DecodeCase> decode;
  std::vector<TpotChoice> tpot_choices;  // of each context; empty where there is no limit
  PrefillCase prefill;
  std::optional<ExpertBound> bound;
  std::optional<Split> split;
  std::vector<std::string> notes;
};

InferPlan plan_infer(const cost::Decoder& decoder, const HardwareProfile& hardware,
                     const InferOptions& options);

// What a device does with weights of a format.
cost::DeviceRates device_rates(const HardwareProfile& hardware, model::WeightFormat weights);
Arithmetic arithmetic_of(const HardwareProfile& hardware, model::WeightFormat weights);

// plan_infer's parts.
std::vector<TpotChoice> choose_by_tpot(const std::vector<DecodeCase>& cases, double limit);
ServeLayout choose_layout(const cost::Decoder& decoder, const HardwareProfile& hardware,
                          const InferOptions& options);
MemoryFit memory_fit(const cost::Decoder& decoder, const HardwareProfile& hardware,
                     const InferOptions& options, const ServeLayout& layout);

}  // namespace cachalot::plan
