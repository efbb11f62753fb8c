#include "network/collectives.h"

#include <algorithm>

namespace cachalot::network {

namespace {

// The GPUs of a group, node by node.
std::vector<Group> by_nodes(const Group& group, int gpus_per_node) {
  std::vector<Group> nodes;
  for (std::size_t at = 0; at < group.size(); at += static_cast<std::size_t>(gpus_per_node)) {
    const std::size_t end = std::min(group.size(), at + static_cast<std::size_t>(gpus_per_node));
    nodes.emplace_back(group.begin() + static_cast<std::ptrdiff_t>(at),
                       group.begin() + static_cast<std::ptrdiff_t>(end));
  }
  return nodes;
}

}  // namespace

void all_to_all(Carrier& carrier, const Group& group, int gpus_per_node, double bytes_per_gpu,
                bool by_node, int tag) {
  const double piece = bytes_per_gpu / static_cast<double>(group.size());
  if (!by_node) {
    for (const int from : group) {
      for (const int to : group) {
        if (from != to) carrier.send(from, to, piece, tag);
      }
    }
    return;
  }
  const std::vector<Group> nodes = by_nodes(group, gpus_per_node);
  for (const Group& a : nodes) {
    for (const Group& b : nodes) {
      if (&a == &b) continue;
      // All GPUs of `a` hand what is for b's GPU r to their own GPU r.
      for (std::size_t r = 0; r < b.size(); ++r) {
        carrier.between_nodes(a[r], b[r], piece * static_cast<double>(a.size()), tag);
      }
    }
    const double to_rail = piece * static_cast<double>(nodes.size());  // own node's piece included
    for (const int from : a) {
      for (const int rail : a) {
        if (from != rail) carrier.over_nvlink(from, rail, to_rail, tag);
      }
    }
  }
}

double ring(Carrier& carrier, const Fabric& fabric, const Group& group, int gpus_per_node,
            double bytes_per_gpu, int passes, int tag) {
  const std::vector<Group> nodes = by_nodes(group, gpus_per_node);
  const double rails = static_cast<double>(nodes[0].size());
  const double count = static_cast<double>(nodes.size());
  for (const Group& node : nodes) {
    for (const int from : node) {
      for (const int to : node) {
        if (from != to) carrier.over_nvlink(from, to, passes * bytes_per_gpu / rails, tag);
      }
    }
  }
  const double in_node = passes * fabric.nvlink_latency();
  if (nodes.size() < 2) return in_node - fabric.nvlink_latency();
  for (std::size_t n = 0; n < nodes.size(); ++n) {
    const Group &node = nodes[n], &next = nodes[(n + 1) % nodes.size()];
    for (std::size_t r = 0; r < node.size(); ++r) {
      carrier.between_nodes(node[r], next[r], passes * (count - 1) / count * bytes_per_gpu / rails,
                            tag);
    }
  }
  double step = 0;
  for (const Flow& flow : carrier.flows()) {
    const bool wire = flow.path.back() != fabric.nvlink_in(flow.path.back() / 4);
    if (wire && flow.tag == tag) step = std::max(step, flow.latency);
  }
  return in_node + step * (passes * (count - 1) - 1);
}

void pipeline_step(Carrier& carrier, const Group& stage, const Group& next, double bytes_per_gpu,
                   int tag) {
  for (std::size_t i = 0; i < stage.size(); ++i)
    carrier.send(stage[i], next[i], bytes_per_gpu, tag);
}

}  // namespace cachalot::network
