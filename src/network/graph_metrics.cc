#include "network/graph_metrics.h"

#include <algorithm>
#include <map>

#include "network/adjacency.h"
#include "network/max_flow.h"

namespace cachalot::network {

namespace {

std::vector<char> holds_endpoints(const Topology& topology) {
  std::vector<char> holds(topology.switches.size());
  for (const int at : topology.attach) holds[static_cast<std::size_t>(at)] = 1;
  return holds;
}

// 64 sources at once, one bit each: the rounds until every switch with endpoints has heard of all.
// `sources` are of one plane, and so must be those that hear.
int rounds_to_reach(const Topology& topology, const Adjacency& adjacency,
                    const std::vector<int>& sources, const std::vector<int>& targets) {
  std::vector<std::uint64_t> heard(topology.switches.size()), next;
  for (std::size_t i = 0; i < sources.size(); ++i) {
    heard[static_cast<std::size_t>(sources[i])] |= std::uint64_t{1} << i;
  }
  const std::uint64_t all =
      sources.size() == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << sources.size()) - 1;
  for (int round = 0;; ++round) {
    const bool done = std::all_of(targets.begin(), targets.end(), [&](int target) {
      return heard[static_cast<std::size_t>(target)] == all;
    });
    if (done) return round;
    next = heard;
    bool grew = false;
    for (std::size_t s = 0; s < heard.size(); ++s) {
      for (const int other : adjacency.of(s)) next[s] |= heard[static_cast<std::size_t>(other)];
      grew = grew || next[s] != heard[s];
    }
    if (!grew) return -1;
    heard.swap(next);
  }
}

}  // namespace

int diameter(const Topology& topology) {
  const Adjacency adjacency = adjacency_of(topology);
  const std::vector<char> holds = holds_endpoints(topology);
  int most = 0;
  // Planes are built alike, and plane 0 has no fewer leaves than another.
  std::vector<int> edge;
  for (std::size_t s = 0; s < holds.size(); ++s) {
    if (holds[s] && topology.switches[s].plane == 0) edge.push_back(static_cast<int>(s));
  }
  for (std::size_t from = 0; from < edge.size(); from += 64) {
    const auto begin = edge.begin() + static_cast<std::ptrdiff_t>(from);
    const auto count = std::min<std::size_t>(64, edge.size() - from);
    const std::vector<int> sources(begin, begin + static_cast<std::ptrdiff_t>(count));
    const int rounds = rounds_to_reach(topology, adjacency, sources, edge);
    if (rounds < 0) return -1;
    most = std::max(most, rounds);
  }
  return most;
}

std::int64_t cut_between(const Topology& topology, const std::vector<char>& in_first) {
  const int switches = static_cast<int>(topology.switches.size());
  MaxFlow flow(switches + 2);
  std::map<std::pair<int, int>, std::int64_t> between;  // parallel links together
  for (const Link& link : topology.links) ++between[std::minmax(link.a, link.b)];
  for (const auto& [pair, count] : between) flow.add(pair.first, pair.second, count, count);
  // An endpoint sends or takes no more than its own link carries.
  std::vector<std::int64_t> first(topology.switches.size()), second(topology.switches.size());
  const auto ports = static_cast<std::size_t>(topology.spec.nic_ports);
  for (std::size_t p = 0; p < topology.attach.size(); ++p) {
    ++(in_first[p / ports] ? first : second)[static_cast<std::size_t>(topology.attach[p])];
  }
  for (int s = 0; s < switches; ++s) {
    const auto at = static_cast<std::size_t>(s);
    if (first[at] > 0) flow.add(switches, s, first[at], 0);
    if (second[at] > 0) flow.add(s, switches + 1, second[at], 0);
  }
  return flow.run(switches, switches + 1);
}

double per_endpoint_of_half(std::int64_t cut, std::int64_t endpoints) noexcept {
  const std::int64_t half = (endpoints + 1) / 2;
  return static_cast<double>(cut) / static_cast<double>(half);
}

}  // namespace cachalot::network
