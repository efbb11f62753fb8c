// Against the example of the published balancer's README, and rules any placement must obey.
#include "cost/expert_placement.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"

namespace cachalot::cost {
namespace {

TEST(ExpertPlacementTest, ReproducesThePublishedExample) {
  const double first[] = {90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86};
  const double second[] = {20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27};
  const PlacementShape shape{.experts = 12, .replicas = 16, .groups = 4, .nodes = 2, .devices = 8};
  const Placement a = place_experts(first, shape), b = place_experts(second, shape);
  EXPECT_EQ(a.expert_of, (std::vector<int>{5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1}));
  EXPECT_EQ(b.expert_of, (std::vector<int>{7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1}));
  EXPECT_TRUE(a.hierarchical);
}

// Loads that fall off as 1 / rank, the shape of measured expert loads.
std::vector<double> skewed(int experts) {
  std::vector<double> load;
  for (int e = 0; e < experts; ++e) load.push_back(1000.0 / (1 + (e * 37) % experts));
  return load;
}

TEST(ExpertPlacementTest, EveryExpertHasASlotAndLoadIsShared) {
  const auto load = skewed(256);
  // Prefill: 8 groups on 4 nodes; decode: 18 nodes, which 8 groups cannot be dealt to.
  const PlacementShape shapes[] = {
      {.experts = 256, .replicas = 288, .groups = 8, .nodes = 4, .devices = 32},
      {.experts = 256, .replicas = 288, .groups = 8, .nodes = 18, .devices = 144}};
  for (const PlacementShape& s : shapes) {
    const Placement p = place_experts(load, s);
    EXPECT_EQ(p.hierarchical, s.groups % s.nodes == 0);
    std::size_t slots = 0;
    for (std::size_t e = 0; e < p.slots_of.size(); ++e) {
      EXPECT_FALSE(p.slots_of[e].empty());
      for (const int slot : p.slots_of[e]) {
        EXPECT_EQ(p.expert_of[static_cast<std::size_t>(slot)], static_cast<int>(e));
        ++slots;
      }
    }
    EXPECT_EQ(slots, 288U);
  }
  const double before = imbalance(place_in_order(256, 32), load, 32);
  const double after = imbalance(place_experts(load, shapes[0]), load, 32);
  EXPECT_GT(before, 3);
  EXPECT_LT(after, before / 2);
}

TEST(ExpertPlacementTest, AGroupStaysOnItsNode) {
  const PlacementShape s{.experts = 64, .replicas = 80, .groups = 8, .nodes = 4, .devices = 16};
  const Placement p = place_experts(skewed(64), s);
  for (int e = 0; e < 64; e += 8) {
    const int node = p.slots_of[static_cast<std::size_t>(e)][0] / 20;
    for (int i = 0; i < 8; ++i) {
      for (const int slot : p.slots_of[static_cast<std::size_t>(e + i)]) EXPECT_EQ(slot / 20, node);
    }
  }
}

TEST(ExpertPlacementTest, EqualLoadsAreBalanced) {
  const std::vector<double> load(64, 3.0);
  const PlacementShape s{.experts = 64, .replicas = 64, .groups = 1, .nodes = 2, .devices = 16};
  EXPECT_DOUBLE_EQ(imbalance(place_experts(load, s), load, 16), 1.0);
  EXPECT_DOUBLE_EQ(imbalance(place_in_order(64, 16), std::vector<double>(64, 0.0), 16), 1.0);
}

TEST(ExpertPlacementTest, CountsThatDoNotDivideAreErrors) {
  const auto load = skewed(12);
  const auto fails = [&](const PlacementShape& s, const std::string& text) {
    try {
      place_experts(load, s);
      ADD_FAILURE() << "wanted " << text;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::kConfig);
      EXPECT_NE(std::string(e.what()).find(text), std::string::npos) << e.what();
    }
  };
  fails({.experts = 12, .replicas = 10, .devices = 2}, "2 are missing");
  fails({.experts = 12, .replicas = 16, .groups = 5, .devices = 2},
        "12 experts do not divide by 5");
  fails({.experts = 12, .replicas = 14, .devices = 4}, "14 slots do not divide by 4 devices");
  fails({.experts = 12, .replicas = 16, .groups = 6, .nodes = 3, .devices = 8},
        "8 devices do not divide by 3 nodes");
  fails({.experts = 12, .replicas = 16, .groups = 4, .nodes = 0, .devices = 8}, "4 groups and 0");
  fails({.experts = 12, .replicas = 16, .groups = 0, .nodes = 1, .devices = 8}, "0 groups and 1");
  fails({.experts = 12, .replicas = 16, .groups = 4, .nodes = 3, .devices = 0}, "by 0 devices");
  fails({.experts = 11, .replicas = 16, .devices = 8}, "12 loads for 11");
  auto bad = load;
  bad[3] = std::nan("");
  EXPECT_THROW(place_experts(bad, {.experts = 12, .replicas = 12}), Error);
  bad[3] = 1e39;  // more than a float32 holds
  EXPECT_THROW(place_experts(bad, {.experts = 12, .replicas = 12}), Error);
}

// Where 4 groups cannot be dealt to 3 nodes, nothing is asked of groups and nodes, as published.
TEST(ExpertPlacementTest, TheGlobalPolicyTakesNoNoticeOfGroupsAndNodes) {
  const auto load = skewed(12);
  const Placement one = place_experts(load, {.experts = 12, .replicas = 16, .devices = 8});
  for (const auto& [groups, nodes] : {std::pair(4, 3), {5, 2}, {1, 7}}) {
    const Placement p = place_experts(
        load, {.experts = 12, .replicas = 16, .groups = groups, .nodes = nodes, .devices = 8});
    EXPECT_FALSE(p.hierarchical);
    EXPECT_EQ(p.expert_of, one.expert_of);
  }
}

// Thirds and fifths of small whole loads: which of two sums is the smaller depends on the width.
TEST(ExpertPlacementTest, TiesFallAsInFloat32) {
  const double load[] = {6, 5, 0, 4, 4, 5, 1, 8, 10, 10, 8, 3, 1, 4, 8, 7};
  const Placement p = place_experts(load, {.experts = 16, .replicas = 32, .devices = 8});
  EXPECT_EQ(p.expert_of,
            (std::vector<int>{14, 10, 5, 2, 14, 7, 3, 4,  15, 0, 1, 3, 15, 7,  10, 13,
                              8,  8,  5, 6, 9,  9, 1, 12, 8,  0, 7, 4, 9,  11, 10, 13}));
}

}  // namespace
}  // namespace cachalot::cost
