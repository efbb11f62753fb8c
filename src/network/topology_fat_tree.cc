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

}  // namespace

void build_two_layers(Topology& topology) {
  TopologySpec& spec = topology.spec;
  const int half = spec.ports / 2;
  const std::int64_t per_plane = std::int64_t{spec.ports} * half;
  const int planes = spec.kind == Kind::kMpft ? spec.planes : 1;
  const auto plane_of = [&](std::int64_t e, int port) {
    return static_cast<std::size_t>((e % spec.gpus_per_node * spec.nic_ports + port) % planes);
  };
  topology.planes = planes;
  topology.capacity = per_plane * planes / spec.nic_ports;
  if (spec.endpoints == 0) spec.endpoints = topology.capacity;

  const std::int64_t nodes = ceil_div(spec.endpoints, spec.gpus_per_node);
  std::vector<std::int64_t> in_plane(static_cast<std::size_t>(planes));
  for (std::int64_t e = 0; e < spec.endpoints; ++e) {
    for (int port = 0; port < spec.nic_ports; ++port) ++in_plane[plane_of(e, port)];
  }
  if (in_plane[0] > per_plane) {  // plane 0 is never the emptiest
    too_many_endpoints(
        spec, spec.endpoints, topology.capacity,
        spec.kind == Kind::kMpft
            ? cat("Use more --planes (", ceil_div(spec.endpoints * spec.nic_ports, per_plane),
                  " at least), switches with more ports, or --kind ft3.")
            : "Use switches with more ports, --kind mpft, or --kind ft3.");
  }

  std::vector<std::vector<int>> leaves(static_cast<std::size_t>(planes));
  for (int plane = 0; plane < planes; ++plane) {
    auto& of_plane = leaves[static_cast<std::size_t>(plane)];
    const std::int64_t need = ceil_div(in_plane[static_cast<std::size_t>(plane)], half);
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
  const bool whole_nodes = nodes * spec.gpus_per_node == spec.endpoints;
  for (std::int64_t e = 0; e < spec.endpoints; ++e) {
    for (int port = 0; port < spec.nic_ports; ++port) {
      // By rail, a last node that is not full would leave gaps; its order is then by endpoint.
      const std::int64_t order =
          spec.kind == Kind::kMrft && !whole_nodes ? e : port_order(topology, e, port);
      topology.slot[topology.port(e, port)] = static_cast<int>(order);
      topology.attach[topology.port(e, port)] =
          leaves[plane_of(e, port)][static_cast<std::size_t>(order / half)];
    }
  }
}

void build_three_layers(Topology& topology) {
  TopologySpec& spec = topology.spec;
  const int half = spec.ports / 2;
  const std::int64_t per_pod = std::int64_t{half} * half;
  topology.capacity = per_pod * spec.ports;
  if (spec.endpoints == 0) spec.endpoints = topology.capacity;
  if (spec.endpoints > topology.capacity) {
    too_many_endpoints(spec, spec.endpoints, topology.capacity,
                       "Use switches with more ports, or --kind dragonfly.");
  }
  const std::int64_t pods = ceil_div(spec.endpoints, per_pod);
  std::vector<int> leaves;
  std::vector<std::vector<int>> spines_by_place(static_cast<std::size_t>(half));
  for (std::int64_t pod = 0; pod < pods; ++pod) {
    const std::int64_t here = std::min(per_pod, spec.endpoints - pod * per_pod);
    std::vector<int> pod_leaves, pod_spines;
    for (std::int64_t l = 0; l < ceil_div(here, half); ++l) {
      pod_leaves.push_back(add_switch(topology, 0, static_cast<int>(pod), Tier::kLeaf));
    }
    // With a pod alone nothing needs to reach a core, and two leaves share a spine.
    const std::int64_t spines = pods > 1 ? half : ceil_div(ceil_div(here, half), 2);
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
  const bool whole_nodes = topology.nodes() * spec.gpus_per_node == spec.endpoints;
  topology.attach.resize(static_cast<std::size_t>(spec.endpoints));
  topology.slot.resize(static_cast<std::size_t>(spec.endpoints));
  for (std::int64_t e = 0; e < spec.endpoints; ++e) {
    const std::int64_t order =
        spec.kind == Kind::kMrft && !whole_nodes ? e : port_order(topology, e);
    topology.slot[static_cast<std::size_t>(e)] = static_cast<int>(order);
    topology.attach[static_cast<std::size_t>(e)] = leaves[static_cast<std::size_t>(order / half)];
  }
}

}  // namespace cachalot::network
