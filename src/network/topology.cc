#include "network/topology.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "base/grouped.h"
#include "network/topology_parts.h"

namespace cachalot::network {

namespace {

constexpr std::array<std::string_view, 6> kNames{"ft2", "mpft",      "mrft",
                                                 "ft3", "dragonfly", "slimfly"};

void check_halves(const TopologySpec& spec) {
  if (spec.ports % 2 != 0) {
    throw Error(
        Code::kUsage,
        cat("--ports ", spec.ports, ": a fat tree uses half of a leaf's ports down and half up, ",
            "so the number must be even. Use ", spec.ports - 1, " or ", spec.ports + 1, "."));
  }
}

void check(const TopologySpec& spec) {
  if (spec.ports < 4 || spec.ports > kMostPorts) {
    throw Error(Code::kUsage, cat("--ports ", spec.ports, ": a switch has 4 to ", kMostPorts,
                                  " ports here; 64 is what 400G InfiniBand switches have."));
  }
  if (spec.gpus_per_node < 1 || spec.gpus_per_node > 1024) {
    throw Error(Code::kUsage,
                cat("--gpus-per-node ", spec.gpus_per_node, ": must be 1 to 1024; 8 is usual."));
  }
  if (spec.endpoints < 0 || spec.endpoints > kMostEndpoints) {
    throw Error(Code::kUsage, cat("--endpoints ", spec.endpoints, ": must be 1 to ",
                                  grouped(kMostEndpoints), ", or 0 for as many as fit."));
  }
  if (spec.kind == Kind::kDragonfly || spec.kind == Kind::kSlimFly) return;
  check_halves(spec);  // three layers of the most ports hold 4,194,304 endpoints
  if (spec.kind != Kind::kMpft) return;
  if (spec.nic_ports < 1 || spec.nic_ports > std::max(spec.planes, 1)) {
    throw Error(Code::kUsage,
                cat("--nic-ports ", spec.nic_ports,
                    ": each port of a NIC is in a plane of its own, and there are ", spec.planes,
                    " planes. Use 1 to ", std::max(spec.planes, 1), ", or more --planes."));
  }
  const std::int64_t ports = std::int64_t{spec.gpus_per_node} * spec.nic_ports;  // of a node
  if (spec.planes < 1 || ports % spec.planes != 0) {
    throw Error(
        Code::kUsage,
        cat("--planes ", spec.planes, ": each plane must take the same number of a node's ", ports,
            spec.nic_ports > 1 ? " NIC ports" : " NICs", ", so the planes must divide ", ports,
            ". Change --planes, ", spec.nic_ports > 1 ? "--nic-ports" : "or --gpus-per-node",
            spec.nic_ports > 1 ? " or --gpus-per-node." : "."));
  }
  const std::int64_t all = spec.endpoints > 0
                               ? spec.endpoints * spec.nic_ports
                               : std::int64_t{spec.ports} * spec.ports / 2 * spec.planes;
  check_size(spec, all, "NIC ports",
             cat("Give --endpoints ", kMostEndpoints / spec.nic_ports, " or fewer."));
}

}  // namespace

std::string_view name(Kind kind) noexcept { return kNames[static_cast<std::size_t>(kind)]; }

Kind parse_kind(std::string_view word, std::string_view flag) {
  for (const Kind kind : kKinds) {
    if (name(kind) == word) return kind;
  }
  const std::string near = nearest(word, kNames.data(), kNames.data() + kNames.size());
  throw Error(Code::kUsage,
              cat(flag, " ", word, ": the kinds are ft2, mpft, mrft, ft3, dragonfly and slimfly",
                  near.empty() ? "." : cat("; did you mean `", near, "`?")));
}

std::string_view name(Tier tier) noexcept {
  constexpr std::array<std::string_view, 3> kTiers{"leaf", "spine", "core"};
  return kTiers[static_cast<std::size_t>(tier)];
}

std::int64_t Topology::count(Tier tier) const noexcept {
  return std::count_if(switches.begin(), switches.end(),
                       [tier](const Switch& s) { return s.tier == tier; });
}

std::int64_t Topology::count(LinkClass kind) const noexcept {
  return std::count_if(links.begin(), links.end(),
                       [kind](const Link& l) { return l.kind == kind; });
}

void too_many_endpoints(const TopologySpec& spec, std::int64_t asked, std::int64_t fit,
                        const std::string& advice) {
  throw Error(Code::kUsage, cat(name(spec.kind), " of ", spec.ports, "-port switches holds ",
                                grouped(fit), " endpoints; ", grouped(asked), " were asked for, ",
                                grouped(asked - fit), " too many. ", advice));
}

void check_size(const TopologySpec& spec, std::int64_t count, const char* what,
                const std::string& advice) {
  if (count <= kMostEndpoints) return;
  throw Error(Code::kUsage,
              cat("this ", name(spec.kind), " has ", grouped(count), " ", what, ", and at most ",
                  grouped(kMostEndpoints), " are built here. ", advice));
}

std::int64_t port_order(const Topology& topology, std::int64_t endpoint, int port) {
  const TopologySpec& spec = topology.spec;
  const std::int64_t node = endpoint / spec.gpus_per_node, rail = endpoint % spec.gpus_per_node;
  switch (spec.kind) {
    case Kind::kMpft: {
      const int ports =
          spec.gpus_per_node * spec.nic_ports / spec.planes;  // of a node in one plane
      return node * ports + (rail * spec.nic_ports + port) / spec.planes;
    }
    case Kind::kMrft:
      return rail * leaves_of_rail(spec) * (spec.ports / 2) + node;
    default:
      return endpoint;
  }
}

Topology build(const TopologySpec& spec) {
  check(spec);
  Topology topology;
  topology.spec = spec;
  if (spec.kind != Kind::kMpft) topology.spec.planes = topology.spec.nic_ports = 1;
  switch (spec.kind) {
    case Kind::kFt2:
    case Kind::kMpft:
      build_two_layers(topology);
      break;
    case Kind::kMrft:
      // A spine of two layers has a port for each leaf.
      if (spec.endpoints > 0 && leaves_needed(spec) <= spec.ports) {
        build_two_layers(topology);
        topology.notes.push_back("two layers are enough for these endpoints");
      } else {
        build_three_layers(topology);
      }
      break;
    case Kind::kFt3:
      build_three_layers(topology);
      break;
    case Kind::kDragonfly:
      build_dragonfly(topology);
      break;
    case Kind::kSlimFly:
      build_slim_fly(topology);
      break;
  }
  std::vector<int> used(topology.switches.size());
  for (const Link& link : topology.links) {
    ++used[static_cast<std::size_t>(link.a)];
    ++used[static_cast<std::size_t>(link.b)];
  }
  for (const int at : topology.attach) ++used[static_cast<std::size_t>(at)];
  for (const int ports : used) topology.ports_used = std::max(topology.ports_used, ports);
  if (topology.ports_used > spec.ports) {
    throw Error(Code::kInternal, cat("a switch of ", name(spec.kind), " uses ", topology.ports_used,
                                     " of ", spec.ports, " ports"));
  }
  return topology;
}

}  // namespace cachalot::network
