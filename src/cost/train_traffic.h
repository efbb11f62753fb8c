// What a device sends in one training step, by purpose and by kind of link.
//
// Threads: pure functions.
// Errors:  none; the layout has been checked.
// Paper:   V3 report 3.2.2 and "Insights" 4.3: a token crosses the network once per node that holds
//          one of its experts, at most topk_group of them, and goes on inside the node; FP8 there,
//          BF16 back. DeepEP counts bandwidth over those copies, the sender's own node included.
#pragma once

#include <string>
#include <vector>

#include "cost/train_memory.h"

namespace cachalot::cost {

enum class Link : std::uint8_t { kNode, kNetwork };  // inside a node; between nodes

struct Traffic {
  std::string purpose;
  Link link = Link::kNode;
  double bytes = 0;  // of one device and step
};

// Where the copies of a token go.
struct ExpertCopies {
  double places = 0;       // nodes (one node: devices) with one of its experts, the sender's too
  double network = 0;      // copies that cross the network
  double node = 0;         // copies that go on inside a node
  double bytes_there = 0;  // of one copy, dispatched
  double bytes_back = 0;   // combined
};
ExpertCopies expert_copies(const model::Config& config, const Layout& layout);

// The mean over the devices of the heaviest pipeline rank.
std::vector<Traffic> train_traffic(const model::Config& config, const Layout& layout,
                                   std::span<const Stage> stages, const Schedule& schedule);

}  // namespace cachalot::cost
