#include "network/faults.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace cachalot::network {
namespace {

Topology small(Kind kind) {
  TopologySpec spec;
  spec.kind = kind;
  spec.ports = 16;
  spec.endpoints = 128;
  return build(spec);
}

TEST(Faults, ListsAreReadAndWritten) {
  EXPECT_TRUE(parse_faults("").empty());
  EXPECT_TRUE(parse_faults("none").empty());
  EXPECT_EQ(to_string(parse_faults("plane:1,leaf:2,links:1.5%,nic")),
            "plane:1,leaf:2,links:1.5%,nic:1");
  EXPECT_EQ(to_string(parse_faults("planes:1,leafs:2,link:3,nics:4,ports:5")),
            "plane:1,leaf:2,links:3,nic:4,port:5");
  EXPECT_EQ(to_string(parse_faults("links:1%")), "links:1%");
}

TEST(Faults, BadListsAreErrors) {
  for (const char* text :
       {"plan:1", "plane:x", "plane:-1", "plane:1.5", "links:101%", ",", "plane:", "plane:1,",
        "nic:1e400", "links:nan%", "leafx:1", "planet", "linkss:1", "nic1", "s:1", ":1"}) {
    EXPECT_THROW(parse_faults(text), Error) << text;
  }
  const Topology t = small(Kind::kMpft);
  EXPECT_THROW(apply(t, parse_faults("plane:9"), 1), Error);
  EXPECT_THROW(apply(small(Kind::kSlimFly), parse_faults("spine:1"), 1), Error);
}

TEST(Faults, TakeDownWhatHangsOnThem) {
  const Topology t = small(Kind::kMpft);  // 8 planes of 16 endpoints: 2 leaves, 1 spine each
  const Damage plane = apply(t, parse_faults("plane:1"), 1);
  EXPECT_EQ(plane.switches, 3);
  EXPECT_EQ(plane.links, 16);
  EXPECT_EQ(plane.nics, 16);
  const Damage leaf = apply(t, parse_faults("leaf:1"), 1);
  EXPECT_EQ(leaf.switches, 1);
  EXPECT_EQ(leaf.nics, 8);
  EXPECT_EQ(leaf.links, 8);
  EXPECT_EQ(apply(t, parse_faults("links:1%"), 1).links, 2);  // of 128, rounded up
  EXPECT_EQ(apply(t, parse_faults("nic:5"), 1).nics, 5);
  EXPECT_EQ(apply(small(Kind::kMrft), parse_faults("plane:1"), 1).nics, 16);
  EXPECT_EQ(apply(small(Kind::kFt2), parse_faults("plane:1"), 1).nics, 128);
}

TEST(Faults, ANicOfSeveralPortsOutlivesAllButTheLast) {
  TopologySpec spec;
  spec.ports = 16;
  spec.planes = spec.nic_ports = 4;
  const Topology t = build(spec);  // 128 NICs in 4 planes
  const Damage plane = apply(t, parse_faults("plane:3"), 1);
  EXPECT_EQ(plane.nics, 0);
  EXPECT_EQ(plane.ports, 3 * 128);
  EXPECT_EQ(apply(t, parse_faults("plane:4"), 1).nics, 128);
  EXPECT_EQ(apply(t, parse_faults("leaf:1"), 1).ports, 8);
  const Damage port = apply(t, parse_faults("port:5"), 1);
  EXPECT_EQ(port.ports, 5);
  EXPECT_EQ(port.nics, 0);
  const Damage nic = apply(t, parse_faults("nic:2"), 1);
  EXPECT_EQ(nic.nics, 2);
  EXPECT_EQ(nic.ports, 8);
  // Where a NIC has one port, that is the NIC.
  EXPECT_EQ(apply(small(Kind::kFt2), parse_faults("ports:3"), 1).nics, 3);
}

TEST(Faults, SharesAreRoundedUpButNotTwice) {
  TopologySpec spec;
  spec.kind = Kind::kFt2;
  spec.ports = 20;
  const Topology t = build(spec);  // 200 links
  const auto links = [&](const char* faults) { return apply(t, parse_faults(faults), 1).links; };
  EXPECT_EQ(links("links:14%"), 28);
  EXPECT_EQ(links("links:14.1%"), 29);
  EXPECT_EQ(links("links:0%"), 0);
  EXPECT_EQ(links("links:0.0001%"), 1);
  EXPECT_EQ(links("links:100%"), 200);
}

TEST(Faults, WhatIsDownIsNotDrawnAgain) {
  const Topology t = small(Kind::kMpft);  // 8 planes of 2 leaves and a spine, 16 NICs each
  for (const std::uint64_t seed : {1, 2, 3, 4, 5}) {
    const auto with = [&](const char* faults) { return apply(t, parse_faults(faults), seed); };
    EXPECT_EQ(with("leaf:1,leaf:1").switches, 2);
    EXPECT_EQ(with("nic:1,nic:2").nics, 3);
    EXPECT_EQ(with("plane:1,plane:7").switches, 24);
    EXPECT_EQ(with("plane:1,leaf:1").switches, 4);  // of a plane that was up
    EXPECT_EQ(with("leaf:1,nic:1").nics, 9);
    EXPECT_EQ(with("links:60%,links:60%").links, 128);  // all that were left
    EXPECT_EQ(with("plane:1,links:1").links, 17);
  }
  const Topology rails = small(Kind::kMrft);
  EXPECT_EQ(apply(rails, parse_faults("plane:1,plane:1"), 1).nics, 32);
}

TEST(Faults, NoMoreFailThanAreLeft) {
  const auto error = [](const char* faults) -> std::string {
    try {
      apply(small(Kind::kMpft), parse_faults(faults), 1);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::kUsage);
      return e.what();
    }
    return "no error";
  };
  using ::testing::HasSubstr;
  EXPECT_THAT(error("leaf:17"), HasSubstr("has 16. Ask for at most 16."));
  EXPECT_THAT(error("leaf:10,leaf:7"),
              HasSubstr("has 16, and 10 of them are down already. Ask for at most 6."));
}

TEST(Faults, TheSeedDraws) {
  const Topology t = small(Kind::kFt2);
  const auto drawn = [&](std::uint64_t seed) {
    return apply(t, parse_faults("links:10"), seed).link_down;
  };
  EXPECT_EQ(drawn(1), drawn(1));
  EXPECT_NE(drawn(1), drawn(2));
}

}  // namespace
}  // namespace cachalot::network
