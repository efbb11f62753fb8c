// What is broken: a list like "plane:1,leaf:2,links:1%,nic:4,port:1", and what that takes down.
//
// Which of the parts fail is drawn by the seed, so that a run repeats, and one fault of the list
// after the other: what is down already, by itself or with what it hangs on, does not fail again.
// A plane of an mrft is one rail (its NICs); the single plane of the other kinds is everything. A
// NIC of one port is down with it; one of several goes on with what is left.
//
// Threads: plain values; functions are pure.
// Errors:  kUsage for an unknown part (names the nearest) and for more parts than are left.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "network/topology.h"

namespace cachalot::network {

enum class Part : std::uint8_t { kPlane, kLeaf, kSpine, kCore, kLink, kNic, kPort };
std::string_view name(Part part) noexcept;  // as lists have it: "links", the others in the singular

struct Fault {
  Part part = Part::kLink;
  // A count, or with `percent` a share of all there are, rounded up, or of what is left all.
  double amount = 1;
  bool percent = false;
  bool operator==(const Fault&) const = default;
};

// "" and "none": nothing. Errors name the flag that the text was given with.
std::vector<Fault> parse_faults(std::string_view text, std::string_view flag = "--fail");
std::string to_string(std::span<const Fault> faults);

struct Damage {
  // A switch takes its links and the ports below it down, a NIC its ports, its last port the NIC.
  std::vector<char> switch_down, link_down, nic_down;
  std::vector<char> port_down;                                // [endpoints, nic_ports]
  std::int64_t switches = 0, links = 0, nics = 0, ports = 0;  // how many each
};
Damage apply(const Topology& topology, std::span<const Fault> faults, std::uint64_t seed);

}  // namespace cachalot::network
