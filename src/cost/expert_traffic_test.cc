#include "cost/expert_traffic.h"

#include <gtest/gtest.h>

#include <cmath>

namespace cachalot::cost {
namespace {

// "Insights" 2.3.2: 32 tokens of each device, 8 routed experts and a shared one, a hidden state of
// "7K", FP8 there and BF16 back.
TEST(ExpertTrafficTest, ThePublishedBoundsOnTheTimePerToken) {
  const ExpertMessage m;
  EXPECT_NEAR(1e6 * all_to_all_seconds(32, 9, 7000, m, 50e9), 120.96, 0.005);
  EXPECT_NEAR(1e3 * bound_per_output_token(32, 9, 7000, 61, m, 50e9), 14.76, 0.005);
  EXPECT_NEAR(1e6 * all_to_all_seconds(32, 9, 7000, m, 900e9), 6.72, 0.005);
  EXPECT_NEAR(1e3 * bound_per_output_token(32, 9, 7000, 61, m, 900e9), 0.82, 0.005);
  EXPECT_EQ(std::floor(1 / bound_per_output_token(32, 9, 7000, 61, m, 50e9)), 67);
  // With the real width, and with the bandwidth that is reached.
  EXPECT_NEAR(1e6 * all_to_all_seconds(32, 9, 7168, m, 50e9), 123.86, 0.005);
  EXPECT_NEAR(1e6 * all_to_all_seconds(32, 9, 7168, m, 40e9), 154.83, 0.005);
}

Decoder v3_like(int groups, int topk_groups) {
  Decoder d;
  d.hidden = 7168;
  d.experts = {58, 256, 8, 1, 1, groups, topk_groups};
  return d;
}

TEST(ExpertTrafficTest, GroupsLimitTheNodesOfAToken) {
  // 8 nodes, a group on each, 4 of them used: seldom fewer (routed_places_test.cc).
  const ExpertPaths p = expert_paths(v3_like(8, 4), 8, 8);
  EXPECT_NEAR(p.nodes, 3.95 * 7 / 8, 0.02);
  EXPECT_DOUBLE_EQ(p.network_copies, 7);
  EXPECT_DOUBLE_EQ(p.own_node_copies, 8.0 / 8 * 7 / 8);
  // Without groups, all 8 nodes are as likely.
  double missed = 1;  // C(224, 8) / C(256, 8)
  for (int i = 0; i < 8; ++i) missed *= (224.0 - i) / (256 - i);
  EXPECT_NEAR(expert_paths(v3_like(1, 1), 8, 8).nodes, 8 * (1 - missed) * 7 / 8, 1e-9);
  // Never more nodes than copies, never more than there are.
  for (const int nodes : {1, 2, 4, 8, 16, 40}) {
    for (const int groups : {1, 8}) {
      const ExpertPaths q = expert_paths(v3_like(groups, groups == 1 ? 1 : 4), nodes, 8);
      EXPECT_LE(q.nodes, q.network_copies + 1e-12) << nodes;
      EXPECT_LE(q.nodes, nodes - 1 + 1e-12) << nodes;
    }
  }
}

// A node is missed where none of the 4 chosen of 8 groups is one of its two (15 of 70 choices), and
// else hardly ever.
TEST(ExpertTrafficTest, SeveralGroupsOnANode) {
  EXPECT_NEAR(expert_paths(v3_like(8, 4), 4, 8).nodes, 4 * (1 - 15.0 / 70) * 0.75, 0.03);
}

// Handed on inside a node: a device that holds two of a token's experts gets it once.
TEST(ExpertTrafficTest, OneCopyForTheExpertsOfADevice) {
  // 64 devices of 4 experts each, without groups: a device is missed with C(252, 8) / C(256, 8).
  double missed = 1;
  for (int i = 0; i < 8; ++i) missed *= (252.0 - i) / (256 - i);
  EXPECT_NEAR(expert_paths(v3_like(1, 1), 8, 8).link_copies, 64 * (1 - missed) * 7 / 8, 1e-9);
  // One node: 8 devices of 32 experts.
  missed = 1;
  for (int i = 0; i < 8; ++i) missed *= (224.0 - i) / (256 - i);
  EXPECT_NEAR(expert_paths(v3_like(1, 1), 1, 8).link_copies, 8 * (1 - missed) * 7 / 8, 1e-9);
  // An expert on each device: as many copies as experts, but for those that the token came to.
  EXPECT_DOUBLE_EQ(expert_paths(v3_like(8, 4), 32, 8).link_copies, 7);
  // Groups bring experts closer together: some 2 on each of 3.95 nodes, two of them on one device
  // with 3/31, so less than 8 copies and more than one for each node.
  const ExpertPaths p = expert_paths(v3_like(8, 4), 8, 8);
  EXPECT_LT(p.link_copies, expert_paths(v3_like(1, 1), 8, 8).link_copies);
  EXPECT_NEAR(p.link_copies, (8 - 3.95 * 3 / 31) * 7 / 8, 0.15);
  // What goes straight to an expert is a copy of its own.
  EXPECT_DOUBLE_EQ(p.network_copies + p.own_node_copies, 7 + 7.0 / 8);
}

TEST(ExpertTrafficTest, OneDeviceSendsNothing) {
  const ExpertPaths p = expert_paths(v3_like(8, 4), 1, 1);
  const ExpertLinks links{50e9, 1e-6, 160e9, 1e-6};
  EXPECT_EQ(direct_seconds(p, 64, 7168, {}, links), 0);
  EXPECT_EQ(forwarded_seconds(p, 64, 7168, {}, links), 0);
}

// With NVLink 3.2 times as fast as the network, up to 3.2 experts per node are free (V3 report
// 3.2.2): 3.5 remote nodes on average then still take longer than some 6.6 copies inside.
TEST(ExpertTrafficTest, ForwardingHidesBehindTheNetwork) {
  const ExpertPaths p = expert_paths(v3_like(8, 4), 8, 8);
  const ExpertLinks links{50e9, 0, 160e9, 0};
  EXPECT_DOUBLE_EQ(forwarded_seconds(p, 4096, 7168, {}, links),
                   all_to_all_seconds(4096, p.nodes, 7168, {}, 50e9));
  EXPECT_DOUBLE_EQ(direct_seconds(p, 128, 7168, {}, links),
                   all_to_all_seconds(128, 7, 7168, {}, 50e9));
}

}  // namespace
}  // namespace cachalot::cost
