// What the all-to-all of a mixture of experts carries, counted from tokens' choices; and as flows.
//
// An expert-parallel group is `ranks` GPUs on whole nodes. A token that chose experts on several
// GPUs of one node crosses to that node once: to the GPU of its own rail there, which hands it on
// over NVLink to each GPU that has one of its experts (deduplicated by node, then by GPU). Combine
// is the way back: partial sums meet on that same GPU and cross once.
//
// Threads: plain values; functions are pure but for the Carrier they fill.
// Errors:  kUsage where sizes do not fit each other.
// Paper:   DeepSeek-V3 report, sections 2.1.2 and 3.2.2; Insights into DeepSeek-V3, section 4.3.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "network/carrier.h"
#include "network/routing_trace.h"

namespace cachalot::network {

// Tokens, not bytes. Rank r is GPU r % gpus_per_node of the group's node r / gpus_per_node.
struct MoeCounts {
  int ranks = 0, gpus_per_node = 8;
  std::vector<std::int64_t> to_rank;  // [ranks, ranks] tokens of the row that the column needs
  std::vector<std::int64_t> to_node;  // [ranks, nodes] the same for nodes
  std::vector<std::int64_t> pairs;    // [ranks, ranks] (token, expert) pairs: no deduplication

  int nodes() const noexcept { return (ranks + gpus_per_node - 1) / gpus_per_node; }
  std::int64_t rank(int from, int to) const noexcept {
    return to_rank[static_cast<std::size_t>(from) * static_cast<std::size_t>(ranks) +
                   static_cast<std::size_t>(to)];
  }
  std::int64_t node(int from, int to) const noexcept {
    return to_node[static_cast<std::size_t>(from) * static_cast<std::size_t>(nodes()) +
                   static_cast<std::size_t>(to)];
  }
};

// Where experts lie: slots[s] is the expert in slot s, and each rank has the same number of slots,
// in order (what EPLB calls phy2log). An expert in several slots takes tokens there in turn.
// Empty: every expert once, in order.
using ExpertSlots = std::vector<int>;

MoeCounts count_tokens(const SyntheticRouting& options, int gpus_per_node,
                       const ExpertSlots& slots = {});
MoeCounts count_tokens(const RoutingTrace& trace, int gpus_per_node, const ExpertSlots& slots = {});

// Tokens that chose each expert: what EPLB places them by.
std::vector<double> expert_loads(const SyntheticRouting& options);
std::vector<double> expert_loads(const RoutingTrace& trace);

// The mean over all pairs of different nodes, and over pairs of ranks on one node and on two:
// traffic without its statistical unevenness, whose flows end together.
void even_out(MoeCounts& counts);

// Numbers apart by blanks or commas, `#` begins a comment. kFormat with the file and line.
ExpertSlots parse_expert_slots(std::string_view text, const std::string& file_name);

// The GPUs of one group, by rank.
using Group = std::vector<int>;

// NVLink flows of one group carry tag 2 * group + 1, those between nodes 2 * group.
void dispatch(Carrier& carrier, const MoeCounts& counts, const Group& group, double bytes_per_token,
              int group_number);
void combine(Carrier& carrier, const MoeCounts& counts, const Group& group, double bytes_per_token,
             int group_number);
// Straight from GPU to GPU without forwarding nor deduplication by node, as low-latency kernels do:
// one copy per expert. `back` is combine.
void direct(Carrier& carrier, const MoeCounts& counts, const Group& group, double bytes_per_token,
            int group_number, bool back);

}  // namespace cachalot::network
