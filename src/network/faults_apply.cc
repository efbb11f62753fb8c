#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "base/rng.h"
#include "network/faults.h"

namespace cachalot::network {

namespace {

// How many of `all` parts are meant, of which `left` are up.
std::size_t wanted(const Topology& topology, const Fault& fault, std::size_t all,
                   std::size_t left) {
  if (fault.percent) {
    // 14 % of 200 must be 28 although 0.14 x 200 is a little more; nobody writes shares so exactly
    // that the tolerance would matter.
    const double share = fault.amount * static_cast<double>(all) / 100;
    return std::min(left, static_cast<std::size_t>(std::ceil(share * (1 - 1e-12))));
  }
  if (fault.amount > static_cast<double>(left)) {
    throw Error(
        Code::kUsage,
        cat("--fail ", name(fault.part), ":", fault.amount, ": this ", name(topology.spec.kind),
            " has ", all, left < all ? cat(", and ", all - left, " of them are down already") : "",
            ". Ask for at most ", left, "."));
  }
  return static_cast<std::size_t>(fault.amount);
}

// Takes parts down, one fault after the other.
class Breaker {
 public:
  Breaker(const Topology& topology, std::uint64_t seed) : topology_(topology), seed_(seed) {
    damage_.switch_down.resize(topology.switches.size());
    damage_.link_down.resize(topology.links.size());
    damage_.nic_down.resize(static_cast<std::size_t>(topology.endpoints()));
    damage_.port_down.resize(topology.attach.size());
    plane_down_.resize(static_cast<std::size_t>(planes_are_rails() ? topology.spec.gpus_per_node
                                                                   : topology.planes));
  }

  void apply(const Fault& fault) {
    for (const int part : draw(fault)) {
      down(fault.part)[static_cast<std::size_t>(part)] = 1;
      if (fault.part == Part::kPlane) take_plane_down(part);
    }
    spread_over_links();
    spread_over_nics();
  }

  Damage counted() {
    const auto count = [](const std::vector<char>& flags) {
      return static_cast<std::int64_t>(std::count(flags.begin(), flags.end(), 1));
    };
    damage_.switches = count(damage_.switch_down);
    damage_.links = count(damage_.link_down);
    damage_.nics = count(damage_.nic_down);
    damage_.ports = count(damage_.port_down);
    return std::move(damage_);
  }

 private:
  bool planes_are_rails() const { return topology_.spec.kind == Kind::kMrft; }

  std::vector<char>& down(Part part) {
    switch (part) {
      case Part::kPlane:
        return plane_down_;
      case Part::kLink:
        return damage_.link_down;
      case Part::kNic:
        return damage_.nic_down;
      case Part::kPort:
        return damage_.port_down;
      default:
        return damage_.switch_down;
    }
  }

  // The numbers of all parts of a kind, in down()'s list.
  std::vector<int> all(Part part) {
    std::vector<int> numbers(down(part).size());
    std::iota(numbers.begin(), numbers.end(), 0);
    if (part != Part::kLeaf && part != Part::kSpine && part != Part::kCore) return numbers;
    const Tier tier = part == Part::kLeaf    ? Tier::kLeaf
                      : part == Part::kSpine ? Tier::kSpine
                                             : Tier::kCore;
    std::erase_if(numbers, [&](int s) {
      return topology_.switches[static_cast<std::size_t>(s)].tier != tier;
    });
    return numbers;
  }

  // Which parts fail: of those that are up, drawn by the seed, in order.
  std::vector<int> draw(const Fault& fault) {
    std::vector<int> parts = all(fault.part);
    const std::size_t there = parts.size();
    const std::vector<char>& gone = down(fault.part);
    std::erase_if(parts, [&](int p) { return gone[static_cast<std::size_t>(p)] != 0; });
    const std::size_t count = wanted(topology_, fault, there, parts.size());
    const Rng random(seed_, stream_of(name(fault.part)));
    // A kind that fails twice goes on in its numbers: with the same ones again, the parts beside
    // the first would fail.
    std::uint64_t& number = numbers_used_[static_cast<std::size_t>(fault.part)];
    for (std::size_t i = 0; i < count; ++i) {
      std::swap(parts[i], parts[i + random.below(number++, parts.size() - i)]);
    }
    parts.resize(count);
    return parts;
  }

  void take_plane_down(int plane) {
    if (planes_are_rails()) {
      for (std::size_t e = 0; e < damage_.nic_down.size(); ++e) {
        if (static_cast<int>(e) % topology_.spec.gpus_per_node == plane) damage_.nic_down[e] = 1;
      }
      return;
    }
    for (std::size_t s = 0; s < topology_.switches.size(); ++s) {
      if (topology_.switches[s].plane == plane) damage_.switch_down[s] = 1;
    }
  }

  // A switch takes its links down.
  void spread_over_links() {
    for (std::size_t l = 0; l < topology_.links.size(); ++l) {
      const Link& link = topology_.links[l];
      if (damage_.switch_down[static_cast<std::size_t>(link.a)] ||
          damage_.switch_down[static_cast<std::size_t>(link.b)]) {
        damage_.link_down[l] = 1;
      }
    }
  }

  // A switch takes the ports below it down, a NIC its ports, and its last port the NIC.
  void spread_over_nics() {
    for (std::int64_t e = 0; e < topology_.endpoints(); ++e) {
      char& nic = damage_.nic_down[static_cast<std::size_t>(e)];
      int up = 0;
      for (int p = 0; p < topology_.spec.nic_ports; ++p) {
        char& port = damage_.port_down[topology_.port(e, p)];
        const int at = topology_.attach[topology_.port(e, p)];
        if (nic || damage_.switch_down[static_cast<std::size_t>(at)]) port = 1;
        up += port == 0;
      }
      if (up == 0) nic = 1;
    }
  }

  const Topology& topology_;
  std::uint64_t seed_;
  Damage damage_;
  std::vector<char> plane_down_;
  std::array<std::uint64_t, 7> numbers_used_{};  // [parts]
};

}  // namespace

Damage apply(const Topology& topology, std::span<const Fault> faults, std::uint64_t seed) {
  Breaker breaker(topology, seed);
  for (const Fault& fault : faults) breaker.apply(fault);
  return breaker.counted();
}

}  // namespace cachalot::network
