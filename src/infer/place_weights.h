// A model's weights over the NUMA nodes of this machine: one copy, each expert whole on a node
// whose threads then compute it, where threads are held to their nodes and the products follow;
// otherwise spread page by page. Nothing happens on a machine of one node.
//
// Threads: before the first pass; the model's memory must outlive the Runtime's last product.
// Errors:  none: where the system refuses to place memory, the report says so.
#pragma once

#include <string>

#include "model/weights.h"
#include "runtime/numa.h"
#include "runtime/runtime.h"

namespace cachalot::infer {

struct WeightPlacement {
  int nodes = 1;
  bool whole_experts = false;
  runtime::PlacedMemory memory;
  std::string text() const;  // a line for a log; empty on one node
};
WeightPlacement place_weights(runtime::Runtime& runtime, const model::Model& model);

}  // namespace cachalot::infer
