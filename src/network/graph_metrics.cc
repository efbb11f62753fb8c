#include "network/graph_metrics.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "base/rng.h"
#include "network/max_flow.h"

namespace cachalot::network {

namespace {

// Neighbours of every switch in one array.
struct Adjacency {
  std::vector<std::size_t> begin;
  std::vector<int> to;
};

Adjacency adjacency_of(const Topology& topology) {
  Adjacency adjacency;
  adjacency.begin.assign(topology.switches.size() + 1, 0);
  for (const Link& link : topology.links) {
    ++adjacency.begin[static_cast<std::size_t>(link.a) + 1];
    ++adjacency.begin[static_cast<std::size_t>(link.b) + 1];
  }
  std::partial_sum(adjacency.begin.begin(), adjacency.begin.end(), adjacency.begin.begin());
  adjacency.to.resize(topology.links.size() * 2);
  std::vector<std::size_t> next(adjacency.begin.begin(), adjacency.begin.end() - 1);
  for (const Link& link : topology.links) {
    adjacency.to[next[static_cast<std::size_t>(link.a)]++] = link.b;
    adjacency.to[next[static_cast<std::size_t>(link.b)]++] = link.a;
  }
  return adjacency;
}

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
      for (std::size_t n = adjacency.begin[s]; n < adjacency.begin[s + 1]; ++n) {
        next[s] |= heard[static_cast<std::size_t>(adjacency.to[n])];
      }
      grew = grew || next[s] != heard[s];
    }
    if (!grew) return -1;
    heard.swap(next);
  }
}

// Power iteration for the second eigenvector of (adjacency + shift): values of switches.
std::vector<double> second_eigenvector(const Topology& topology, const Adjacency& adjacency) {
  const std::size_t n = topology.switches.size();
  const Rng random(/*seed=*/1, stream_of("bisection"));
  std::vector<double> value(n), next(n);
  for (std::size_t i = 0; i < n; ++i) value[i] = random.normal(i);
  for (int round = 0; round < 100; ++round) {
    const double mean = std::accumulate(value.begin(), value.end(), 0.0) / static_cast<double>(n);
    double square = 0;
    for (double& v : value) {
      v -= mean;  // graphs here are regular (or nearly): the first eigenvector is constant
      square += v * v;
    }
    const double scale = 1 / std::sqrt(std::max(square, 1e-300));
    for (double& v : value) v *= scale;
    for (std::size_t i = 0; i < n; ++i) {
      const auto degree = static_cast<double>(adjacency.begin[i + 1] - adjacency.begin[i]);
      double sum = degree * value[i];  // the shift makes all eigenvalues positive
      for (std::size_t k = adjacency.begin[i]; k < adjacency.begin[i + 1]; ++k) {
        sum += value[static_cast<std::size_t>(adjacency.to[k])];
      }
      next[i] = sum;
    }
    value.swap(next);
  }
  return value;
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
  // Links of endpoints are not to be cut, so their side's switches are joined without a bound.
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

std::int64_t bisection(const Topology& topology) {
  const auto n = static_cast<std::size_t>(topology.endpoints());
  std::vector<char> in_first(n);
  // Whole nodes where they divide into two halves.
  const bool by_node = topology.nodes() % 2 == 0;
  const auto size = static_cast<std::size_t>(by_node ? topology.spec.gpus_per_node : 1);
  const std::size_t half = by_node ? static_cast<std::size_t>(topology.nodes() / 2) : (n + 1) / 2;
  for (std::size_t e = 0; e < n; ++e) in_first[e] = e / size < half ? 1 : 0;
  std::int64_t fewest = cut_between(topology, in_first);
  const bool flat = topology.spec.kind == Kind::kDragonfly || topology.spec.kind == Kind::kSlimFly;
  if (!flat || topology.links.empty()) return fewest;
  const std::vector<double> value = second_eigenvector(topology, adjacency_of(topology));
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return value[static_cast<std::size_t>(topology.attach[a])] <
           value[static_cast<std::size_t>(topology.attach[b])];
  });
  for (std::size_t i = 0; i < n; ++i) in_first[order[i]] = i < (n + 1) / 2 ? 1 : 0;
  return std::min(fewest, cut_between(topology, in_first));
}

}  // namespace cachalot::network
