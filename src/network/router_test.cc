#include "network/router.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/rng.h"
#include "network/carrier.h"

namespace cachalot::network {
namespace {

Topology of(Kind kind, int ports, std::int64_t endpoints = 0) {
  TopologySpec spec;
  spec.kind = kind;
  spec.ports = ports;
  spec.endpoints = endpoints;
  return build(spec);
}

Damage damage_of(const Topology& t, const char* faults) {
  return apply(t, parse_faults(faults), 1);
}

// The switches a way passes; fails where its links do not join.
int end_of(const Topology& t, int at, const Way& way) {
  for (const int resource : way.trunks) {
    const int index = resource - 4 * static_cast<int>(t.endpoints());
    const Link& link = t.links[static_cast<std::size_t>(index / 2)];
    EXPECT_EQ(index % 2 == 0 ? link.a : link.b, at);
    at = index % 2 == 0 ? link.b : link.a;
  }
  return at;
}

TEST(Router, WaysJoinTheirEndsOnEveryKindAndPolicy) {
  const Rng random(1);
  for (const Kind kind : kKinds) {
    const Topology t = of(kind, 16, kind == Kind::kFt2 || kind == Kind::kSlimFly ? 128 : 256);
    for (const Routing routing :
         {Routing::kEcmp, Routing::kFixed, Routing::kAdaptive, Routing::kValiant, Routing::kUgal}) {
      for (const char* faults : {"", "links:10%"}) {
        const Fabric fabric(t, {}, damage_of(t, faults));
        Router router(fabric, routing, 4, 1);
        for (std::uint64_t i = 0; i < 200; ++i) {
          const int from = static_cast<int>(random.below(2 * i, 128));
          const int to = static_cast<int>(random.below(2 * i + 1, 128));
          if (!router.reachable(from, to)) continue;
          double share = 0;
          for (const Way& way : router.ways(from, to, 1e6, i)) {
            EXPECT_EQ(end_of(t, t.attach[static_cast<std::size_t>(from)], way),
                      t.attach[static_cast<std::size_t>(to)]);
            for (const int r : way.trunks)
              EXPECT_GT(fabric.capacity()[static_cast<std::size_t>(r)], 0);
            share += way.share;
          }
          EXPECT_DOUBLE_EQ(share, 1);
        }
      }
    }
  }
}

TEST(Router, ANicWithSeveralPortsTakesEveryPlane) {
  TopologySpec spec;
  spec.ports = 16;
  spec.planes = spec.nic_ports = 4;
  const Topology t = build(spec);
  for (const int down : {0, 1, 3}) {
    const Fabric fabric(t, {}, damage_of(t, cat("plane:", down).c_str()));
    for (const Routing routing : {Routing::kEcmp, Routing::kFixed, Routing::kAdaptive}) {
      Router router(fabric, routing, /*spray=*/1, 1);
      std::map<int, double> by_port;  // of all flows
      for (int to = 1; to < 128; ++to) {
        ASSERT_TRUE(router.reachable(0, to));
        double share = 0;
        for (const Way& way : router.ways(0, to, 1e6, 0)) {
          EXPECT_TRUE(fabric.port_up(0, way.port_out));
          EXPECT_TRUE(fabric.port_up(to, way.port_in));
          const int begin = t.attach[t.port(0, way.port_out)];
          EXPECT_EQ(end_of(t, begin, way), t.attach[t.port(to, way.port_in)]);
          by_port[way.port_out] += way.share;
          share += way.share;
        }
        EXPECT_NEAR(share, 1, 1e-12);
      }
      EXPECT_EQ(by_port.size(), static_cast<std::size_t>(4 - down));
      if (routing == Routing::kEcmp) continue;  // as hashes fall
      for (const auto& [port, flows] : by_port) EXPECT_NEAR(flows, 127.0 / (4 - down), 1) << port;
    }
  }
}

// Every endpoint of one leaf to the same place of the next leaf: as many flows as uplinks.
std::size_t fullest_link(const Topology& t, Routing routing) {
  const Fabric fabric(t, {}, damage_of(t, ""));
  Router router(fabric, routing, 1, 1);
  std::map<int, std::size_t> flows;
  const int half = t.spec.ports / 2, n = static_cast<int>(t.endpoints());
  for (int e = 0; e < n; ++e) {
    for (const Way& way : router.ways(e, (e + half) % n, 1e6, 0)) {
      for (const int r : way.trunks) ++flows[r];
    }
  }
  std::size_t most = 0;
  for (const auto& [link, count] : flows) most = std::max(most, count);
  return most;
}

TEST(Router, RegularTrafficDoesNotCollideButUnderHashing) {
  for (const std::int64_t endpoints : {128, 64, 32}) {  // fewer: parallel links to fewer spines
    const Topology t = of(Kind::kFt2, 16, endpoints);
    EXPECT_EQ(fullest_link(t, Routing::kFixed), 1u) << endpoints;
    EXPECT_EQ(fullest_link(t, Routing::kAdaptive), 1u) << endpoints;
    EXPECT_GE(fullest_link(t, Routing::kEcmp), 2u) << endpoints;
  }
  EXPECT_EQ(fullest_link(of(Kind::kFt3, 8), Routing::kFixed), 1u);
}

// All of one dragonfly group to the next: the adversary of shortest ways, which share the few links
// between the two groups. Returns the fullest link's flows, and the links of all ways.
std::pair<double, std::size_t> group_to_group(Routing routing) {
  const Topology t = of(Kind::kDragonfly, 16);
  const Fabric fabric(t, {}, damage_of(t, ""));
  Router router(fabric, routing, 4, 1);
  const int p = 4, group = p * 2 * p;  // endpoints of a switch and of a group
  std::map<int, double> flows;
  std::size_t links = 0;
  for (int e = 0; e < group; ++e) {
    for (const Way& way : router.ways(e, e + group, 1e6, 0)) {
      links += way.trunks.size();
      std::vector<int> once = way.trunks;
      std::sort(once.begin(), once.end());
      EXPECT_EQ(std::unique(once.begin(), once.end()), once.end());
      for (const int r : way.trunks) flows[r] += way.share;
    }
  }
  double most = 0;
  for (const auto& [link, count] : flows) most = std::max(most, count);
  return {most, links};
}

TEST(Router, LongerWaysSpreadWhatShortestOnesConcentrate) {
  const auto [shortest, few] = group_to_group(Routing::kAdaptive);
  const auto [valiant, many] = group_to_group(Routing::kValiant);
  const auto [ugal, some] = group_to_group(Routing::kUgal);
  // One link between two of the 33 groups; few switches have a way over two others as short.
  EXPECT_GE(shortest, 28);
  EXPECT_LT(valiant, shortest / 3);
  EXPECT_LT(ugal, shortest / 3);
  EXPECT_GT(many, few);
  EXPECT_GT(some, few);
}

TEST(Router, EvenTrafficTakesShortestWaysUnderUgal) {
  const Topology t = of(Kind::kSlimFly, 16, 128);
  const Fabric fabric(t, {}, damage_of(t, ""));
  Router adaptive(fabric, Routing::kAdaptive, 1, 1), ugal(fabric, Routing::kUgal, 1, 1);
  const int n = static_cast<int>(t.endpoints());
  EXPECT_EQ(adaptive.ways(0, n / 2, 1e6, 0)[0].trunks, ugal.ways(0, n / 2, 1e6, 0)[0].trunks);
}

TEST(Carrier, CrossesPlanesInsideTheNode) {
  const Topology t = of(Kind::kMpft, 16, 128);
  const Fabric fabric(t, {}, damage_of(t, ""));
  Router router(fabric, Routing::kFixed, 1, 1);
  Carrier carrier(fabric, router);
  carrier.send(/*from=*/1, /*to=*/8 * 3 + 5, 100, 0);
  ASSERT_EQ(carrier.flows().size(), 2u);
  const std::vector<int>&wire = carrier.flows()[0].path, &hop = carrier.flows()[1].path;
  EXPECT_EQ(wire.front(), fabric.nic_out(5));
  EXPECT_EQ(wire.back(), fabric.nic_in(8 * 3 + 5));
  EXPECT_EQ(hop, (std::vector<int>{fabric.nvlink_out(1), fabric.nvlink_in(5)}));
  EXPECT_EQ(carrier.flows()[1].tag, 1);
}

TEST(Carrier, GoesAroundADeadNic) {
  const Topology t = of(Kind::kMpft, 16, 128);
  Damage damage = damage_of(t, "");
  damage.nic_down[8 * 3 + 5] = 1;
  const Fabric fabric(t, {}, damage);
  Router router(fabric, Routing::kFixed, 1, 1);
  Carrier carrier(fabric, router);
  carrier.send(/*from=*/5, /*to=*/8 * 3 + 5, 700, 0);
  // Seven ways over the other planes, with a hop before and after each.
  EXPECT_EQ(carrier.flows().size(), 21u);
  for (const Flow& f : carrier.flows()) EXPECT_DOUBLE_EQ(f.bytes, 100);
  EXPECT_EQ(carrier.lost_bytes(), 0);
}

// Which NICs carry what, where parts are down. At first two nodes of four GPUs on leaves of two: a
// leaf without uplinks cuts two GPUs of one node off whose NICs are up.
struct SmallNet {
  Topology topology;
  Damage damage;

