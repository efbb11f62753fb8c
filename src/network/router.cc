#include "network/router.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "base/rng.h"

namespace cachalot::network {

namespace {

constexpr std::array<std::string_view, 5> kNames{"ecmp", "static", "adaptive", "valiant", "ugal"};
constexpr std::uint16_t kFar = std::numeric_limits<std::uint16_t>::max();
// Where a switch has more ways that lead nearer, the emptiest ones are looked at.
constexpr std::size_t kLookedAt = 16;
constexpr int kMiddles = 4;  // random switches that ugal compares

}  // namespace

std::string_view name(Routing routing) noexcept {
  return kNames[static_cast<std::size_t>(routing)];
}

Routing parse_routing(std::string_view word, std::string_view flag) {
  for (std::size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] == word) return static_cast<Routing>(i);
  }
  throw Error(Code::kUsage,
              cat(flag, " ", word, ": must be ecmp, static, adaptive, valiant or ugal."));
}

Router::Router(const Fabric& fabric, Routing routing, int spray, std::uint64_t seed)
    : fabric_(fabric), routing_(routing), spray_(spray), seed_(seed) {
  const Topology& topology = fabric.topology();
  neighbours_.resize(topology.switches.size());
  load_.resize(fabric.capacity().size());
  for (std::size_t l = 0; l < topology.links.size(); ++l) {
    const int forth = fabric.trunk(static_cast<int>(l), 0);
    if (fabric.capacity()[static_cast<std::size_t>(forth)] <= 0) continue;
    const Link& link = topology.links[l];
    neighbours_[static_cast<std::size_t>(link.a)].push_back({link.b, forth});
    neighbours_[static_cast<std::size_t>(link.b)].push_back({link.a, forth + 1});
  }
  for (auto& hops : neighbours_) {
    std::stable_sort(hops.begin(), hops.end(),
                     [](const Hop& a, const Hop& b) { return a.to < b.to; });
  }
}

const std::vector<std::uint16_t>& Router::distances_to(int target) {
  auto [at, fresh] = distances_.try_emplace(target);
  std::vector<std::uint16_t>& distance = at->second;
  if (!fresh) return distance;
  distance.assign(neighbours_.size(), kFar);
  distance[static_cast<std::size_t>(target)] = 0;
  std::vector<int> queue{target};
  for (std::size_t head = 0; head < queue.size(); ++head) {
    const auto here = static_cast<std::size_t>(queue[head]);
    for (const Hop& hop : neighbours_[here]) {  // links fail both ways, so backwards is forwards
      std::uint16_t& there = distance[static_cast<std::size_t>(hop.to)];
      if (there != kFar) continue;
      there = static_cast<std::uint16_t>(distance[here] + 1);
      queue.push_back(hop.to);
    }
  }
  return distance;
}

std::span<const Router::Hop> Router::nearer(int at, int target) {
  const std::uint64_t key =
      static_cast<std::uint64_t>(at) * neighbours_.size() + static_cast<std::uint64_t>(target);
  const auto [found, fresh] = nearer_.try_emplace(key);
  Range& range = found->second;
  if (fresh) {
    const auto& distance = distances_to(target);
    const std::uint16_t here = distance[static_cast<std::size_t>(at)];
    range.begin = hops_.size();
    for (const Hop& hop : neighbours_[static_cast<std::size_t>(at)]) {
      if (distance[static_cast<std::size_t>(hop.to)] + 1 == here) hops_.push_back(hop);
    }
    range.count = hops_.size() - range.begin;
  }
  return std::span<const Hop>(hops_).subspan(range.begin, range.count);
}

std::size_t Router::emptiest(int at, int target, std::span<Hop> out) {
  const std::span<const Hop> hops = nearer(at, target);
  by_load_.clear();
  for (std::size_t i = 0; i < hops.size(); ++i) {
    by_load_.emplace_back(load_[static_cast<std::size_t>(hops[i].resource)], i);
  }
  const std::size_t count = std::min(out.size(), hops.size());
  std::partial_sort(by_load_.begin(), by_load_.begin() + static_cast<std::ptrdiff_t>(count),
                    by_load_.end());
  for (std::size_t i = 0; i < count; ++i) out[i] = hops[by_load_[i].second];
  return count;
}

