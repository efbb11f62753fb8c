// From "these bytes from that GPU to this one" to flows over NICs and links: rails, forwarding
// inside the node, and ways around NICs and planes that are down.
//
// - Inside a node, bytes go over NVLink.
// - In networks with rails (mpft, mrft), bytes for another rail first go over NVLink to the GPU
//   of their own node that sits on that rail (what NCCL calls PXN). Planes of an mpft have no
//   other connection. An mrft may also be told to go across its spines.
// - A NIC that is down, or has no live way, is replaced by all others of its node that have one,
//   in equal shares; the bytes reach them over NVLink. Without rails an end keeps its NIC where
//   that alone is enough. Else both ends take NICs of the same place, and where no such pair has a
//   way, all pairs of NICs that have one.
// - A hop over NVLink before or after a NIC is a flow of its own at the same time: the node
//   forwards in chunks. Such hops of one group between the same two GPUs are one flow.
//
// Owns:    the flows it has made.
// Threads: one thread per object.
// Errors:  none: what cannot be delivered is counted (`lost`, `cut_off`).
// Paper:   Insights into DeepSeek-V3 (ISCA'25), sections 4.3 and 5.1.
#pragma once

#include <map>
#include <tuple>
#include <utility>
#include <vector>

#include "network/fabric.h"
#include "network/router.h"

namespace cachalot::network {

struct Flow {
  std::vector<int> path;  // resources of the fabric
  double bytes = 0;
  double latency = 0;  // seconds before its first byte arrives
  int tag = 0;         // the caller's; hops over NVLink beside a NIC have its lowest bit set
};

// Whether an end of a transfer is this very GPU, or any of its node (because what comes before or
// after runs over NVLink anyway, and is the caller's to add).
enum class End : std::uint8_t { kThisGpu, kAnyOfNode };

// Which NICs carried which share of a transfer.
struct Carried {
  int out, in;  // GPUs whose NICs are used
  double share;
};

class Carrier {
 public:
  Carrier(const Fabric& fabric, Router& router, bool cross_rail_in_node = true)
      : fabric_(fabric), router_(router), cross_rail_in_node_(cross_rail_in_node) {}

  // Between GPUs of one node (or of one GPU to itself: a copy that takes the same engines).
  void over_nvlink(int from, int to, double bytes, int tag);
  // Between nodes. Empty where there is no way.
  std::vector<Carried> between_nodes(int from, int to, double bytes, int tag,
                                     End start = End::kThisGpu, End end = End::kThisGpu);
  // Whichever of the two applies.
  void send(int from, int to, double bytes, int tag);

  // All flows made so far.
  const std::vector<Flow>& flows();
  std::int64_t count() const noexcept {
    return static_cast<std::int64_t>(flows_.size() + hops_.size());
  }
  double lost_bytes() const noexcept { return lost_; }
  const std::vector<int>& lost_tags() const noexcept { return lost_tags_; }  // may repeat
  // GPUs that something could not be sent from or to.
  std::vector<int> cut_off() const;

 private:
  std::vector<Carried> choose(int from, int to);
  void add_if_reachable(int out, int in, std::vector<Carried>& parts);
  // All pairs of NICs of two nodes with a way, by the nodes' first GPUs.
  const std::vector<Carried>& any_pairs(int a, int b);
  void append(const Carried& part, int from, int to, double bytes, int tag, End start, End end);

  const Fabric& fabric_;
  Router& router_;
  bool cross_rail_in_node_;
  std::vector<Flow> flows_;
  std::map<std::tuple<int, int, int>, double> hops_;  // bytes by from, to, tag
  std::map<std::pair<int, int>, std::vector<Carried>> any_pairs_;
  std::vector<int> cut_off_, lost_tags_;
  double lost_ = 0;
};

}  // namespace cachalot::network
