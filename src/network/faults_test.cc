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
  EXPECT_EQ(to_string(parse_faults("links:1%")), "links:1%");
}

TEST(Faults, BadListsAreErrors) {
  for (const char* text : {"plan:1", "plane:x", "plane:-1", "plane:1.5", "links:101%", ",",
                           "plane:", "plane:1,", "nic:1e400", "links:nan%"}) {
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
