// A network, what is broken in it, and the traffic of a job: how long that takes, and what holds
// it up.
//
// Knows nothing of models: the traffic of a mixture of experts is given by tokens, bytes of a
// token, experts, how many of them a token takes and over how many nodes, or by a routing trace.
//
// Threads: simulate() forks (flow_sim.h); one call at a time.
// Errors:  kUsage for what does not fit together: by how much, and what to change.
// Paper:   Insights into DeepSeek-V3 (ISCA'25), section 5; DeepSeek-V3 report, 3.2.2.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "network/faults.h"
#include "network/flow_sim.h"
#include "network/moe_traffic.h"
#include "network/router.h"

namespace cachalot::network {

enum class Traffic : std::uint8_t {
  kEpDispatch,
  kEpCombine,
  kAllToAll,
  kAllReduce,
  kAllGather,
  kReduceScatter,
  kPipeline,
};
std::string_view name(Traffic traffic) noexcept;
Traffic parse_traffic(std::string_view word);
bool is_moe(Traffic traffic) noexcept;  // of experts

// How groups lie on nodes: one after the other, or spread so that a group's nodes are as far apart
// as the cluster is wide (as where pipeline stages are the inner dimension).
enum class Placement : std::uint8_t { kContiguous, kStrided };
std::string_view name(Placement placement) noexcept;
Placement parse_placement(std::string_view word);

struct JobSpec {
  Traffic traffic = Traffic::kEpDispatch;
  int group = 64;  // GPUs of one expert-parallel group, collective, or pipeline stage; 0: all
  bool one_group = false;  // only the first group has traffic; else all that fit
  Placement placement = Placement::kContiguous;

  // Mixture of experts.
  int tokens = 4096;                                    // per GPU
  double dispatch_bytes = 7392, combine_bytes = 14336;  // of one token
  int experts = 256, topk = 8, node_limit = 4;
  double skew = 0;
  int token_sets = 2;   // groups take these sets of drawn tokens in turn
  bool even = false;    // drawn tokens' means instead of their own numbers (MoeCounts even_out)
  bool direct = false;  // no forwarding: every copy goes straight to its GPU
  std::optional<RoutingTrace> trace;
  std::optional<RoutingExchange> exchange;  // of the trace, what is sent; none: all of it at once
  ExpertSlots slots;                        // where experts lie; empty: in order

  double bytes = 1 << 30;  // per GPU: collectives and pipeline
};

struct SimulateSpec {
  TopologySpec topology;
  std::vector<Fault> faults;
  std::uint64_t seed = 1;
  Rates rates;
  bool nvlink_given = false;  // else NVLink runs as measured for the traffic at hand
  Routing routing = Routing::kAdaptive;
  int spray = 0;  // parts of an adaptive flow; 0: 8, or fewer where that makes too many flows
  bool cross_rail_in_node = true;
  JobSpec job;
  SimulationOptions options;
};

struct Busy {
  std::string what;
  double seconds = 0;  // bytes that cross it over its rate
};

struct SimulateResult {
  double seconds = 0;       // of the slowest group that can finish
  double mean_seconds = 0;  // over groups that can and have something to send
  // GB/s per GPU. algorithm: bytes of tokens by (token, node), own node included, as DeepEP counts;
  // or the collective's bytes over time. bus: NCCL's bus bandwidth.
  double algorithm_gbs = 0, nvlink_gbs = 0, bus_gbs = 0;
  double bound_seconds = 0;   // no schedule is faster: the busiest link at its full rate
  std::vector<Busy> busiest;  // the busiest of NVLink, NICs and trunks each
  int group = 0;              // GPUs of a group
  std::int64_t groups = 0, stopped_groups = 0, cut_off_gpus = 0, relayed_gpus = 0;
  std::int64_t timed_groups = 0;  // that the mean is over
  std::int64_t flows = 0;
  int spray = 1;
  Damage damage;
  Rates rates;
  SimulationResult run;
  std::vector<double> link_seconds;  // [fabric resources]

  // Else no group with traffic can finish, and no time or bandwidth above is one. Where nobody has
  // anything to send, that takes no time.
  bool finishes() const noexcept { return timed_groups > 0 || stopped_groups == 0; }
};

SimulateResult simulate(const Topology& topology, const SimulateSpec& spec);

// How tokens of one group would be drawn, and its experts' loads as a balancer knows them before
// the traffic of `spec`: from the whole trace, or from another set of tokens than those simulated.
SyntheticRouting synthetic_routing(const JobSpec& job, int gpus_per_node, int ranks,
                                   std::uint64_t seed);
std::vector<double> expert_loads(const Topology& topology, const SimulateSpec& spec);

// The groups of a job, each as GPUs in rank order; two stages of a pipeline at least.
std::vector<Group> groups_of(const Topology& topology, const JobSpec& job);

}  // namespace cachalot::network