  SmallNet() {
    TopologySpec spec;
    spec.kind = Kind::kFt2;
    spec.ports = 4;
    spec.gpus_per_node = 4;
    spec.endpoints = 8;
    topology = build(spec);
    damage = damage_of(topology, "");
  }
  void isolate_leaf_of(int gpu) {
    const int leaf = topology.attach[static_cast<std::size_t>(gpu)];
    for (std::size_t l = 0; l < topology.links.size(); ++l) {
      if (topology.links[l].a == leaf || topology.links[l].b == leaf) damage.link_down[l] = 1;
    }
  }
  // NICs that carry what goes from one GPU to the other, as out and in.
  std::vector<std::pair<int, int>> carried(int from, int to) const {
    const Fabric fabric(topology, {}, damage);
    Router router(fabric, Routing::kFixed, 1, 1);
    Carrier carrier(fabric, router);
    std::vector<std::pair<int, int>> nics;
    double share = 0;
    for (const Carried& part : carrier.between_nodes(from, to, 100, 0)) {
      nics.emplace_back(part.out, part.in);
      share += part.share;
    }
    EXPECT_NEAR(share, nics.empty() ? 0 : 1, 1e-12);
    EXPECT_EQ(carrier.lost_bytes(), nics.empty() ? 100 : 0);
    return nics;
  }
};
using Nics = std::vector<std::pair<int, int>>;

TEST(Carrier, GoesAroundALeafWithoutUplinks) {
  SmallNet net;
  EXPECT_EQ(net.carried(0, 4), (Nics{{0, 4}}));
  net.isolate_leaf_of(0);
  EXPECT_EQ(net.carried(0, 4), (Nics{{2, 4}, {3, 4}}));
  EXPECT_EQ(net.carried(4, 0), (Nics{{4, 2}, {4, 3}}));
  EXPECT_EQ(net.carried(2, 4), (Nics{{2, 4}}));
  net.isolate_leaf_of(4);  // the same half of the other node: its other half is what both have
  EXPECT_EQ(net.carried(0, 4), (Nics{{2, 6}, {3, 7}}));
}

TEST(Carrier, TakesAnyPairOfNicsBeforeItGivesUp) {
  SmallNet net;
  net.isolate_leaf_of(0);
  net.isolate_leaf_of(6);  // no place has both of its NICs left
  EXPECT_EQ(net.carried(0, 6), (Nics{{2, 4}, {2, 5}, {3, 4}, {3, 5}}));
  net.isolate_leaf_of(2);  // all of the first node
  EXPECT_EQ(net.carried(0, 6), Nics{});
}

// On rails: NICs of two nodes that are down on different rails leave no rail whole.
TEST(Carrier, LeavesItsRailWhereNoneIsWhole) {
  TopologySpec spec;
  spec.kind = Kind::kMrft;
  spec.gpus_per_node = 2;
  spec.endpoints = 4;
  SmallNet net;
  net.topology = build(spec);
  net.damage = damage_of(net.topology, "");
  net.damage.nic_down[0] = net.damage.nic_down[3] = 1;
  EXPECT_EQ(net.carried(0, 3), (Nics{{1, 2}}));
  EXPECT_EQ(net.carried(1, 2), (Nics{{1, 2}}));
  spec.kind = Kind::kMpft;  // two rails in each of four planes
  spec.gpus_per_node = 8;
  spec.planes = 4;
  spec.endpoints = 16;
  net.topology = build(spec);
  net.damage = damage_of(net.topology, "nic:16");
  net.damage.nic_down[1] = net.damage.nic_down[8 + 5] = 0;  // both in plane 1
  EXPECT_EQ(net.carried(0, 8), (Nics{{1, 13}}));
  net.damage.nic_down[8 + 5] = 1;
  net.damage.nic_down[8 + 6] = 0;  // in plane 2
  EXPECT_EQ(net.carried(0, 8), Nics{});
}

TEST(Carrier, SaysWhatIsCutOff) {
  const Topology t = of(Kind::kFt2, 16, 128);
  const Damage damage = damage_of(t, "leaf:1");  // a leaf of 8 is one node
  const Fabric fabric(t, {}, damage);
  Router router(fabric, Routing::kFixed, 1, 1);
  Carrier carrier(fabric, router);
  for (int e = 0; e < 128; ++e) carrier.send(e, (e + 8) % 128, 100, e);
  EXPECT_EQ(carrier.cut_off().size(), 8u);
  EXPECT_EQ(carrier.lost_bytes(), 1600);
}

}  // namespace
}  // namespace cachalot::network
