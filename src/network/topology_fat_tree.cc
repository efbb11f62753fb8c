#include <algorithm>

#include "base/error.h"
#include "network/topology_parts.h"

namespace cachalot::network {

namespace {

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

int add_switch(Topology& topology, int plane, int group, Tier tier) {
  topology.switches.push_back({plane, group, tier});
  return static_cast<int>(topology.switches.size()) - 1;
}

// Uplinks of `lower` over `upper` in turn: every upper switch gets as many, or one more.
void connect(Topology& topology, const std::vector<int>& lower, const std::vector<int>& upper,
             int uplinks) {
  std::size_t next = 0;
  for (const int low : lower) {
    for (int u = 0; u < uplinks; ++u) {
      topology.links.push_back({low, upper[next], LinkClass::kTrunk});
      next = (next + 1) % upper.size();
    }
  }
}

// The most endpoints of three layers. In an mrft all rails have as many leaves, so what is left of
// the leaves by their number is not used.
std::int64_t three_layer_capacity(const TopologySpec& spec) {
  const std::int64_t half = spec.ports / 2, leaves = half * spec.ports;
  if (spec.kind != Kind::kMrft) return leaves * half;
  const std::int64_t of_rail = leaves / spec.gpus_per_node;
  return of_rail > 0 ? of_rail * spec.gpus_per_node * half : leaves;  // one node, not all of it
}

// The fewest planes that would hold the endpoints of an mpft and divide a node's NIC ports.
std::string more_planes(const TopologySpec& spec, std::int64_t ports_of_plane) {
  const std::int64_t node = std::int64_t{spec.gpus_per_node} * spec.nic_ports;
  std::int64_t planes = std::max<std::int64_t>(
      spec.planes + 1, ceil_div(spec.endpoints * spec.nic_ports, ports_of_plane));
  while (planes < node && node % planes != 0) ++planes;
  if (planes <= node) {
    return cat("Use more --planes (", planes,
               " at least), switches with more --ports, or --kind ft3.");
  }
  return cat("A node of ", node, spec.nic_ports > 1 ? " NIC ports" : " NICs", " reaches ", node,
             " planes at most, and ", planes,
             " would be needed. Use more --gpus-per-node and --planes, switches with more "
             "--ports, or --kind ft3.");
}

}  // namespace

std::int64_t leaves_of_rail(const TopologySpec& spec) {
  return ceil_div(ceil_div(spec.endpoints, spec.gpus_per_node), spec.ports / 2);
}

std::int64_t leaves_needed(const TopologySpec& spec) {
  if (spec.kind != Kind::kMrft) return ceil_div(spec.endpoints, spec.ports / 2);
  return std::min<std::int64_t>(spec.gpus_per_node, spec.endpoints) * leaves_of_rail(spec);
}

void build_two_layers(Topology& topology) {
  TopologySpec& spec = topology.spec;
  const int half = spec.ports / 2;
  const std::int64_t per_plane = std::int64_t{spec.ports} * half;
  const int planes = spec.kind == Kind::kMpft ? spec.planes : 1;
  const auto plane_of = [&](std::int64_t e, int port) {
    return static_cast<std::size_t>((e % spec.gpus_per_node * spec.nic_ports + port) % planes);
  };
  topology.planes = planes;
  topology.capacity =
      spec.kind == Kind::kMrft ? three_layer_capacity(spec) : per_plane * planes / spec.nic_ports;
  if (spec.kind == Kind::kMpft && topology.capacity > spec.gpus_per_node) {  // whole nodes
    topology.capacity -= topology.capacity % spec.gpus_per_node;
  }
  if (spec.endpoints == 0) spec.endpoints = topology.capacity;
  const bool fit = spec.kind != Kind::kMpft || spec.endpoints <= topology.capacity;

  std::vector<std::int64_t> in_plane(static_cast<std::size_t>(planes));
  for (std::int64_t e = 0; e < spec.endpoints; ++e) {
    for (int port = 0; port < spec.nic_ports; ++port) ++in_plane[plane_of(e, port)];
  }
  if (!fit || in_plane[0] > per_plane) {  // plane 0 is never the emptiest
    too_many_endpoints(spec, spec.endpoints, topology.capacity,
                       spec.kind == Kind::kMpft
                           ? more_planes(spec, per_plane)
                           : "Use switches with more ports, --kind mpft, or --kind ft3.");
  }

  std::vector<std::vector<int>> leaves(static_cast<std::size_t>(planes));
  for (int plane = 0; plane < planes; ++plane) {
    auto& of_plane = leaves[static_cast<std::size_t>(plane)];
    const std::int64_t need = spec.kind == Kind::kMrft
                                  ? leaves_needed(spec)
                                  : ceil_div(in_plane[static_cast<std::size_t>(plane)], half);
    for (std::int64_t l = 0; l < need; ++l) {
      of_plane.push_back(add_switch(topology, plane, 0, Tier::kLeaf));
    }
    if (need < 2) continue;  // one leaf needs nothing above it
    std::vector<int> spines;
    for (std::int64_t s = 0; s < ceil_div(need, 2); ++s) {
      spines.push_back(add_switch(topology, plane, 0, Tier::kSpine));
    }
    connect(topology, of_plane, spines, half);
  }
  topology.attach.resize(topology.port(spec.endpoints, 0));
  topology.slot.resize(topology.port(spec.endpoints, 0));
  for (std::int64_t e = 0; e < spec.endpoints; ++e) {
    for (int port = 0; port < spec.nic_ports; ++port) {
      const std::int64_t order = port_order(topology, e, port);
      topology.slot[topology.port(e, port)] = static_cast<int>(order);
      topology.attach[topology.port(e, port)] =
          leaves[plane_of(e, port)][static_cast<std::size_t>(order / half)];
    }
  }
}

void build_three_layers(Topology& topology) {
  TopologySpec& spec = topology.spec;
  const int half = spec.ports / 2;
  topology.capacity = three_layer_capacity(spec);
  if (spec.endpoints == 0) spec.endpoints = topology.capacity;
  if (spec.endpoints > topology.capacity) {
    too_many_endpoints(spec, spec.endpoints, topology.capacity,
                       "Use switches with more ports, or --kind dragonfly.");
  }
  const std::int64_t need = leaves_needed(spec), pods = ceil_div(need, half);
  std::vector<int> leaves;
  std::vector<std::vector<int>> spines_by_place(static_cast<std::size_t>(half));
  for (std::int64_t pod = 0; pod < pods; ++pod) {
    const std::int64_t here = std::min<std::int64_t>(half, need - pod * half);
    std::vector<int> pod_leaves, pod_spines;
    for (std::int64_t l = 0; l < here; ++l) {
      pod_leaves.push_back(add_switch(topology, 0, static_cast<int>(pod), Tier::kLeaf));
    }
    // With a pod alone nothing needs to reach a core, and two leaves share a spine.
    const std::int64_t spines = pods > 1 ? half : ceil_div(here, 2);
    for (std::int64_t s = 0; s < spines; ++s) {
      pod_spines.push_back(add_switch(topology, 0, static_cast<int>(pod), Tier::kSpine));
      spines_by_place[static_cast<std::size_t>(s)].push_back(pod_spines.back());
    }
    connect(topology, pod_leaves, pod_spines, half);
    leaves.insert(leaves.end(), pod_leaves.begin(), pod_leaves.end());
  }
  if (pods > 1) {
    // Spine s of every pod goes to the cores of group s only: ceil(pods / 2) of them carry
    // pods * half uplinks.
    for (const auto& same_place : spines_by_place) {
      std::vector<int> cores;
      for (std::int64_t c = 0; c < ceil_div(pods, 2); ++c) {
        cores.push_back(add_switch(topology, 0, 0, Tier::kCore));
      }
      connect(topology, same_place, cores, half);
    }
  }
  topology.attach.resize(static_cast<std::size_t>(spec.endpoints));
  topology.slot.resize(static_cast<std::size_t>(spec.endpoints));
  for (std::int64_t e = 0; e < spec.endpoints; ++e) {
    const std::int64_t order = port_order(topology, e);
    topology.slot[static_cast<std::size_t>(e)] = static_cast<int>(order);
    topology.attach[static_cast<std::size_t>(e)] = leaves[static_cast<std::size_t>(order / half)];
  }
}

}  // namespace cachalot::network
