// Bisections of flat graphs beside bounds: no halving of a k-regular graph of n switches cuts fewer
// than n/4 (k - lambda2) links, with lambda2 the second largest eigenvalue of its adjacency.
#include <gtest/gtest.h>

#include "network/graph_metrics.h"

namespace cachalot::network {
namespace {

std::int64_t slim_fly(int q, std::int64_t endpoints = 0) {
  TopologySpec spec;
  spec.kind = Kind::kSlimFly;
  spec.q = q;
  spec.endpoints = endpoints;
  return bisection(build(spec));
}

std::int64_t dragonfly(int ports, int groups = 0, std::int64_t endpoints = 0) {
  TopologySpec spec;
  spec.kind = Kind::kDragonfly;
  spec.ports = ports;
  spec.groups = groups;
  spec.endpoints = endpoints;
  return bisection(build(spec));
}

TEST(Bisection, OfSlimFliesReachesTheSpectralBound) {
  EXPECT_EQ(slim_fly(4), 32);   // 32 / 4 x (6 - 2)
  EXPECT_EQ(slim_fly(8), 256);  // 128 / 4 x (12 - 4)
}

TEST(Bisection, OfSlimFliesIsTheFewestThatAnyoneFound) {
  EXPECT_EQ(slim_fly(3), 15);
  EXPECT_LE(slim_fly(5), 65);
  EXPECT_GE(slim_fly(5), 63);  // 50 / 4 x (7 - 2) = 62.5
  EXPECT_LE(slim_fly(7), 175);
}

TEST(Bisection, OfDragonfliesIsTheFewestThatAnyoneFound) {
  EXPECT_LE(dragonfly(8), 20);
  EXPECT_LE(dragonfly(8, /*groups=*/5), 12);
}

TEST(Bisection, NeedsNoFullSwitches) {
  // Two to each of eight switches, one to each of 24: more links than endpoints of a half.
  EXPECT_EQ(slim_fly(4, 40), 20);
  EXPECT_LE(dragonfly(8, 0, 68), 20);  // two switches of the last group without any
}

TEST(Bisection, Repeats) { EXPECT_EQ(dragonfly(12), dragonfly(12)); }

TEST(Bisection, IsSharedByTheLargerHalf) {
  EXPECT_EQ(per_endpoint_of_half(128, 256), 1.0);
  EXPECT_EQ(per_endpoint_of_half(3, 5), 1.0);
  EXPECT_EQ(per_endpoint_of_half(0, 1), 0.0);
}

}  // namespace
}  // namespace cachalot::network
