#include "infer/place_weights.h"

#include <fmt/format.h>

#include <vector>

#include "model/placement.h"

namespace cachalot::infer {

namespace {

std::vector<model::NodeShare> shares(const runtime::Runtime& runtime) {
  std::vector<model::NodeShare> nodes;
  for (const runtime::NumaNode& n : runtime.topology().nodes) {
    // A tenth is left for caches and for the rest of the program.
    nodes.push_back({0, n.memory_bytes / 10 * 9});
  }
  for (const runtime::ThreadPlace& place : runtime.places()) {
    nodes[static_cast<std::size_t>(place.node)].share += 1;
  }
  return nodes;
}

}  // namespace

WeightPlacement place_weights(runtime::Runtime& runtime, const model::Model& model) {
  WeightPlacement result;
  result.nodes = static_cast<int>(runtime.topology().nodes.size());
  if (result.nodes < 2) return result;
  // Whole experts pay only if the node's own threads compute them: threads are pinned, and products
  // from codes take their tasks by home (kernels/cpu/quant_driver.cc). Those in bf16 do not yet.
  result.whole_experts = runtime.pinned() && model.code_bytes() > 0;
  MemoryHomes homes(result.nodes);
  std::vector<runtime::MemoryArea> areas;
  for (const model::WeightArea& a :
       model::plan_placement(model.weights(), shares(runtime), result.whole_experts)) {
    areas.push_back({a.data, a.bytes, a.node});
    if (a.node >= 0) homes.add(a.data, a.bytes, a.node);
  }
  std::vector<int> os_nodes;
  for (const runtime::NumaNode& n : runtime.topology().nodes) os_nodes.push_back(n.os_index);
  result.memory = runtime::place_memory(os_nodes, areas);
  if (result.whole_experts) {
    homes.finish();
    runtime.set_homes(std::move(homes));
  }
  return result;
}

std::string WeightPlacement::text() const {
  if (nodes < 2) return {};
  return fmt::format("weights over {} NUMA nodes, {}: {} of {} pages in place, {} of them moved{}",
                     nodes, whole_experts ? "experts whole" : "page by page", memory.placed,
                     memory.pages, memory.moved,
                     memory.problem.empty() ? "" : "; " + memory.problem);
}

}  // namespace cachalot::infer
