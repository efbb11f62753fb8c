#include "model/placement.h"

#include <algorithm>
#include <numeric>
#include <set>

namespace cachalot::model {

namespace {

// Deals the experts of one layer out, largest first, each to the node that has least for its share.
class Dealer {
 public:
  explicit Dealer(std::span<const NodeShare> nodes) : nodes_(nodes), total_(nodes.size(), 0) {}

  std::vector<int> layer(const std::vector<std::uint64_t>& bytes) {
    std::vector<std::size_t> order(bytes.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return bytes[a] > bytes[b]; });
    here_.assign(nodes_.size(), 0);
    std::vector<int> node_of(bytes.size(), 0);
    for (const std::size_t expert : order) {
      const std::size_t node = pick(bytes[expert]);
      here_[node] += bytes[expert];
      total_[node] += bytes[expert];
      node_of[expert] = static_cast<int>(node);
    }
    return node_of;
  }

 private:
  double filled(std::uint64_t bytes, std::size_t node) const {
    return static_cast<double>(bytes) / nodes_[node].share;
  }
  bool has_room(std::size_t node, std::uint64_t bytes) const {
    return nodes_[node].room_bytes == 0 || total_[node] + bytes <= nodes_[node].room_bytes;
  }
  std::size_t pick(std::uint64_t bytes) const {
    std::size_t best = nodes_.size();
    for (const bool full_as_well : {false, true}) {
      for (std::size_t n = 0; n < nodes_.size(); ++n) {
        if (nodes_[n].share <= 0 || (!full_as_well && !has_room(n, bytes))) continue;
        if (best == nodes_.size() || less(n, best, bytes)) best = n;
      }
      if (best < nodes_.size()) return best;
    }
    return 0;  // no node has a share
  }
  // In this layer first, then over all layers.
  bool less(std::size_t a, std::size_t b, std::uint64_t bytes) const {
    const double x = filled(here_[a] + bytes, a), y = filled(here_[b] + bytes, b);
    if (x != y) return x < y;
    return filled(total_[a], a) < filled(total_[b], b);
  }

  std::span<const NodeShare> nodes_;
  std::vector<std::uint64_t> total_, here_;
};

class Areas {
 public:
  void add(const nn::WeightRef& w, int node) {
    std::vector<MemoryPiece> pieces;
    nn::add_memory(w, pieces);
    // The MTP layer may share embedding and head with the main model.
    for (const MemoryPiece& p : pieces) {
      if (!seen_.insert(p.at).second) continue;
      list.push_back({p.at, static_cast<std::size_t>(p.bytes), node});
    }
  }
  void add(const nn::MlpWeights& m, int node) {
    add(m.gate, node);
    add(m.up, node);
    add(m.down, node);
  }
  static std::uint64_t bytes_of(const nn::MlpWeights& m) {
    Areas one;
    one.add(m, 0);
    std::uint64_t all = 0;
    for (const WeightArea& a : one.list) all += a.bytes;
    return all;
  }

  std::vector<WeightArea> list;

 private:
  std::set<const void*> seen_;
};

void add_attention(Areas& areas, const nn::MlaWeights& m) {
  for (const nn::WeightRef* w : {&m.q_proj, &m.q_a, &m.q_b, &m.kv_a, &m.kv_b, &m.o}) {
    areas.add(*w, WeightArea::kSpread);
  }
}

}  // namespace

std::vector<std::vector<int>> place_experts(
    const std::vector<std::vector<std::uint64_t>>& expert_bytes, std::span<const NodeShare> nodes) {
  Dealer dealer(nodes);
  std::vector<std::vector<int>> placed;
  placed.reserve(expert_bytes.size());
  for (const auto& layer : expert_bytes) placed.push_back(dealer.layer(layer));
  return placed;
}

std::vector<WeightArea> plan_placement(const nn::Weights& weights, std::span<const NodeShare> nodes,
                                       bool whole_experts) {
  std::vector<const nn::BlockWeights*> blocks;
  for (const nn::BlockWeights& b : weights.layers) blocks.push_back(&b);
  for (const auto& mtp : weights.mtp) blocks.push_back(&mtp.block);
  std::vector<std::vector<std::uint64_t>> bytes;
  for (const nn::BlockWeights* b : blocks) {
    bytes.emplace_back();
    for (const nn::MlpWeights& e : b->moe.experts) bytes.back().push_back(Areas::bytes_of(e));
  }
  const auto placed = place_experts(bytes, nodes);
  Areas areas;
  areas.add(weights.embed, WeightArea::kSpread);
  for (std::size_t l = 0; l < blocks.size(); ++l) {
    const nn::BlockWeights& b = *blocks[l];
    add_attention(areas, b.mla);
    areas.add(b.mlp, WeightArea::kSpread);
    areas.add(b.moe.router, WeightArea::kSpread);
    areas.add(b.moe.shared, WeightArea::kSpread);
    for (std::size_t e = 0; e < b.moe.experts.size(); ++e) {
      areas.add(b.moe.experts[e], whole_experts ? placed[l][e] : WeightArea::kSpread);
    }
  }
  areas.add(weights.head, WeightArea::kSpread);
  for (const auto& mtp : weights.mtp) {
    for (const nn::WeightRef* w : {&mtp.eh_proj, &mtp.embed, &mtp.head}) {
      areas.add(*w, WeightArea::kSpread);
    }
  }
  return areas.list;
}

}  // namespace cachalot::model
