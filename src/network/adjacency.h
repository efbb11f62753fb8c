// Neighbours of every switch in one array, for walks over a whole network.
//
// Owns:    its arrays.
// Threads: plain values; functions are pure.
// Errors:  none.
#pragma once

#include <span>
#include <vector>

#include "network/topology.h"

namespace cachalot::network {

struct Adjacency {
  std::vector<std::size_t> begin;  // [switches + 1] into `to`
  std::vector<int> to;             // a neighbour once for each link to it

  std::size_t switches() const noexcept { return begin.size() - 1; }
  std::span<const int> of(std::size_t s) const noexcept {
    return std::span<const int>(to).subspan(begin[s], begin[s + 1] - begin[s]);
  }
};
Adjacency adjacency_of(const Topology& topology);

}  // namespace cachalot::network
