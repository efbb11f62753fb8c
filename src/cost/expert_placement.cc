#include "cost/expert_placement.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "base/error.h"

namespace cachalot::cost {

namespace {

// In float32, as the published program takes loads: what is a tie there, and which copy is the
// larger, is so here.
constexpr double kMostLoad = std::numeric_limits<float>::max();

struct Packed {
  std::vector<int> pack;  // of each item
  std::vector<int> rank;  // of each item within its pack
};

// The heaviest item first, each into the lightest pack that has room: packs of equal counts.
Packed pack_evenly(std::span<const float> weight, int packs) {
  const std::size_t n = weight.size();
  const std::size_t room = n / static_cast<std::size_t>(packs);
  Packed out{std::vector<int>(n), std::vector<int>(n, 0)};
  if (room == 1) {
    std::iota(out.pack.begin(), out.pack.end(), 0);
    return out;
  }
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return weight[a] > weight[b]; });
  std::vector<float> sum(static_cast<std::size_t>(packs), 0.0f);
  std::vector<std::size_t> count(sum.size(), 0);
  for (const std::size_t item : order) {
    std::size_t best = sum.size();
    for (std::size_t p = 0; p < sum.size(); ++p) {
      if (count[p] < room && (best == sum.size() || sum[p] < sum[best])) best = p;
    }
    out.pack[item] = static_cast<int>(best);
    out.rank[item] = static_cast<int>(count[best]++);
    sum[best] += weight[item];
  }
  return out;
}

// Experts, then copies: each further one of the expert whose copies have the most load.
struct Replicated {
  std::vector<std::size_t> expert;  // of each copy
  std::vector<int> copies;          // of each expert
};
Replicated replicate(std::span<const float> weight, std::size_t replicas) {
  Replicated out{std::vector<std::size_t>(weight.size()), std::vector<int>(weight.size(), 1)};
  std::iota(out.expert.begin(), out.expert.end(), std::size_t{0});
  const auto share = [&](std::size_t e) { return weight[e] / static_cast<float>(out.copies[e]); };
  while (out.expert.size() < replicas) {
    std::size_t most = 0;
    for (std::size_t e = 1; e < weight.size(); ++e) {
      if (share(e) > share(most)) most = e;
    }
    out.expert.push_back(most);
    ++out.copies[most];
  }
  return out;
}

// Groups that can be dealt out to the nodes.
bool is_hierarchical(const PlacementShape& s) { return s.groups % s.nodes == 0; }

void need(bool good, const std::string& text) {
  if (!good) throw Error(Code::kConfig, cat("expert placement: ", text, "."));
}

void need_multiple(int n, const char* of, int d, const char* by) {
  need(d >= 1 && n >= 1 && n % d == 0,
       cat(n, " ", of, " do not divide by ", d, " ", by, d >= 1 ? ": " : "",
           d < 1   ? ""
           : n < d ? cat("the least count that does is ", d)
                   : cat("the next counts that do are ", n / d * d, " and ", (n / d + 1) * d)));
}

void check_shape(std::span<const double> load, const PlacementShape& s) {
  need(s.experts >= 1 && load.size() == static_cast<std::size_t>(s.experts),
       cat(load.size(), " loads for ", s.experts, " experts"));
  for (std::size_t e = 0; e < load.size(); ++e) {
    need(load[e] >= 0 && load[e] <= kMostLoad,
         cat("the load of expert ", e, " is ", load[e], "; 0 to ", kMostLoad, " is needed"));
  }
  need(s.replicas >= s.experts, cat(s.replicas, " slots for ", s.experts,
                                    " experts: ", s.experts - s.replicas, " are missing"));
  need(s.groups >= 1 && s.nodes >= 1,
       cat(s.groups, " groups and ", s.nodes, " nodes; 1 or more of each are needed"));
  need_multiple(s.replicas, "slots", s.devices, "devices");
  if (!is_hierarchical(s)) return;  // the global policy knows neither groups nor nodes
  need_multiple(s.experts, "experts", s.groups, "groups");
  need_multiple(s.devices, "devices", s.nodes, "nodes");
}

