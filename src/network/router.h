// Which links a flow takes between two NICs: a shortest way over what is up, chosen in one of three
// ways where there are several; or a longer one, on the flat kinds (dragonfly, slimfly).
//
//   ecmp      at each switch, a hash of (source, destination, label) picks among the links that
//             lead nearer: one path per flow, collisions as they fall
//   fixed     "static": the destination's place picks (d-mod-k, as InfiniBand's fat-tree routing):
//             no collisions in regular traffic, none avoided otherwise
//   adaptive  the flow is cut into `spray` equal parts; each goes where the fullest link of its
//   path
//             is emptiest so far, in the order the flows are asked for. The switches' per-packet
//             choice by queue length, in the limit of traffic that lasts.
//
//   valiant   as adaptive, but each part by way of a switch drawn at random: any traffic looks
//   even,
//             for twice the links
//   ugal      as adaptive, or by way of the best of four such switches where that is less loaded:
//             where (load of its fullest link) x (its links) is smaller
// In a fat tree valiant and ugal are adaptive: its shortest ways go by way of every spine already.
//
// A NIC of several ports is one to whoever sends: a flow may take every plane that both ends have a
// live port in. ecmp hashes one of those, static takes one by the destination's place, the others
// give each of them the same part of the flow, and choose the ways within it. (What the paper asks
// of NICs: one connection sprayed over all ports.)
//
// Failed links are known to all switches (the routing has converged): distances are over live
// links.
//
// Owns:    distances and next links to destinations asked for, and the load it has handed out.
// Threads: one thread per object.
// Errors:  none; no way is an empty answer.
// Paper:   Valiant (SIAM J. Computing 1982); Kim et al. (ISCA'08) for UGAL with global knowledge.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "network/fabric.h"

namespace cachalot::network {

enum class Routing : std::uint8_t { kEcmp, kFixed, kAdaptive, kValiant, kUgal };
// Whether flows are cut into parts.
constexpr bool is_sprayed(Routing routing) noexcept { return routing >= Routing::kAdaptive; }
std::string_view name(Routing routing) noexcept;
Routing parse_routing(std::string_view word, std::string_view flag = "--routing");

// Part of a flow: the trunks between its two NICs' switches, and the NICs' ports.
struct Way {
  std::vector<int> trunks;  // resources of the fabric, in order
  double share = 1;
  int port_out = 0, port_in = 0;  // numbers of ports
};

class Router {
 public:
  Router(const Fabric& fabric, Routing routing, int spray, std::uint64_t seed);

  bool reachable(int from, int to);  // GPUs by their own NICs
  // Both NICs must be up and reachable.
  std::vector<Way> ways(int from, int to, double bytes, std::uint64_t label);

 private:
  struct Hop {
    int to, resource;
  };
  struct Best {  // the fullest link's load and the sum of all, with the bytes at hand
    double worst = std::numeric_limits<double>::infinity(), sum = worst;
    std::vector<int> path;
  };
  struct Lane {  // two live ports, of one plane, with a way between their switches
    int out, in;
    int from_switch, to_switch;
  };
  const std::vector<Lane>& lanes(int from, int to);  // valid until the next call
  bool joined(int from_switch, int to_switch);
  // Adds the ways of `bytes`, `share` of a flow, over one lane in so many parts.
  void spray(const Lane& lane, double bytes, double share, std::uint64_t key, int parts,
             std::vector<Way>& ways);
  const std::vector<std::uint16_t>& distances_to(int target);
  // Live links of `at` that lead nearer to `target`, in the order of neighbours. Valid until the
  // next call.
  std::span<const Hop> nearer(int at, int target);
  // As many of them as fit into `out`, the emptiest first.
  std::size_t emptiest(int at, int target, std::span<Hop> out);
  Way by_hash(int from_switch, int to_switch, std::uint64_t key);
  Way by_destination(int from_switch, int to_switch, int slot);
  Best shortest(int from_switch, int to_switch, double bytes);
  Best through(int from_switch, int middle, int to_switch, double bytes);
  // The way of one part of a flow.
  Best part_of(int from_switch, int to_switch, double bytes, std::uint64_t key, int part);
  void cut_loops(int from_switch, std::vector<int>& path) const;
  void search(int at, int target, double bytes, double worst, double sum, std::vector<int>& path,
              Best& best);

  const Fabric& fabric_;
  Routing routing_;
  int spray_;
  std::uint64_t seed_;
  std::vector<std::vector<Hop>> neighbours_;
  std::vector<double> load_;  // seconds of each resource handed out so far
  std::unordered_map<int, std::vector<std::uint16_t>> distances_;
  // What nearer() has found: a switch's links towards a target are asked for with every flow.
  struct Range {
    std::size_t begin, count;
  };
  std::unordered_map<std::uint64_t, Range> nearer_;
  std::vector<Hop> hops_;
  std::vector<Lane> lanes_;
  std::vector<std::pair<double, std::size_t>> by_load_;  // of emptiest(): load and place
};

}  // namespace cachalot::network
