#include "network/topology.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <vector>

#include "base/error.h"
#include "network/graph_metrics.h"

namespace cachalot::network {
namespace {

TopologySpec spec_of(Kind kind, int ports = 64, std::int64_t endpoints = 0) {
  TopologySpec spec;
  spec.kind = kind;
  spec.ports = ports;
  spec.endpoints = endpoints;
  return spec;
}

std::string error_of(const TopologySpec& spec) {
  try {
    build(spec);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kUsage);
    return e.what();
  }
  return "no error";
}

// What every network must keep: ports, endpoints on leaves, every endpoint's place its own.
void check_sound(const Topology& t) {
  EXPECT_LE(t.ports_used, t.spec.ports);
  EXPECT_EQ(t.attach.size(), t.slot.size());
  EXPECT_EQ(t.attach.size(), static_cast<std::size_t>(t.endpoints() * t.spec.nic_ports));
  std::set<std::pair<int, int>> slots;
  for (std::size_t e = 0; e < t.attach.size(); ++e) {
    const Switch& at = t.switches.at(static_cast<std::size_t>(t.attach[e]));
    EXPECT_EQ(at.tier, Tier::kLeaf);
    EXPECT_TRUE(slots.emplace(at.plane, t.slot[e]).second);
  }
  for (const Link& link : t.links) {
    EXPECT_NE(link.a, link.b);
    EXPECT_EQ(t.switches.at(static_cast<std::size_t>(link.a)).plane,
              t.switches.at(static_cast<std::size_t>(link.b)).plane);
  }
}

TEST(Topology, FullFatTreesMatchTheirClosedForms) {
  for (const int k : {4, 6, 8, 16, 32, 64}) {
    const std::int64_t n = k;
    const Topology ft2 = build(spec_of(Kind::kFt2, k));
    EXPECT_EQ(ft2.endpoints(), n * n / 2);
    EXPECT_EQ(ft2.switches.size(), static_cast<std::size_t>(3 * n / 2));
    EXPECT_EQ(ft2.links.size(), static_cast<std::size_t>(n * n / 2));
    EXPECT_EQ(diameter(ft2), 2);
    EXPECT_EQ(bisection(ft2), n * n / 4);
    EXPECT_EQ(ft2.ports_used, k);
    check_sound(ft2);
    if (k > 32) continue;
    const Topology ft3 = build(spec_of(Kind::kFt3, k));
    EXPECT_EQ(ft3.endpoints(), n * n * n / 4);
    EXPECT_EQ(ft3.switches.size(), static_cast<std::size_t>(5 * n * n / 4));
    EXPECT_EQ(ft3.links.size(), static_cast<std::size_t>(2 * n * n * n / 4));
    EXPECT_EQ(diameter(ft3), 4);
    EXPECT_EQ(bisection(ft3), n * n * n / 8);
    EXPECT_EQ(ft3.ports_used, k);
    check_sound(ft3);
  }
}

TEST(Topology, PlanesAreSeparateFatTrees) {
  TopologySpec spec = spec_of(Kind::kMpft, 16);
  const Topology t = build(spec);
  EXPECT_EQ(t.endpoints(), 8 * 128);
  EXPECT_EQ(t.switches.size(), 8u * 24);
  EXPECT_EQ(t.links.size(), 8u * 128);
  EXPECT_EQ(t.planes, 8);
  EXPECT_EQ(bisection(t), 8 * 64);
  check_sound(t);
  for (std::size_t e = 0; e < t.attach.size(); ++e) {  // GPU i of each node hangs in plane i
    EXPECT_EQ(t.switches[static_cast<std::size_t>(t.attach[e])].plane, static_cast<int>(e % 8));
  }
  spec.planes = 4;  // two NICs of a node in one plane
  spec.endpoints = 256;
  const Topology half = build(spec);
  check_sound(half);
  EXPECT_EQ(half.endpoints(), 256);
}

// The planes that the ports of one NIC are in.
std::vector<int> planes_of(const Topology& t, std::int64_t endpoint) {
  std::vector<int> planes;
  for (int p = 0; p < t.spec.nic_ports; ++p) {
    planes.push_back(t.switches[static_cast<std::size_t>(t.attach[t.port(endpoint, p)])].plane);
  }
  return planes;
}

TEST(Topology, ANicMayHaveAPortInEveryPlane) {
  TopologySpec spec = spec_of(Kind::kMpft, 16);
  spec.planes = spec.nic_ports = 4;
  const Topology t = build(spec);
  EXPECT_EQ(t.endpoints(), 128);  // as many as one plane of them has ports
  EXPECT_EQ(t.switches.size(), 4u * 24);
  EXPECT_FALSE(t.planes_apart());
  EXPECT_FALSE(t.has_rails());
  check_sound(t);
  for (int e = 0; e < 128; ++e) {
    EXPECT_THAT(planes_of(t, e), ::testing::UnorderedElementsAre(0, 1, 2, 3)) << e;
  }
  EXPECT_EQ(bisection(t), 4 * 64);
  spec.endpoints = 36;  // a last node that is not full
  check_sound(build(spec));
}

TEST(Topology, ANicMayHavePortsInSomePlanes) {
  TopologySpec spec = spec_of(Kind::kMpft, 16);
  spec.nic_ports = 4;  // of 8 planes
  const Topology t = build(spec);
  EXPECT_EQ(t.endpoints(), 256);
  EXPECT_TRUE(t.planes_apart());
  check_sound(t);
  EXPECT_EQ(planes_of(t, 8), (std::vector<int>{0, 1, 2, 3}));
  EXPECT_EQ(planes_of(t, 9), (std::vector<int>{4, 5, 6, 7}));
  EXPECT_EQ(planes_of(t, 10), (std::vector<int>{0, 1, 2, 3}));
  spec.nic_ports = 3;  // every rail has other planes, and planes take as many ports each
  check_sound(build(spec));
}

TEST(Topology, SmallerNetworksStayNonBlocking) {
  for (const std::int64_t endpoints : {8, 16, 136, 256, 400, 1024}) {
    for (const Kind kind : {Kind::kFt2, Kind::kMpft, Kind::kMrft, Kind::kFt3}) {
      const std::int64_t fit = kind == Kind::kFt2 ? 128 : 1024;
      if (endpoints > fit) continue;
      const Topology t = build(spec_of(kind, 16, endpoints));
      SCOPED_TRACE(std::string(name(kind)) + " " + std::to_string(endpoints));
      check_sound(t);
      EXPECT_EQ(t.endpoints(), endpoints);
      EXPECT_GE(diameter(t), 0);
      // Planes whose endpoints hang on one leaf have no links to cut, and need none.
      if (!t.links.empty() && kind != Kind::kMpft) {
        EXPECT_LE(bisection(t), endpoints / 2);
        EXPECT_GE(bisection(t) + 8, endpoints / 2);
      }
    }
  }
}

// The most rails that a leaf serves.
std::size_t rails_of_a_leaf(const Topology& t) {
  std::vector<std::set<int>> rails(t.switches.size());
  for (std::size_t e = 0; e < t.attach.size(); ++e) {
    rails[static_cast<std::size_t>(t.attach[e])].insert(static_cast<int>(e) % t.spec.gpus_per_node);
  }
  std::size_t most = 0;
  for (const auto& of_leaf : rails) most = std::max(most, of_leaf.size());
  return most;
}

TEST(Topology, MultiRailLeavesServeOneRail) {
  EXPECT_EQ(build(spec_of(Kind::kMrft, 64, 2048)).switches.size(), 96u);
  // 16 nodes: a leaf of each rail has 16 of its 32 ports free.
  EXPECT_EQ(build(spec_of(Kind::kMrft, 64, 128)).count(Tier::kLeaf), 8);
  for (const std::int64_t endpoints : {3, 8, 100, 128, 1088, 2048, 2056, 4096, 5000}) {
    const Topology t = build(spec_of(Kind::kMrft, 64, endpoints));
    SCOPED_TRACE(endpoints);
    EXPECT_EQ(rails_of_a_leaf(t), 1u);
    EXPECT_GE(diameter(t), 0);
    check_sound(t);
  }
}

TEST(Topology, MultiRailLeavesServeOneRailOfAnyNode) {
  for (const int gpus : {1, 3, 7, 64}) {
    for (const std::int64_t endpoints : {0, 1, 30, 128, 300}) {
      TopologySpec spec = spec_of(Kind::kMrft, 16, endpoints);
      spec.gpus_per_node = gpus;
      const Topology t = build(spec);
      SCOPED_TRACE(gpus);
      SCOPED_TRACE(endpoints);
      EXPECT_EQ(rails_of_a_leaf(t), 1u);
      EXPECT_LE(t.endpoints(), t.capacity);
      EXPECT_GE(diameter(t), 0);
      check_sound(t);
    }
  }
  TopologySpec spec = spec_of(Kind::kMrft, 16);
  spec.gpus_per_node = 3;  // 128 leaves: 42 of each rail
  EXPECT_EQ(build(spec).endpoints(), 3 * 42 * 8);
  spec.endpoints = 3 * 42 * 8 + 1;
  EXPECT_THAT(error_of(spec), ::testing::HasSubstr("1 too many"));
  spec.gpus_per_node = 1024;  // more rails than leaves: a part of one node
  spec.endpoints = 0;
  EXPECT_EQ(build(spec).endpoints(), 128);
}

TEST(Topology, DragonflyMatchesItsClosedForm) {
  // p = h = (k + 1) / 4, a = 2p, g = a h + 1 groups.
  for (const int k : {7, 8, 11, 15, 16}) {
    const Topology t = build(spec_of(Kind::kDragonfly, k));
    const std::int64_t p = (k + 1) / 4, a = 2 * p, g = a * p + 1;
    EXPECT_EQ(t.endpoints(), p * a * g);
    EXPECT_EQ(t.switches.size(), static_cast<std::size_t>(a * g));
    EXPECT_EQ(t.count(LinkClass::kLocal), g * a * (a - 1) / 2);
    EXPECT_EQ(t.count(LinkClass::kTrunk), g * a * p / 2);
    EXPECT_EQ(diameter(t), 3);
    EXPECT_EQ(t.ports_used, static_cast<int>(4 * p - 1));
    check_sound(t);
  }
}

TEST(Topology, SmallerDragonflyUsesAllGlobalPortsThatPairUp) {
  for (int groups = 2; groups <= 33; ++groups) {  // k = 15: p = h = 4, a = 8, up to 33 groups
    TopologySpec spec = spec_of(Kind::kDragonfly, 15);
    spec.groups = groups;
    const Topology t = build(spec);
    const int left = 32 % (groups - 1);
    const int free = left % 2 == 1 && groups % 2 == 1 ? groups : 0;
    EXPECT_EQ(t.count(LinkClass::kTrunk), (groups * 32 - free) / 2) << groups;
    EXPECT_LE(diameter(t), 3) << groups;
    check_sound(t);
  }
}

TEST(Topology, SlimFlyHasDiameterTwoForEveryRealisableQ) {
  for (const int q : {3, 4, 5, 7, 8, 9, 11, 13, 16, 17, 19, 25, 27}) {
    TopologySpec spec = spec_of(Kind::kSlimFly, 64);
    spec.q = q;
    const Topology t = build(spec);
    SlimFlyCounts counts;
    ASSERT_TRUE(slim_fly_counts(q, counts));
    EXPECT_TRUE(counts.exists);
    EXPECT_EQ(t.endpoints(), counts.endpoints) << q;
    EXPECT_EQ(t.switches.size(), static_cast<std::size_t>(2 * q * q)) << q;
    EXPECT_EQ(static_cast<std::int64_t>(t.links.size()), counts.links) << q;
    EXPECT_EQ(t.ports_used, counts.ports) << q;
    EXPECT_EQ(diameter(t), 2) << q;
    std::set<std::pair<int, int>> pairs;
    for (const Link& link : t.links) pairs.insert(std::minmax(link.a, link.b));
    EXPECT_EQ(pairs.size(), t.links.size()) << q;  // no link twice
    check_sound(t);
  }
}

TEST(Topology, SlimFlyTakesTheLargestThatFitsTheSwitch) {
  const Topology t = build(spec_of(Kind::kSlimFly, 64));
  EXPECT_EQ(t.spec.q, 27);
  EXPECT_EQ(t.endpoints(), 30'618);
  EXPECT_EQ(build(spec_of(Kind::kSlimFly, 64, 2048)).spec.q, 11);
}

TEST(Topology, ErrorsSayByHowMuchAndWhatToChange) {
  using ::testing::HasSubstr;
  EXPECT_THAT(error_of(spec_of(Kind::kFt2, 63)), HasSubstr("must be even. Use 62 or 64."));
  EXPECT_THAT(error_of(spec_of(Kind::kFt2, 64, 2304)),
              HasSubstr("holds 2,048 endpoints; 2,304 were asked for, 256 too many"));
  EXPECT_THAT(error_of(spec_of(Kind::kMpft, 64, 20'480)), HasSubstr("4,096 too many"));
  EXPECT_THAT(error_of(spec_of(Kind::kFt3, 4, 17)), HasSubstr("1 too many"));
  TopologySpec spec = spec_of(Kind::kSlimFly);
  spec.q = 28;
  EXPECT_THAT(error_of(spec), HasSubstr("nearest are q = 27 (41 + 21 = 62 ports, 30,618 endpoints) "
                                        "and q = 29"));
  spec.q = 29;
  EXPECT_THAT(error_of(spec), HasSubstr("65 ports; --ports is 64, 1 too few"));
  spec = spec_of(Kind::kDragonfly);
  spec.groups = 600;
  EXPECT_THAT(error_of(spec), HasSubstr("at most a*h + 1 = 513 groups"));
  spec = spec_of(Kind::kMpft);
  spec.planes = 3;
  EXPECT_THAT(error_of(spec), HasSubstr("must divide 8"));
  spec = spec_of(Kind::kMpft);
  spec.nic_ports = 9;
  EXPECT_THAT(error_of(spec), HasSubstr("there are 8 planes. Use 1 to 8, or more --planes."));
  spec.gpus_per_node = 1;
  spec.nic_ports = 4;
  EXPECT_THAT(error_of(spec), HasSubstr("a node's 4 NIC ports, so the planes must divide 4"));
  spec = spec_of(Kind::kMpft, 64, 8192);
  spec.nic_ports = 4;
  EXPECT_THAT(error_of(spec), HasSubstr("holds 4,096 endpoints; 8,192 were asked for"));
  EXPECT_THAT(error_of(spec), HasSubstr("more --planes (16 at least)"));
  spec = spec_of(Kind::kMpft, 256);
  spec.planes = spec.gpus_per_node = 1024;
  EXPECT_THAT(error_of(spec), HasSubstr("at most 5,000,000 are built here"));
  EXPECT_THROW(parse_kind("mptf"), Error);
}

// The planes that a message advises are ones that can be built.
TEST(Topology, AdvisedPlanesDivideTheNode) {
  using ::testing::HasSubstr;
  TopologySpec spec = spec_of(Kind::kMpft, 64, 20'000);  // 10 planes would do, and 8 NICs have 8
  EXPECT_THAT(error_of(spec), HasSubstr("A node of 8 NICs reaches 8 planes at most, and 10 would"));
  spec.gpus_per_node = 24;  // 12 planes divide them, 10 do not
  EXPECT_THAT(error_of(spec), HasSubstr("more --planes (12 at least)"));
  spec.planes = 12;
  EXPECT_EQ(build(spec).endpoints(), 20'000);
}

TEST(Topology, WhatIsTooLargeIsNotBuilt) {
  using ::testing::HasSubstr;
  TopologySpec spec = spec_of(Kind::kDragonfly, 256);
  EXPECT_THAT(error_of(spec), HasSubstr("has 67,117,056 endpoints, and at most 5,000,000 are "
                                        "built here. Give --endpoints 5000000 or fewer."));
  spec.groups = 8193;
  spec.endpoints = 8;  // all groups would be built
  EXPECT_THAT(error_of(spec), HasSubstr("Use --groups 610 or fewer."));
  for (const int q : {-7, 257, 1'000'000'007, 2'000'000'000}) {
    spec = spec_of(Kind::kSlimFly);
    spec.q = q;
    EXPECT_THAT(error_of(spec), HasSubstr("must be 3 to 256")) << q;
    SlimFlyCounts counts;
    EXPECT_FALSE(slim_fly_counts(q, counts)) << q;
  }
  spec.q = 255;  // the nearest above is the last that is looked at
  EXPECT_THAT(error_of(spec), HasSubstr("q = 256"));
}

}  // namespace
}  // namespace cachalot::network
