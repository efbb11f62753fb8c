#include <algorithm>
#include <string>

#include "base/error.h"
#include "base/grouped.h"
#include "network/galois.h"
#include "network/topology_parts.h"

namespace cachalot::network {

namespace {

// A switch of kMostPorts has too few for more than q = 113; beyond this, numbers would not fit.
constexpr int kMostQ = 256;

// What q gives: 2q^2 switches with k' links each and room for p = ceil(k'/2) endpoints.
struct Sizes {
  int q, delta, links, endpoints;  // links and endpoints of one switch
  int radix() const { return links + endpoints; }
  std::int64_t capacity() const { return std::int64_t{2} * q * q * endpoints; }
};

// q = 4w + delta with delta in {-1, 0, 1}: false for q = 4w + 2, and for more than kMostQ.
bool sizes_of(int q, Sizes& sizes) {
  if (q < 3 || q > kMostQ || q % 4 == 2) return false;
  const int delta = q % 4 == 3 ? -1 : q % 4;
  const int links = (3 * q - delta) / 2;
  sizes = {q, delta, links, (links + 1) / 2};
  return true;
}

bool realisable(int q) {
  Sizes unused{};
  return sizes_of(q, unused) && prime_power(q).p != 0;
}

std::string describe(int q) {
  Sizes s{};
  sizes_of(q, s);
  return cat("q = ", q, " (", s.links, " + ", s.endpoints, " = ", s.radix(), " ports, ",
             grouped(s.capacity()), " endpoints)");
}

void check_q(const TopologySpec& spec) {
  if (spec.q < 0 || spec.q > kMostQ) {
    throw Error(Code::kUsage,
                cat("--q ", spec.q, ": must be 3 to ", kMostQ,
                    ", or 0 for the largest that the ports allow (the smallest with room for "
                    "--endpoints)."));
  }
  if (!realisable(spec.q)) {
    int below = spec.q - 1, above = spec.q + 1;
    while (below >= 3 && !realisable(below)) --below;
    while (!realisable(above)) ++above;
    throw Error(
        Code::kUsage,
        cat("--q ", spec.q, ": the MMS graph of Slim Fly needs a prime power q = 4w - 1, 4w or ",
            "4w + 1, and ", spec.q, " is none. The nearest are ",
            below >= 3 ? describe(below) + " and " : std::string(), describe(above), "."));
  }
  Sizes s{};
  sizes_of(spec.q, s);
  if (s.radix() > spec.ports) {
    throw Error(Code::kUsage,
                cat("--q ", spec.q, " needs ", s.links, " links and ", s.endpoints,
                    " endpoints at a switch, ", s.radix(), " ports; --ports is ", spec.ports, ", ",
                    s.radix() - spec.ports, " too few. Use a smaller q, or more ports."));
  }
}

// The smallest q with room for the endpoints, or the largest that the ports allow.
int choose_q(const TopologySpec& spec) {
  int best = 0;
  for (int q = 3;; ++q) {
    Sizes s{};
    if (!sizes_of(q, s)) continue;
    if (s.radix() > spec.ports) break;
    if (!realisable(q)) continue;
    best = q;
    if (spec.endpoints > 0 && s.capacity() >= spec.endpoints) break;
  }
  if (best == 0) {
    throw Error(Code::kUsage, cat("--ports ", spec.ports, ": the smallest Slim Fly, ", describe(3),
                                  ", does not fit. Use 8 ports or more."));
  }
  return best;
}

// The generator sets X and X' of the two halves (Besta & Hoefler; Hafner's construction).
void generators(const GaloisField& field, int delta, std::vector<int>& x, std::vector<int>& x2) {
  const int q = field.order();
  if (delta == 1) {  // even powers, odd powers
    for (int n = 0; n <= q - 3; n += 2) x.push_back(field.power(n));
    for (int n = 1; n <= q - 2; n += 2) x2.push_back(field.power(n));
  } else if (delta == 0) {  // in characteristic 2, both hold 1
    for (int n = 0; n <= q - 2; n += 2) x.push_back(field.power(n));
    for (int n = 1; n <= q - 1; n += 2) x2.push_back(field.power(n));
  } else {  // q = 4w - 1: -1 is no square, so the sets change parity half way to stay symmetric
    const int w = (q + 1) / 4;
    for (int n = 0; n <= 2 * w - 2; n += 2) x.push_back(field.power(n));
    for (int n = 2 * w - 1; n <= 4 * w - 3; n += 2) x.push_back(field.power(n));
    for (int n = 1; n <= 2 * w - 1; n += 2) x2.push_back(field.power(n));
    for (int n = 2 * w; n <= 4 * w - 2; n += 2) x2.push_back(field.power(n));
  }
}

void connect_half(Topology& topology, const GaloisField& field, const std::vector<int>& set,
                  int first) {
  const int q = field.order();
  for (int column = 0; column < q; ++column) {
    for (int y = 0; y < q; ++y) {
      for (const int difference : set) {
        const int other = field.add(y, difference);
        if (other <= y) continue;  // the set is symmetric: each pair is met from both ends
        topology.links.push_back({first + column * q + y, first + column * q + other});
      }
    }
  }
}

}  // namespace

bool slim_fly_counts(int q, SlimFlyCounts& counts) {
  Sizes s{};
  if (!sizes_of(q, s)) return false;
  const std::int64_t switches = std::int64_t{2} * q * q;
  counts = {s.capacity(), switches, switches * s.links / 2, s.radix(), realisable(q)};
  return true;
}

void build_slim_fly(Topology& topology) {
  TopologySpec& spec = topology.spec;
  if (spec.q != 0) {
    check_q(spec);
  } else {
    spec.q = choose_q(spec);
  }
  Sizes s{};
  sizes_of(spec.q, s);
  TopologySpec largest = spec;
  largest.endpoints = 0;
  Sizes full{};
  sizes_of(choose_q(largest), full);
  topology.capacity = full.capacity();
  if (spec.endpoints > s.capacity()) {
    too_many_endpoints(spec, spec.endpoints, s.capacity(),
                       s.q < full.q
                           ? cat("The largest that these ports allow is ", describe(full.q), ".")
                           : "Use switches with more ports, or --kind dragonfly.");
  }
  if (spec.endpoints == 0) spec.endpoints = s.capacity();

  const int q = s.q;
  const GaloisField field(q);
  std::vector<int> x, x2;
  generators(field, s.delta, x, x2);
  for (int i = 0; i < 2 * q * q; ++i) topology.switches.push_back({0, i / (q * q), Tier::kLeaf});
  connect_half(topology, field, x, 0);
  connect_half(topology, field, x2, q * q);
  // (0, c, y) meets (1, m, z) where y = m c + z.
  for (int column = 0; column < q; ++column) {
    for (int m = 0; m < q; ++m) {
      for (int z = 0; z < q; ++z) {
        const int y = field.add(field.multiply(m, column), z);
        topology.links.push_back({column * q + y, q * q + m * q + z});
      }
    }
  }
  topology.notes.push_back(
      cat(describe(q), "; ", spec.ports - s.radix(), " ports of a switch stay free"));

  // Fewer endpoints than fit are spread over all switches, as evenly as it goes, neighbours
  // together.
  const auto switches = static_cast<std::int64_t>(topology.switches.size());
  topology.attach.resize(static_cast<std::size_t>(spec.endpoints));
  topology.slot.resize(static_cast<std::size_t>(spec.endpoints));
  for (std::int64_t e = 0; e < spec.endpoints; ++e) {
    topology.slot[static_cast<std::size_t>(e)] = static_cast<int>(e);
    topology.attach[static_cast<std::size_t>(e)] = static_cast<int>(e * switches / spec.endpoints);
  }
}

}  // namespace cachalot::network
