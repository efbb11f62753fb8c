#include "cli/network_eplb.h"

#include "base/error.h"

namespace cachalot::cli {

Balanced balance_experts(const network::Topology& topology, const network::SimulateSpec& spec,
                         int slots) {
  const network::JobSpec& job = spec.job;
  if (job.traffic != network::Traffic::kEpDispatch && job.traffic != network::Traffic::kEpCombine) {
    throw Error(Code::kUsage, cat("--eplb places experts, and ", network::name(job.traffic),
                                  " has none. Use --traffic ep-dispatch or ep-combine."));
  }
  if (!job.slots.empty()) {
    throw Error(Code::kUsage,
                "--eplb and --expert-slots both say where experts lie. Leave one of them out.");
  }
  if (job.even) {
    throw Error(Code::kUsage,
                "--even sends alike between all GPUs, whatever lies there: --eplb could change "
                "nothing. Leave one of them out.");
  }
  const std::vector<double> loads = network::expert_loads(topology, spec);
  const auto devices = static_cast<int>(network::groups_of(topology, job)[0].size());
  const int gpus = topology.spec.gpus_per_node;
  cost::PlacementShape shape;
  shape.experts = static_cast<int>(loads.size());
  shape.devices = devices;
  shape.replicas = slots > 0 ? slots : shape.experts + devices;
  // Where a token may go to some of the nodes only, a node's experts have to stay together.
  shape.nodes = (devices + gpus - 1) / gpus;
  if (job.node_limit >= shape.nodes) shape.nodes = 1;
  shape.groups = shape.nodes;
  Balanced balanced;
  balanced.by_node = shape.nodes > 1;
  balanced.placement = cost::place_experts(loads, shape);
  balanced.imbalance_before =
      cost::imbalance(cost::place_in_order(shape.experts, devices), loads, devices);
  balanced.imbalance = cost::imbalance(balanced.placement, loads, devices);
  return balanced;
}

}  // namespace cachalot::cli
