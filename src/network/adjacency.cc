#include "network/adjacency.h"

#include <numeric>

namespace cachalot::network {

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

}  // namespace cachalot::network
