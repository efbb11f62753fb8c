#include "cli/network_eplb.h"

#include "base/error.h"

namespace cachalot::cli {

Balanced balance_experts(const network::Topology& topology, const network::SimulateSpec& spec,
                         int slots) {
  const network::JobSpec& job = spec.job;
  if (!network::is_moe(job.traffic)) {
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
  const int needed = (shape.experts + devices - 1) / devices;  // of each GPU
  shape.replicas = slots > 0 ? slots : (needed + 1) * devices;
  // Where a token may go to some of the nodes only, a node's experts have to stay together.
  const int nodes = (devices + gpus - 1) / gpus;
  shape.nodes = job.node_limit >= nodes || shape.experts % nodes != 0 ? 1 : nodes;
  shape.groups = shape.nodes;
  Balanced balanced;
  balanced.by_node = shape.nodes > 1;
  balanced.placement = cost::place_experts(loads, shape);
  balanced.imbalance = cost::imbalance(balanced.placement, loads, devices);
  if (shape.experts % devices == 0) {
    balanced.imbalance_before =
        cost::imbalance(cost::place_in_order(shape.experts, devices), loads, devices);
  }
  return balanced;
}

}  // namespace cachalot::cli
