// The builders behind build(), one per family. Each appends switches and links, sets `attach`,
// `slot`, `capacity` and `planes`, and resolves what the spec left open.
//
// Errors: kUsage, as build() says.
#pragma once

#include <string>

#include "network/topology.h"

namespace cachalot::network {

void build_two_layers(Topology& topology);    // ft2, mpft, small mrft
void build_three_layers(Topology& topology);  // ft3, large mrft
void build_dragonfly(Topology& topology);
void build_slim_fly(Topology& topology);

// Which place in the order of its plane's leaf ports a port of an endpoint takes: by node, or by
// rail (mrft), whose last leaf may have ports left.
std::int64_t port_order(const Topology& topology, std::int64_t endpoint, int port = 0);

// Leaves that the endpoints of a fat tree of one plane need, and of an mrft each rail: a leaf there
// serves one rail, and has room for half of its ports.
std::int64_t leaves_needed(const TopologySpec& spec);
std::int64_t leaves_of_rail(const TopologySpec& spec);

inline constexpr int kMostPorts = 256;
inline constexpr std::int64_t kMostEndpoints = 5'000'000;  // and ports of NICs

// kUsage: `asked` endpoints where `fit` fit, and what to do.
[[noreturn]] void too_many_endpoints(const TopologySpec& spec, std::int64_t asked, std::int64_t fit,
                                     const std::string& advice);
// kUsage where `count` are more than are built here.
void check_size(const TopologySpec& spec, std::int64_t count, const char* what,
                const std::string& advice);

}  // namespace cachalot::network
