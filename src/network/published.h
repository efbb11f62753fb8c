// What the papers print about networks, to be set beside what is computed here.
//
// Threads: constants and pure functions.
// Paper:   Insights into DeepSeek-V3 (ISCA'25), Table 3 and section 5.1.2; DeepEP's README and
//          docs/legacy.md for the figures of its kernels on H800 with ConnectX-7.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "network/prices.h"
#include "network/topology.h"

namespace cachalot::network {

// A column of Table 3, as printed.
struct PublishedNetwork {
  std::string_view label;
  TopologySpec spec;  // what the same formulas build; q = 28 is counted, never built
  std::int64_t endpoints, switches, links;
  std::string_view cost_millions, cost_per_endpoint;  // M$ and k$
};
std::span<const PublishedNetwork> table3();

// A column beside ours.
struct ComparedNetwork {
  const PublishedNetwork* published;
  Bill bill;
  std::string cost_millions, cost_per_endpoint;  // with as many digits as printed
  bool counts_agree = false, costs_agree = false;
  std::string note;
};
std::vector<ComparedNetwork> compare_table3(const Prices& prices);

// Normal kernels, 4096 tokens per GPU, hidden 7168, top-8 of 256 experts in at most 4 nodes, FP8
// dispatch and BF16 combine: GB/s by DeepEP's count (bytes by token and node, own node included).
struct PublishedExchange {
  int gpus;
  double dispatch_gbs, combine_gbs;
};
std::span<const PublishedExchange> deepep_normal();
// Low-latency kernels, 128 tokens per GPU, straight to each GPU; local peers over NVLink.
struct PublishedLowLatency {
  int gpus;
  double dispatch_us, combine_us;
};
std::span<const PublishedLowLatency> deepep_low_latency();

}  // namespace cachalot::network
