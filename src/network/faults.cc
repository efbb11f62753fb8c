#include "network/faults.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/fields_text.h"
#include "base/rng.h"

namespace cachalot::network {

namespace {

constexpr std::array<std::string_view, 7> kParts{"plane", "leaf", "spine", "core",
                                                 "links", "nic",  "port"};

Part part_of(std::string_view word) {
  for (std::size_t i = 0; i < kParts.size(); ++i) {
    if (word == kParts[i] || (word.size() > 1 && word.substr(0, word.size() - 1) == kParts[i]) ||
        (kParts[i] == "links" && word == "link")) {
      return static_cast<Part>(i);
    }
  }
  const std::string near = nearest(word, kParts.data(), kParts.data() + kParts.size());
  throw Error(Code::kUsage, cat("--fail ", printable(word),
                                ": what can fail is plane, leaf, spine, core, links, nic and port",
                                near.empty() ? "." : cat("; did you mean `", near, "`?")));
}

Fault parse_fault(std::string_view item) {
  const std::size_t colon = item.find(':');
  Fault fault;
  fault.part = part_of(item.substr(0, colon));
  if (colon == std::string_view::npos) return fault;
  std::string_view number = item.substr(colon + 1);
  if (number.ends_with('%')) {
    fault.percent = true;
    number.remove_suffix(1);
  }
  const auto [end, error] =
      std::from_chars(number.data(), number.data() + number.size(), fault.amount);
  const bool whole = fault.percent || fault.amount == std::floor(fault.amount);
  const bool fits = fault.amount >= 0 && fault.amount <= (fault.percent ? 100 : 1e9);
  if (error != std::errc() || end != number.data() + number.size() || !whole || !fits) {
    throw Error(Code::kUsage,
                cat("--fail ", printable(item),
                    ": after the colon stands a whole number or a share of 0 % to 100 %, "
                    "as in plane:1 or links:1%."));
  }
  return fault;
}

// `count` of `from`, drawn by the seed, in order.
std::vector<int> draw(std::vector<int> from, const Fault& fault, std::uint64_t seed,
                      std::string_view what, const Topology& topology) {
  const double wanted = fault.percent
                            ? std::ceil(fault.amount / 100 * static_cast<double>(from.size()))
                            : fault.amount;
  if (wanted > static_cast<double>(from.size())) {
    throw Error(Code::kUsage,
                cat("--fail ", what, ":", fault.amount, ": this ", name(topology.spec.kind),
                    " has ", from.size(), ". Ask for at most ", from.size(), "."));
  }
  const auto count = static_cast<std::size_t>(wanted);
  const Rng random(seed, stream_of(what));
  for (std::size_t i = 0; i < count; ++i) {
    std::swap(from[i], from[i + random.below(i, from.size() - i)]);
  }
  from.resize(count);
  return from;
}

std::vector<int> numbers(std::size_t count) {
  std::vector<int> all(count);
  std::iota(all.begin(), all.end(), 0);
  return all;
}

std::vector<int> switches_of(const Topology& topology, Tier tier) {
  std::vector<int> found;
  for (std::size_t s = 0; s < topology.switches.size(); ++s) {
    if (topology.switches[s].tier == tier) found.push_back(static_cast<int>(s));
  }
  return found;
}

void take_plane_down(const Topology& topology, int plane, Damage& damage) {
  if (topology.spec.kind == Kind::kMrft) {
    for (std::size_t e = 0; e < damage.nic_down.size(); ++e) {
      if (static_cast<int>(e) % topology.spec.gpus_per_node == plane) damage.nic_down[e] = 1;
    }
    return;
  }
  for (std::size_t s = 0; s < topology.switches.size(); ++s) {
    if (topology.switches[s].plane == plane) damage.switch_down[s] = 1;
  }
}

}  // namespace

std::vector<Fault> parse_faults(std::string_view text) {
  std::vector<Fault> faults;
  if (text.empty() || text == "none") return faults;
  for (;;) {
    const std::size_t comma = text.find(',');
    faults.push_back(parse_fault(text.substr(0, comma)));
    if (comma == std::string_view::npos) return faults;
    text.remove_prefix(comma + 1);
  }
}

std::string to_string(std::span<const Fault> faults) {
  std::string text;
  for (const Fault& fault : faults) {
    text += cat(text.empty() ? "" : ",", kParts[static_cast<std::size_t>(fault.part)], ":",
                fault.amount, fault.percent ? "%" : "");
  }
  return text.empty() ? "none" : text;
}

Damage apply(const Topology& topology, std::span<const Fault> faults, std::uint64_t seed) {
  Damage damage;
  damage.switch_down.resize(topology.switches.size());
  damage.link_down.resize(topology.links.size());
  damage.nic_down.resize(static_cast<std::size_t>(topology.endpoints()));
  damage.port_down.resize(topology.attach.size());
  for (const Fault& fault : faults) {
    const std::string_view what = kParts[static_cast<std::size_t>(fault.part)];
    const auto drawn = [&](std::vector<int> from) {
      return draw(std::move(from), fault, seed, what, topology);
    };
    switch (fault.part) {
      case Part::kPlane: {
        const bool rails = topology.spec.kind == Kind::kMrft;
        const int planes = rails ? topology.spec.gpus_per_node : topology.planes;
        for (const int p : drawn(numbers(static_cast<std::size_t>(planes)))) {
          take_plane_down(topology, p, damage);
        }
        break;
      }
      case Part::kLeaf:
      case Part::kSpine:
      case Part::kCore: {
        const Tier tier = fault.part == Part::kLeaf    ? Tier::kLeaf
                          : fault.part == Part::kSpine ? Tier::kSpine
                                                       : Tier::kCore;
        for (const int s : drawn(switches_of(topology, tier))) {
          damage.switch_down[static_cast<std::size_t>(s)] = 1;
        }
        break;
      }
      case Part::kLink:
        for (const int l : drawn(numbers(topology.links.size()))) {
          damage.link_down[static_cast<std::size_t>(l)] = 1;
        }
        break;
      case Part::kNic:
        for (const int e : drawn(numbers(damage.nic_down.size()))) {
          damage.nic_down[static_cast<std::size_t>(e)] = 1;
        }
        break;
      case Part::kPort:
        for (const int p : drawn(numbers(damage.port_down.size()))) {
          damage.port_down[static_cast<std::size_t>(p)] = 1;
        }
        break;
    }
  }
  for (std::size_t l = 0; l < topology.links.size(); ++l) {
    const Link& link = topology.links[l];
    if (damage.switch_down[static_cast<std::size_t>(link.a)] ||
        damage.switch_down[static_cast<std::size_t>(link.b)]) {
      damage.link_down[l] = 1;
    }
  }
  for (std::int64_t e = 0; e < topology.endpoints(); ++e) {
    char& nic = damage.nic_down[static_cast<std::size_t>(e)];
    int up = 0;
    for (int p = 0; p < topology.spec.nic_ports; ++p) {
      char& port = damage.port_down[topology.port(e, p)];
      const int at = topology.attach[topology.port(e, p)];
      if (nic || damage.switch_down[static_cast<std::size_t>(at)]) port = 1;
      up += port == 0;
    }
    if (up == 0) nic = 1;
  }
  const auto count = [](const std::vector<char>& down) {
    return static_cast<std::int64_t>(std::count(down.begin(), down.end(), 1));
  };
  damage.switches = count(damage.switch_down);
  damage.links = count(damage.link_down);
  damage.nics = count(damage.nic_down);
  damage.ports = count(damage.port_down);
  return damage;
}

}  // namespace cachalot::network
