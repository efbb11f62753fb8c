// Networks of a cluster as graphs: switches, the links between them, and where each endpoint hangs.
//
// An endpoint is one GPU with its NIC: endpoint e is GPU e % gpus_per_node ("its rail") of node
// e / gpus_per_node. `links` are between switches; the links from an endpoint's ports to their
// switches are implied by `attach`.
//
// Kinds: ft2        one plane, two layers: every leaf to every spine, half of its ports down
//        mpft       `planes` separate ft2; port p of rail r of every node hangs in plane
//                   (r * nic_ports + p) % planes. One port is what was deployed; as many as there
//                   are planes is what the paper calls ideal: every GPU reaches every other
//        mrft       one fat tree (two or three layers) in which a leaf serves one rail only
//        ft3        one fat tree of three layers: pods of leaves and spines, cores above
//        dragonfly  groups of fully meshed switches; a = 2p = 2h (Kim et al., ISCA'08)
//        slimfly    the MMS graph of diameter 2 (Besta & Hoefler, SC'14); q must be a prime power
// Fewer endpoints than fit give a smaller network of the same kind: of fat trees as few spines and
// cores as have a port for every link up. Where their number divides that of a leaf's links up,
// each leaf has as many to each, and the tree is non-blocking; else some pairs of leaves share
// fewer ways than they have links.
//
// Owns:    its vectors.
// Threads: plain values; functions are pure.
// Errors:  kUsage from build() for what cannot be built: by how much, and what to change.
// Paper:   Insights into DeepSeek-V3 (ISCA'25), section 5.1.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace cachalot::network {

enum class Kind : std::uint8_t { kFt2, kMpft, kMrft, kFt3, kDragonfly, kSlimFly };
inline constexpr Kind kKinds[] = {Kind::kFt2, Kind::kMpft,      Kind::kMrft,
                                  Kind::kFt3, Kind::kDragonfly, Kind::kSlimFly};
std::string_view name(Kind kind) noexcept;
Kind parse_kind(std::string_view word, std::string_view flag = "--kind");

struct TopologySpec {
  Kind kind = Kind::kMpft;
  int ports = 64;              // of a switch
  int planes = 8;              // mpft only
  int nic_ports = 1;           // mpft only: ports of a NIC, each in a plane of its own
  std::int64_t endpoints = 0;  // 0: as many as fit
  int gpus_per_node = 8;
  int groups = 0;  // dragonfly: 0 takes as many as fit (or as the endpoints need)
  int q = 0;       // slimfly: 0 takes the largest that the ports allow (or the endpoints need)
  bool operator==(const TopologySpec&) const = default;
};

enum class Tier : std::uint8_t { kLeaf, kSpine, kCore };  // dragonfly, slimfly: all are leaves
std::string_view name(Tier tier) noexcept;

struct Switch {
  int plane = 0;
  int group = 0;  // pod, dragonfly group, or which half of a Slim Fly
  Tier tier = Tier::kLeaf;
};

// Links within a dragonfly group are short (copper); all others between switches are trunks.
enum class LinkClass : std::uint8_t { kTrunk, kLocal };

struct Link {
  int a = 0, b = 0;  // switches
  LinkClass kind = LinkClass::kTrunk;
};

struct Topology {
  TopologySpec spec;          // as resolved: endpoints, groups and q are what was built
  int planes = 1;             // networks without a link between them
  int ports_used = 0;         // at the switch that uses most
  std::int64_t capacity = 0;  // endpoints that the full network of this kind and these ports has
  std::vector<Switch> switches;
  std::vector<Link> links;
  std::vector<int> attach;         // [endpoints, nic_ports] switch
  std::vector<int> slot;           // [endpoints, nic_ports] place in the order of its plane's ports
  std::vector<std::string> notes;  // what a reader of the counts should know

  std::int64_t endpoints() const noexcept {
    return static_cast<std::int64_t>(attach.size()) / spec.nic_ports;
  }
  std::size_t port(std::int64_t endpoint, int p) const noexcept {  // into attach and slot
    return static_cast<std::size_t>(endpoint * spec.nic_ports + p);
  }
  // Some GPUs' NICs have no plane in common: what they send each other crosses inside a node.
  bool planes_apart() const noexcept { return planes > spec.nic_ports; }
  std::int64_t nodes() const noexcept {
    return (endpoints() + spec.gpus_per_node - 1) / spec.gpus_per_node;
  }
  std::int64_t count(Tier tier) const noexcept;
  std::int64_t count(LinkClass kind) const noexcept;
  // GPU i of a node reaches GPU i of any other, but other rails only through the node (mpft) or
  // more cheaply so (mrft).
  bool has_rails() const noexcept { return spec.kind == Kind::kMrft || planes_apart(); }
};

Topology build(const TopologySpec& spec);

// What the formulas of a Slim Fly give for any q = 4w - 1, 4w or 4w + 1, whether or not the graph
// exists (it does for prime powers). False for other q.
struct SlimFlyCounts {
  std::int64_t endpoints = 0, switches = 0, links = 0;
  int ports = 0;
  bool exists = false;
};
bool slim_fly_counts(int q, SlimFlyCounts& counts);

}  // namespace cachalot::network
