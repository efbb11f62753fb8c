// Experts' places by the published balancer (EPLB) for the traffic of one simulation: `network`
// knows the loads, `cost` the placement, and here they meet.
#pragma once

#include <optional>

#include "cost/expert_placement.h"
#include "network/simulate.h"

namespace cachalot::cli {

struct Balanced {
  cost::Placement placement;
  bool by_node = false;  // hierarchical: a node's experts stay together
  double imbalance = 0;  // busiest GPU over the mean, by the loads placed by
  // The same in order; none where experts do not divide by GPUs, and so cannot lie in order.
  std::optional<double> imbalance_before;
};

// `slots` of all GPUs of a group together; 0: one more per GPU than the experts need. A node's
// experts stay together where tokens may go to some nodes only, and experts divide by nodes. kUsage
// where the traffic has no experts, or they are placed already.
Balanced balance_experts(const network::Topology& topology, const network::SimulateSpec& spec,
                         int slots);

}  // namespace cachalot::cli
