#include "cost/train_traffic.h"

#include <algorithm>

#include "cost/routed_places.h"

namespace cachalot::cost {

namespace {

void add(std::vector<Traffic>& out, const char* purpose, Link link, double bytes) {
  if (bytes > 0) out.push_back({purpose, link, bytes});
}

// A share of `group` devices that lies on other nodes, if they fill nodes one after the other.
Link link_of(double group, const Layout& l) {
  return group > l.devices_per_node ? Link::kNetwork : Link::kNode;
}

}  // namespace

ExpertCopies expert_copies(const model::Config& c, const Layout& l) {
  ExpertCopies out;
  if (l.expert == 1 || c.route.experts == 0) return out;
  const double hidden = c.hidden_size;
  const bool fp8 = l.precision == TrainPrecision::kFp8;
  const double value = l.precision == TrainPrecision::kF32 ? 4 : 2;
  out.bytes_there = hidden * (fp8 ? 1 + 4.0 / 128 : value);
  out.bytes_back = hidden * value;
  const int nodes = l.expert_nodes(), per_node = std::min(l.expert, l.devices_per_node);
  const ForwardedCopies copies = forwarded_copies(c.route, nodes, per_node);
  out.places = nodes > 1 ? copies.nodes : copies.devices;
  out.network = copies.network;
  out.node = copies.link;
  return out;
}

std::vector<Traffic> train_traffic(const model::Config& c, const Layout& l,
                                   std::span<const Stage> stages, const Schedule& schedule) {
  double moe = 0, layers = 0;
  DeviceParameters heaviest;
  for (std::size_t rank = 0; rank < schedule.ranks.size(); ++rank) {
    double rank_moe = 0, rank_layers = 0;
    for (const int number : schedule.stages_of(static_cast<int>(rank))) {
      const Stage& stage = stages[static_cast<std::size_t>(number)];
      rank_moe += layer_kinds(c, stage).moe;
      rank_layers += stage.layers() + stage.mtp_layers;
      if (stages.size() == 1) break;
    }
    // DualPipe: each of two stages sees half of the micro-batches.
    const double share = copies_of_weights(l.schedule);
    moe = std::max(moe, rank_moe / share);
    layers = std::max(layers, rank_layers / share);
    const DeviceParameters p = device_parameters(c, l, stages, schedule, static_cast<int>(rank));
    if (p.sum() > heaviest.sum()) heaviest = p;
  }
  const double tokens = l.tokens_per_micro_batch() * l.micro_batches() / l.tensor;
  const ExpertCopies copies = expert_copies(c, l);
  const double bytes = copies.bytes_there + copies.bytes_back;
  std::vector<Traffic> out;
  // Forward, the gradients, and the forward once more where all of it is computed again.
  const double directions = l.recompute == Recompute::kFull ? 3 : 2;
  add(out, "experts: dispatch and combine", Link::kNetwork,
      directions * moe * tokens * copies.network * bytes);
  add(out, "experts: dispatch and combine", Link::kNode,
      directions * moe * tokens * copies.node * bytes);
  const double value = l.precision == TrainPrecision::kF32 ? 4 : 2;
  if (l.tensor > 1) {
    // Two pairs of gather and scatter per layer and direction (sequence parallelism between them).
    add(out, "tensor groups", Link::kNode,
        directions * layers * 4 * tokens * c.hidden_size * value * (l.tensor - 1));
  }
  if (l.pipeline > 1) {
    const double hops = static_cast<double>(l.stages()) / l.pipeline;
    // Activations one way and gradients the other; of two ranks each has one neighbour.
    const double sent = l.pipeline == 2 ? 1 : 2;
    add(out, "pipeline: activations and gradients",
        link_of(static_cast<double>(l.data()) * l.tensor * l.pipeline, l),
        sent * hops * tokens * c.hidden_size * value);
  }
  // Gradients scattered in float, weights gathered as products read them.
  constexpr double kGradient = 4;
  const auto copies_of = [](double shards) { return (shards - 1) / shards; };
  const double dense_copies = l.data() * copies_of_weights(l.schedule);
  const double expert_copies_all =
      static_cast<double>(l.data()) * l.tensor / l.expert * copies_of_weights(l.schedule);
  const Link between = l.copies_cross_nodes() ? Link::kNetwork : Link::kNode;
  add(out, "gradients and weights, replicated", between,
      (kGradient + value) * heaviest.replicated * copies_of(dense_copies));
  add(out, "gradients and weights, experts", between,
      (kGradient + value) * heaviest.experts * copies_of(expert_copies_all));
  return out;
}

}  // namespace cachalot::cost
