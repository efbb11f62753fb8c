// Which expert lies on which device: the published expert-parallel load balancer. Experts with much
// load get copies, and copies are packed so that devices have equal load.
//
// Two policies. Hierarchical, where the expert groups can be dealt out to the nodes: a group stays
// on one node, so group-limited routing keeps its few nodes (prefill). Global otherwise: copies go
// anywhere (decode with many devices).
//
// Loads are whatever was counted: tokens per expert of a trace, or a moving average. They are
// compared, divided and added up in float32, as in the published program, which decides ties.
//
// Threads: pure functions; equal loads are taken in the order of their numbers.
// Errors:  kConfig for counts that do not divide (under the global policy: slots by devices only);
//          the message says which.
// Paper:   DeepSeek EPLB (README and program); V3 report 3.4 (redundant experts).
#pragma once

#include <span>
#include <vector>

namespace cachalot::cost {

struct PlacementShape {
  int experts = 0;
  int replicas = 0;  // slots of all devices together, at least `experts`
  int groups = 1;    // the global policy takes no notice of these
  int nodes = 1;     // and of these
  int devices = 1;
};

struct Placement {
  bool hierarchical = false;
  std::vector<int> expert_of;              // [replicas] slots in the order of the devices
  std::vector<std::vector<int>> slots_of;  // [experts][copies] in the order they were made
};

// Of one layer; `load` is one number per expert, 0 or more.
Placement place_experts(std::span<const double> load, const PlacementShape& shape);
// Experts in the order of their numbers, as without a balancer: `experts` must be a multiple of
// `devices`.
Placement place_in_order(int experts, int devices);

// Load of the busiest device over the mean of all: 1 is balance. Copies share evenly.
double imbalance(const Placement& placement, std::span<const double> load, int devices);

}  // namespace cachalot::cost