// `groups` are dealt out to `nodes`; each node places its experts on its devices.
Placement place(std::span<const float> load, const PlacementShape& s, int groups, int nodes) {
  const auto experts = static_cast<std::size_t>(s.experts);
  const std::size_t group_size = experts / static_cast<std::size_t>(groups);
  std::vector<float> group_load(static_cast<std::size_t>(groups), 0.0f);
  for (std::size_t e = 0; e < experts; ++e) group_load[e / group_size] += load[e];
  const Packed groups_on_nodes = pack_evenly(group_load, nodes);

  const auto slots = static_cast<std::size_t>(s.replicas / nodes);
  const int devices = s.devices / nodes;
  const std::size_t per_device = slots / static_cast<std::size_t>(devices);
  Placement out;
  out.expert_of.assign(static_cast<std::size_t>(s.replicas), 0);
  out.slots_of.resize(experts);
  for (int node = 0; node < nodes; ++node) {
    // The node's groups in the order they were dealt, so its experts have places of their own.
    std::vector<std::size_t> mine(experts / static_cast<std::size_t>(nodes));
    for (std::size_t g = 0; g < group_load.size(); ++g) {
      if (groups_on_nodes.pack[g] != node) continue;
      const std::size_t first = static_cast<std::size_t>(groups_on_nodes.rank[g]) * group_size;
      for (std::size_t i = 0; i < group_size; ++i) mine[first + i] = g * group_size + i;
    }
    std::vector<float> weight(mine.size());
    for (std::size_t i = 0; i < mine.size(); ++i) weight[i] = load[mine[i]];
    const Replicated copies = replicate(weight, slots);
    std::vector<float> share(slots);
    for (std::size_t c = 0; c < slots; ++c) {
      share[c] = weight[copies.expert[c]] / static_cast<float>(copies.copies[copies.expert[c]]);
    }
    const Packed on_devices = pack_evenly(share, devices);
    for (std::size_t c = 0; c < slots; ++c) {
      const std::size_t slot = static_cast<std::size_t>(node) * slots +
                               static_cast<std::size_t>(on_devices.pack[c]) * per_device +
                               static_cast<std::size_t>(on_devices.rank[c]);
      out.expert_of[slot] = static_cast<int>(mine[copies.expert[c]]);
      out.slots_of[mine[copies.expert[c]]].push_back(static_cast<int>(slot));
    }
  }
  return out;
}

}  // namespace

Placement place_experts(std::span<const double> load, const PlacementShape& s) {
  check_shape(load, s);
  std::vector<float> rounded;
  for (const double x : load) rounded.push_back(static_cast<float>(x));
  const bool hierarchical = is_hierarchical(s);
  Placement out = hierarchical ? place(rounded, s, s.groups, s.nodes) : place(rounded, s, 1, 1);
  out.hierarchical = hierarchical;
  return out;
}

Placement place_in_order(int experts, int devices) {
  need_multiple(experts, "experts", devices, "devices");
  Placement out;
  for (int e = 0; e < experts; ++e) {
    out.expert_of.push_back(e);
    out.slots_of.push_back({e});
  }
  return out;
}

double imbalance(const Placement& p, std::span<const double> load, int devices) {
  need_multiple(static_cast<int>(p.expert_of.size()), "slots", devices, "devices");
  const std::size_t per_device = p.expert_of.size() / static_cast<std::size_t>(devices);
  double most = 0, sum = 0;
  for (std::size_t d = 0; d < static_cast<std::size_t>(devices); ++d) {
    double here = 0;
    for (std::size_t i = d * per_device; i < (d + 1) * per_device; ++i) {
      const auto e = static_cast<std::size_t>(p.expert_of[i]);
      here += load[e] / static_cast<double>(p.slots_of[e].size());
    }
    most = std::max(most, here);
    sum += here;
  }
  return sum > 0 ? most * devices / sum : 1;
}

}  // namespace cachalot::cost
