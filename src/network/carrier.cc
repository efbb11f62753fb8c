#include "network/carrier.h"

#include <algorithm>

namespace cachalot::network {

void Carrier::over_nvlink(int from, int to, double bytes, int tag) {
  if (bytes <= 0) return;
  flows_.push_back(
      {{fabric_.nvlink_out(from), fabric_.nvlink_in(to)}, bytes, fabric_.nvlink_latency(), tag});
}

void Carrier::send(int from, int to, double bytes, int tag) {
  const int gpus = fabric_.topology().spec.gpus_per_node;
  if (from / gpus == to / gpus) {
    over_nvlink(from, to, bytes, tag);
  } else {
    between_nodes(from, to, bytes, tag);
  }
}

void Carrier::add_if_reachable(int out, int in, std::vector<Carried>& parts) {
  const auto count = static_cast<int>(fabric_.topology().endpoints());
  if (out < count && in < count && router_.reachable(out, in)) parts.push_back({out, in, 0});
}

// Remembered, because all GPUs of two nodes that little joins ask for the same.
const std::vector<Carried>& Carrier::any_pairs(int a, int b) {
  const auto [at, fresh] = any_pairs_.try_emplace({a, b});
  if (!fresh) return at->second;
  const int gpus = fabric_.topology().spec.gpus_per_node;
  for (int i = 0; i < gpus; ++i) {
    for (int j = 0; j < gpus; ++j) add_if_reachable(a + i, b + j, at->second);
  }
  return at->second;
}

std::vector<Carried> Carrier::choose(int from, int to) {
  const Topology& topology = fabric_.topology();
  const int gpus = topology.spec.gpus_per_node;
  const int a = from / gpus * gpus, b = to / gpus * gpus;  // first GPUs of the nodes
  const bool by_rail = topology.has_rails() && (cross_rail_in_node_ || topology.planes_apart());
  std::vector<Carried> parts;
  add_if_reachable(by_rail ? a + to % gpus : from, to, parts);
  // The fewest detours first: one end keeps its NIC; both take the same other one; any two.
  if (parts.empty() && !by_rail) {
    for (int r = 0; r < gpus; ++r) {
      add_if_reachable(from, b + r, parts);
      add_if_reachable(a + r, to, parts);
    }
  }
  if (parts.empty()) {
    for (int r = 0; r < gpus; ++r) add_if_reachable(a + r, b + r, parts);
  }
  if (parts.empty()) parts = any_pairs(a, b);
  for (Carried& part : parts) part.share = 1.0 / static_cast<double>(parts.size());
  return parts;
}

void Carrier::append(const Carried& part, int from, int to, double bytes, int tag, End start,
                     End end) {
  double before = 0, after = 0;  // seconds of latency
  if (start == End::kThisGpu && part.out != from) {
    hops_[{from, part.out, tag | 1}] += bytes;
    before = fabric_.nvlink_latency();
  }
  if (end == End::kThisGpu && part.in != to) {
    hops_[{part.in, to, tag | 1}] += bytes;
    after = fabric_.nvlink_latency();
  }
  for (Way& way : router_.ways(part.out, part.in, bytes, static_cast<std::uint64_t>(tag))) {
    Flow flow;
    flow.bytes = bytes * way.share;
    flow.tag = tag;
    flow.latency = before + after + fabric_.wire_latency(static_cast<int>(way.trunks.size()) + 1);
    const bool ports = fabric_.nic_ports() > 1;
    flow.path.push_back(fabric_.nic_out(part.out));
    if (ports) flow.path.push_back(fabric_.port_out(part.out, way.port_out));
    flow.path.insert(flow.path.end(), way.trunks.begin(), way.trunks.end());
    if (ports) flow.path.push_back(fabric_.port_in(part.in, way.port_in));
    flow.path.push_back(fabric_.nic_in(part.in));
    flows_.push_back(std::move(flow));
  }
}

const std::vector<Flow>& Carrier::flows() {
  for (const auto& [key, bytes] : hops_) {
    over_nvlink(std::get<0>(key), std::get<1>(key), bytes, std::get<2>(key));
  }
  hops_.clear();
  return flows_;
}

std::vector<Carried> Carrier::between_nodes(int from, int to, double bytes, int tag, End start,
                                            End end) {
  if (bytes <= 0) return {};
  std::vector<Carried> parts = choose(from, to);
  if (parts.empty()) {
    lost_ += bytes;
    cut_off_.push_back(from);
    cut_off_.push_back(to);
    lost_tags_.push_back(tag);
    return parts;
  }
  for (const Carried& part : parts) append(part, from, to, bytes * part.share, tag, start, end);
  return parts;
}

std::vector<int> Carrier::cut_off() const {
  // An end counts where its whole node has no NIC left; its partners did nothing wrong.
  const int gpus = fabric_.topology().spec.gpus_per_node;
  const auto count = static_cast<int>(fabric_.topology().endpoints());
  std::vector<int> found = cut_off_;
  std::sort(found.begin(), found.end());
  found.erase(std::unique(found.begin(), found.end()), found.end());
  std::erase_if(found, [&](int gpu) {
    for (int g = gpu / gpus * gpus; g < std::min(count, (gpu / gpus + 1) * gpus); ++g) {
      if (fabric_.nic_up(g)) return true;
    }
    return false;
  });
  return found;
}

}  // namespace cachalot::network
