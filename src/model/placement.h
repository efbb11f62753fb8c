// Which NUMA node each weight should lie on: one copy of the model over all nodes.
//
// The experts of a layer are dealt out whole, so that a thread that computes one reads near memory;
// everything else is read by all threads and is spread page by page.
//
// Threads: pure functions.
// Errors:  none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "nn/params.h"

namespace cachalot::model {

struct NodeShare {
  double share = 1;              // of the work: its threads
  std::uint64_t room_bytes = 0;  // 0: unknown, as much as needed
};

// The node of each expert of each layer, from what each takes. In every layer the bytes of a node,
// over its share, differ from another's by no more than what the layer's largest expert takes
// there; over the layers differences even out. A node that is full is given no more, unless all
// are.
std::vector<std::vector<int>> place_experts(
    const std::vector<std::vector<std::uint64_t>>& expert_bytes, std::span<const NodeShare> nodes);

struct WeightArea {
  static constexpr int kSpread = -1;
  const void* data = nullptr;
  std::size_t bytes = 0;
  int node = kSpread;  // index of `nodes`
};
// The memory of all matrices and where it should lie. `whole_experts`: false spreads experts, too.
std::vector<WeightArea> plan_placement(const nn::Weights& weights, std::span<const NodeShare> nodes,
                                       bool whole_experts);

}  // namespace cachalot::model
