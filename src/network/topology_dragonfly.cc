#include <algorithm>

#include "base/error.h"
#include "base/grouped.h"
#include "network/topology_parts.h"

namespace cachalot::network {

namespace {

// How the a*h global ports of a group meet those of the g-1 others: every pair of groups has
// `each` links; what is left, fewer than g-1 ports, goes to neighbours on the circle of groups.
struct GlobalLinks {
  int groups, each, left;
  std::vector<int> offsets;  // of the left ports: group i to i + offset, both ways round
};

GlobalLinks plan_global_links(int groups, int ports_of_group) {
  GlobalLinks plan{groups, ports_of_group / (groups - 1), ports_of_group % (groups - 1), {}};
  for (int offset = 1; offset <= plan.left / 2; ++offset) plan.offsets.push_back(offset);
  // An odd port is used only where the groups pair up across the circle.
  if (plan.left % 2 == 1 && groups % 2 == 0) plan.offsets.push_back(groups / 2);
  return plan;
}

}  // namespace

void build_dragonfly(Topology& topology) {
  TopologySpec& spec = topology.spec;
  // p endpoints, a-1 links in the group and h global links at a switch; a = 2p = 2h spreads the
  // load evenly, and p + (a-1) + h = 4p - 1 ports are used.
  const int p = (spec.ports + 1) / 4, h = p, a = 2 * p;
  const int most_groups = a * h + 1;
  const std::int64_t per_group = std::int64_t{a} * p;
  topology.capacity = per_group * most_groups;
  if (spec.groups != 0 && (spec.groups < 1 || spec.groups > most_groups)) {
    throw Error(Code::kUsage, cat("--groups ", spec.groups, ": a dragonfly of ", spec.ports,
                                  "-port switches has a = ", a, " switches with h = ", h,
                                  " global links in a group, so at most a*h + 1 = ", most_groups,
                                  " groups. Use 1 to ", most_groups, ", or more ports."));
  }
  const std::int64_t most = spec.groups > 0 ? per_group * spec.groups : topology.capacity;
  if (spec.endpoints > most) {
    too_many_endpoints(spec, spec.endpoints, most,
                       spec.groups > 0 ? "Use more --groups." : "Use switches with more ports.");
  }
  if (spec.groups > 0) {  // they are all built, however few endpoints there are
    check_size(spec, most, "endpoints",
               cat("Use --groups ", kMostEndpoints / per_group, " or fewer."));
  } else if (spec.endpoints == 0) {
    check_size(spec, most, "endpoints", cat("Give --endpoints ", kMostEndpoints, " or fewer."));
  }
  if (spec.endpoints == 0) spec.endpoints = most;
  if (spec.groups == 0) {
    spec.groups = static_cast<int>((spec.endpoints + per_group - 1) / per_group);
  }
  const int g = spec.groups;
  for (int group = 0; group < g; ++group) {
    for (int s = 0; s < a; ++s) {
      topology.switches.push_back({0, group, Tier::kLeaf});
      for (int other = 0; other < s; ++other) {
        topology.links.push_back({group * a + other, group * a + s, LinkClass::kLocal});
      }
    }
  }
  if (g > 1) {
    const GlobalLinks plan = plan_global_links(g, a * h);
    // A group's global ports in the order of use; h of them at each switch, dealt in turn so that
    // the links of one pair of groups lie at different switches.
    std::vector<int> used(static_cast<std::size_t>(g));
    const auto port = [&](int group) {
      return group * a + used[static_cast<std::size_t>(group)]++ % a;
    };
    const auto join = [&](int i, int j) {
      const int at_i = port(i), at_j = port(j);
      topology.links.push_back({at_i, at_j, LinkClass::kTrunk});
    };
    for (int round = 0; round < plan.each; ++round) {
      for (int distance = 1; distance <= g / 2; ++distance) {
        const int starts = 2 * distance == g ? g / 2 : g;  // each pair once
        for (int i = 0; i < starts; ++i) join(i, (i + distance) % g);
      }
    }
    for (const int offset : plan.offsets) {
      const int starts = 2 * offset == g ? g / 2 : g;
      for (int i = 0; i < starts; ++i) join(i, (i + offset) % g);
    }
    if (plan.left % 2 == 1 && g % 2 == 1) {
      topology.notes.push_back(cat("one global port of each group stays free: ", g,
                                   " groups with an odd number left cannot pair up"));
    }
  }
  if (g < most_groups) {
    topology.notes.push_back(
        cat("the largest dragonfly of these switches has a*h + 1 = ", most_groups, " groups and ",
            grouped(topology.capacity), " endpoints"));
  }
  topology.attach.resize(static_cast<std::size_t>(spec.endpoints));
  topology.slot.resize(static_cast<std::size_t>(spec.endpoints));
  for (std::int64_t e = 0; e < spec.endpoints; ++e) {
    topology.slot[static_cast<std::size_t>(e)] = static_cast<int>(e);
    topology.attach[static_cast<std::size_t>(e)] = static_cast<int>(e / p);
  }
}

}  // namespace cachalot::network
