#include "network/halving.h"

#include <gtest/gtest.h>

#include <numeric>

#include "base/rng.h"

namespace cachalot::network {
namespace {

Adjacency graph_of(int switches, const std::vector<Link>& links) {
  Topology topology;
  topology.switches.resize(static_cast<std::size_t>(switches));
  topology.links = links;
  return adjacency_of(topology);
}

// Two meshes of `size` switches with one link between them, their members in turn.
Adjacency two_meshes(int size) {
  std::vector<Link> links{{0, 1}};
  for (int a = 0; a < 2 * size; ++a) {
    for (int b = a + 2; b < 2 * size; b += 2) links.push_back({a, b});
  }
  return graph_of(2 * size, links);
}

std::vector<int> in_order(int switches) {
  std::vector<int> order(static_cast<std::size_t>(switches));
  std::iota(order.begin(), order.end(), 0);
  return order;
}

TEST(Halving, FindsTheWeakMiddle) {
  const Adjacency graph = two_meshes(10);
  const std::vector<std::int64_t> endpoints(20, 3);
  Sides sides = halve(in_order(20), endpoints);
  EXPECT_EQ(improve(graph, endpoints, sides, 30), 2);  // twice the one link
  for (std::size_t s = 2; s < 20; ++s) EXPECT_EQ(sides[s], sides[s % 2]);
  EXPECT_NE(sides[0], sides[1]);
}

TEST(Halving, TakesWhatFitsIntoTheFirstHalf) {
  const std::vector<std::int64_t> endpoints{5, 4, 0, 1, 2};  // 12
  EXPECT_EQ(halve(in_order(5), endpoints), (Sides{0, 1, 0, 0, 1}));
  EXPECT_EQ(halve(std::vector<int>{}, {}), Sides{});
}

// Never worse than where it began, and the cost that it returns is that of what it leaves.
TEST(Halving, KeepsAnHonestCount) {
  const Rng random(7);
  std::uint64_t number = 0;
  for (int round = 0; round < 20; ++round) {
    std::vector<Link> links;
    for (int l = 0; l < 60; ++l) {
      const int a = static_cast<int>(random.below(number++, 24));
      links.push_back({a, (a + 1 + static_cast<int>(random.below(number++, 23))) % 24});
    }
    std::vector<std::int64_t> endpoints;
    for (int s = 0; s < 24; ++s) {
      endpoints.push_back(static_cast<std::int64_t>(random.below(number++, 4)));
    }
    const auto cost_of = [&](const Sides& sides) {
      std::int64_t cost = 0, surplus = 0;
      for (const Link& link : links) {
        cost += sides[static_cast<std::size_t>(link.a)] != sides[static_cast<std::size_t>(link.b)]
                    ? 2
                    : 0;
      }
      for (std::size_t s = 0; s < sides.size(); ++s) {
        surplus += sides[s] == 0 ? endpoints[s] : -endpoints[s];
      }
      return cost + (surplus < 0 ? -surplus : surplus);
    };
    Sides sides = halve(in_order(24), endpoints);
    const std::int64_t before = cost_of(sides);
    const std::int64_t after = improve(graph_of(24, links), endpoints, sides, 30);
    EXPECT_EQ(after, cost_of(sides));
    EXPECT_LE(after, before);
  }
}

}  // namespace
}  // namespace cachalot::network