bool Router::joined(int from_switch, int to_switch) {
  return distances_to(to_switch)[static_cast<std::size_t>(from_switch)] != kFar;
}

const std::vector<Router::Lane>& Router::lanes(int from, int to) {
  const Topology& topology = fabric_.topology();
  lanes_.clear();
  for (int out = 0; out < fabric_.nic_ports(); ++out) {
    if (!fabric_.port_up(from, out)) continue;
    const int a = topology.attach[topology.port(from, out)];
    for (int in = 0; in < fabric_.nic_ports(); ++in) {
      const int b = topology.attach[topology.port(to, in)];
      const bool one_plane = topology.switches[static_cast<std::size_t>(a)].plane ==
                             topology.switches[static_cast<std::size_t>(b)].plane;
      if (one_plane && fabric_.port_up(to, in) && joined(a, b)) lanes_.push_back({out, in, a, b});
    }
  }
  return lanes_;
}

bool Router::reachable(int from, int to) { return !lanes(from, to).empty(); }

Way Router::by_hash(int from_switch, int to_switch, std::uint64_t key) {
  const Rng hash(seed_, key);
  Way way;
  for (int at = from_switch; at != to_switch;) {
    const std::span<const Hop> hops = nearer(at, to_switch);
    const Hop& hop = hops[hash.below(static_cast<std::uint64_t>(at), hops.size())];
    way.trunks.push_back(hop.resource);
    at = hop.to;
  }
  return way;
}

Way Router::by_destination(int from_switch, int to_switch, int slot) {
  Way way;
  auto rest = static_cast<std::size_t>(slot);  // the digits of the place not used up yet
  for (int at = from_switch; at != to_switch;) {
    const std::span<const Hop> hops = nearer(at, to_switch);
    std::size_t switches = 1;
    for (std::size_t i = 1; i < hops.size(); ++i) switches += hops[i].to != hops[i - 1].to;
    // First which neighbour, then which of the parallel links to it.
    std::size_t wanted = rest % switches, begin = 0;
    for (; wanted > 0; --wanted) {
      const int skipped = hops[begin].to;
      while (hops[begin].to == skipped) ++begin;
    }
    std::size_t end = begin;
    while (end < hops.size() && hops[end].to == hops[begin].to) ++end;
    rest /= switches;
    const Hop& hop = hops[begin + rest % (end - begin)];
    way.trunks.push_back(hop.resource);
    at = hop.to;
  }
  return way;
}

// Depth first over the shortest ways, leaving those that are already worse than the best one.
void Router::search(int at, int target, double bytes, double worst, double sum,
                    std::vector<int>& path, Best& best) {
  if (at == target) {
    if (worst < best.worst || (worst == best.worst && sum < best.sum)) best = {worst, sum, path};
    return;
  }
  std::array<Hop, kLookedAt> hops;
  const std::size_t count = emptiest(at, target, hops);
  for (std::size_t i = 0; i < count; ++i) {
    const auto r = static_cast<std::size_t>(hops[i].resource);
    const double load = load_[r] + bytes / fabric_.capacity()[r], now = std::max(worst, load);
    if (now > best.worst || (now == best.worst && sum + load >= best.sum)) continue;
    path.push_back(hops[i].resource);
    search(hops[i].to, target, bytes, now, sum + load, path, best);
    path.pop_back();
  }
}

Router::Best Router::shortest(int from_switch, int to_switch, double bytes) {
  Best best;
  std::vector<int> path;
  search(from_switch, to_switch, bytes, 0, 0, path, best);
  return best;
}

// Leaves out what lies between two visits of one switch.
void Router::cut_loops(int from_switch, std::vector<int>& path) const {
  std::vector<int> visited{from_switch};
  std::size_t kept = 0;
  for (const int resource : path) {
    const int index = resource - fabric_.trunk(0, 0);
    const Link& link = fabric_.topology().links[static_cast<std::size_t>(index / 2)];
    const int to = index % 2 == 0 ? link.b : link.a;
    const auto seen = std::find(visited.begin(), visited.end(), to);
    if (seen == visited.end()) {
      path[kept++] = resource;
      visited.push_back(to);
    } else {
      kept = static_cast<std::size_t>(seen - visited.begin());
      visited.erase(seen + 1, visited.end());
    }
  }
  path.resize(kept);
}

