// What a network's graph says about it: how far apart switches are, and how many links a cut
// through its middle must take.
//
// Threads: pure functions.
// Errors:  none; a plane in pieces has diameter -1.
#pragma once

#include <cstdint>
#include <vector>

#include "network/topology.h"

namespace cachalot::network {

// The most links between the switches of two endpoints of one plane (the endpoints' own two links
// not counted): 2 in a fat tree of two layers, 3 in a dragonfly, 2 in a Slim Fly.
int diameter(const Topology& topology);

// The fewest links whose loss parts one half of the endpoints from the other, over the halvings
// tried: the order of nodes for fat trees (where every halving gives the same: exact), and for flat
// graphs also the best of several that halving.h has improved: the order of switches, the order
// along the second eigenvector of the graph, which finds its weak middle, and (where switches are
// not too many) random ones. Each value is a maximum flow, so it is exact for its halving; over all
// halvings it is an upper bound.
std::int64_t bisection(const Topology& topology);

// A bisection over the endpoints of the larger half.
double per_endpoint_of_half(std::int64_t cut, std::int64_t endpoints) noexcept;

// What a maximum flow from endpoints in the first set to the others takes: links between switches,
// or endpoints' own where those are fewer.
std::int64_t cut_between(const Topology& topology, const std::vector<char>& in_first);

}  // namespace cachalot::network
