#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/rng.h"
#include "network/graph_metrics.h"
#include "network/halving.h"

namespace cachalot::network {

namespace {

// Graphs as symmetric as these have many second eigenvectors, and most show no middle: of a Slim
// Fly with q = 4 one alone says 44, and 32 is the fewest. Hence halvings that begin anywhere.
constexpr std::uint64_t kRandomHalvings = 20;
// With more switches the two orders must do; a random start takes as long as one of them.
constexpr std::size_t kFewSwitches = 4096;
constexpr int kPasses = 30;  // two to five are usual

// Whole nodes where they divide into two halves.
std::vector<char> halves_by_node(const Topology& topology) {
  const auto n = static_cast<std::size_t>(topology.endpoints());
  const bool by_node = topology.nodes() % 2 == 0;
  const auto size = static_cast<std::size_t>(by_node ? topology.spec.gpus_per_node : 1);
  const std::size_t half = by_node ? static_cast<std::size_t>(topology.nodes() / 2) : (n + 1) / 2;
  std::vector<char> in_first(n);
  for (std::size_t e = 0; e < n; ++e) in_first[e] = e / size < half ? 1 : 0;
  return in_first;
}

// Power iteration for the second eigenvector of (adjacency + shift): values of switches.
std::vector<double> second_eigenvector(const Adjacency& graph) {
  const std::size_t n = graph.switches();
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
      // The switch's own degree is the shift, which makes all eigenvalues positive.
      next[i] = static_cast<double>(graph.of(i).size()) * value[i];
      for (const int other : graph.of(i)) next[i] += value[static_cast<std::size_t>(other)];
    }
    value.swap(next);
  }
  return value;
}

std::vector<int> in_order(std::size_t switches) {
  std::vector<int> order(switches);
  std::iota(order.begin(), order.end(), 0);
  return order;
}

std::vector<int> by_eigenvector(const Adjacency& graph) {
  const std::vector<double> value = second_eigenvector(graph);
  std::vector<int> order = in_order(graph.switches());
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    return value[static_cast<std::size_t>(a)] < value[static_cast<std::size_t>(b)];
  });
  return order;
}

// The same for the same `number`, so that a bisection repeats.
std::vector<int> at_random(std::size_t switches, std::uint64_t number) {
  const Rng random(/*seed=*/1, stream_of("halvings"));
  std::vector<int> order = in_order(switches);
  for (std::size_t i = 0; i + 1 < switches; ++i) {
    std::swap(order[i], order[i + random.below(number * switches + i, switches - i)]);
  }
  return order;
}

// The halving with the fewest links of those that are tried.
Sides best_sides(const Adjacency& graph, const std::vector<std::int64_t>& endpoints) {
  Sides best;
  std::int64_t least = 0;
  const auto attempt = [&](const std::vector<int>& order) {
    Sides sides = halve(order, endpoints);
    const std::int64_t cost = improve(graph, endpoints, sides, kPasses);
    if (!best.empty() && cost >= least) return;
    least = cost;
    best = std::move(sides);
  };
  attempt(in_order(graph.switches()));
  attempt(by_eigenvector(graph));
  if (graph.switches() > kFewSwitches) return best;
  for (std::uint64_t i = 0; i < kRandomHalvings; ++i) attempt(at_random(graph.switches(), i));
  return best;
}

// Endpoints of the first side's switches, and as many of the second side's as half of them needs.
std::vector<char> halves_by_side(const Topology& topology, const Sides& sides) {
  const auto n = static_cast<std::size_t>(topology.endpoints());
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto side = [&](std::size_t e) {
    return sides[static_cast<std::size_t>(topology.attach[e])];
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return side(a) < side(b); });
  std::vector<char> in_first(n);
  for (std::size_t i = 0; i < n; ++i) in_first[order[i]] = i < (n + 1) / 2 ? 1 : 0;
  return in_first;
}

}  // namespace

std::int64_t bisection(const Topology& topology) {
  const std::int64_t by_node = cut_between(topology, halves_by_node(topology));
  const bool flat = topology.spec.kind == Kind::kDragonfly || topology.spec.kind == Kind::kSlimFly;
  if (!flat || topology.links.empty()) return by_node;
  std::vector<std::int64_t> endpoints(topology.switches.size());
  for (const int at : topology.attach) ++endpoints[static_cast<std::size_t>(at)];
  const Sides sides = best_sides(adjacency_of(topology), endpoints);
  return std::min(by_node, cut_between(topology, halves_by_side(topology, sides)));
}

}  // namespace cachalot::network