Router::Best Router::through(int from_switch, int middle, int to_switch, double bytes) {
  Best way = shortest(from_switch, middle, bytes);
  const Best rest = shortest(middle, to_switch, bytes);
  way.path.insert(way.path.end(), rest.path.begin(), rest.path.end());
  cut_loops(from_switch, way.path);
  way.worst = way.sum = 0;
  for (const int trunk : way.path) {
    const auto r = static_cast<std::size_t>(trunk);
    const double load = load_[r] + bytes / fabric_.capacity()[r];
    way.worst = std::max(way.worst, load);
    way.sum += load;
  }
  return way;
}

Router::Best Router::part_of(int from_switch, int to_switch, double bytes, std::uint64_t key,
                             int part) {
  const Kind kind = fabric_.topology().spec.kind;
  const bool flat = kind == Kind::kDragonfly || kind == Kind::kSlimFly;
  Best best = shortest(from_switch, to_switch, bytes);
  if (!flat || routing_ == Routing::kAdaptive) return best;
  const auto cost = [](const Best& way) {
    return way.worst * static_cast<double>(way.path.size());
  };
  const Rng draw(seed_, key);
  for (int i = 0; i < kMiddles; ++i) {
    const auto number = static_cast<std::uint64_t>(part) * kMiddles + static_cast<std::uint64_t>(i);
    const int middle = static_cast<int>(draw.below(number, neighbours_.size()));
    const bool reached =
        distances_to(to_switch)[static_cast<std::size_t>(middle)] != kFar;  // both ends or neither
    if (middle == from_switch || middle == to_switch || !reached) continue;
    Best way = through(from_switch, middle, to_switch, bytes);
    if (routing_ == Routing::kValiant) return way;
    if (cost(way) < cost(best)) best = std::move(way);
  }
  return best;
}

void Router::spray(const Lane& lane, double bytes, double share, std::uint64_t key, int parts,
                   std::vector<Way>& ways) {
  const std::size_t first = ways.size();
  if (lane.from_switch == lane.to_switch) parts = 1;
  for (int part = 0; part < parts; ++part) {
    Best best = part_of(lane.from_switch, lane.to_switch, bytes / parts, key, part);
    for (const int trunk : best.path) {
      const auto r = static_cast<std::size_t>(trunk);
      load_[r] += bytes / parts / fabric_.capacity()[r];
    }
    Way way{std::move(best.path), share / parts, lane.out, lane.in};
    const auto same = std::find_if(ways.begin() + static_cast<std::ptrdiff_t>(first), ways.end(),
                                   [&](const Way& w) { return w.trunks == way.trunks; });
    if (same != ways.end()) {
      same->share += way.share;
    } else {
      ways.push_back(std::move(way));
    }
  }
}

std::vector<Way> Router::ways(int from, int to, double bytes, std::uint64_t label) {
  const std::size_t choices = lanes(from, to).size();
  const std::uint64_t key =
      (static_cast<std::uint64_t>(from) << 40) ^ (static_cast<std::uint64_t>(to) << 16) ^ label;
  const Topology& topology = fabric_.topology();
  const auto slot = static_cast<std::size_t>(topology.slot[topology.port(to, 0)]);
  if (!is_sprayed(routing_)) {
    const bool hashed = routing_ == Routing::kEcmp;
    const Rng hash(seed_, key);  // switches take numbers from 0 on, so the NIC takes the last one
    const Lane lane = lanes_[choices == 1 ? 0
                             : hashed     ? hash.below(~std::uint64_t{0}, choices)
                                          : slot % choices];
    const std::size_t place = topology.port(to, lane.in);
    Way way = hashed ? by_hash(lane.from_switch, lane.to_switch, key)
                     : by_destination(lane.from_switch, lane.to_switch, topology.slot[place]);
    way.port_out = lane.out;
    way.port_in = lane.in;
    return {std::move(way)};
  }
  const int planes = static_cast<int>(choices), parts = (spray_ + planes - 1) / planes;
  std::vector<Way> ways;
  for (const Lane& lane : lanes_) spray(lane, bytes / planes, 1.0 / planes, key, parts, ways);
  return ways;
}

}  // namespace cachalot::network
