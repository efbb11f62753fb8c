#include "cost/routed_places.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <vector>

namespace cachalot::cost {
namespace {

RouteConfig route(int experts, int topk, int groups, int topk_groups,
                  TopkMethod method = TopkMethod::kNoauxTc) {
  RouteConfig r;
  r.experts = experts;
  r.topk = topk;
  r.groups = groups;
  r.topk_groups = topk_groups;
  r.method = method;
  return r;
}

// All subsets of two of six experts on three places: 3 of 15 pairs share a place.
TEST(RoutedPlaces, WithoutGroupsByCounting) {
  EXPECT_NEAR(routed_places(route(6, 2, 1, 1), 3), (12 * 2 + 3 * 1) / 15.0, 1e-12);
  EXPECT_DOUBLE_EQ(routed_places(route(6, 6, 1, 1), 3), 3);
  EXPECT_DOUBLE_EQ(routed_places(route(6, 1, 1, 1), 4), 1);  // places of unequal size
  EXPECT_DOUBLE_EQ(routed_places(route(256, 8, 1, 1), 1), 1);
  EXPECT_DOUBLE_EQ(routed_places(route(0, 0, 1, 1), 4), 0);
  // `greedy` ignores groups.
  EXPECT_DOUBLE_EQ(routed_places(route(64, 6, 8, 3, TopkMethod::kGreedy), 8),
                   routed_places(route(64, 6, 1, 1), 8));
}

// Groups by their best score depend on the order of the scores alone: all orders of eight experts.
TEST(RoutedPlaces, GroupsByTheBestScoreByCounting) {
  std::vector<int> rank(8);
  std::iota(rank.begin(), rank.end(), 0);
  double places = 0, orders = 0;
  do {
    std::vector<int> groups{0, 1, 2, 3};  // of two experts each
    const auto best = [&](int g) { return std::max(rank[2 * g], rank[2 * g + 1]); };
    std::sort(groups.begin(), groups.end(), [&](int a, int b) { return best(a) > best(b); });
    std::vector<int> experts;
    for (int i = 0; i < 2; ++i) experts.insert(experts.end(), {2 * groups[i], 2 * groups[i] + 1});
    std::sort(experts.begin(), experts.end(), [&](int a, int b) { return rank[a] > rank[b]; });
    std::set<int> hit;
    for (int i = 0; i < 3; ++i) hit.insert(experts[i] / 2);
    places += static_cast<double>(hit.size());
    ++orders;
  } while (std::next_permutation(rank.begin(), rank.end()));
  const double want = places / orders;
  EXPECT_NEAR(routed_places(route(8, 3, 4, 2, TopkMethod::kGroupLimitedGreedy), 4), want, 0.01);
}

// V3's 8 of 256 experts out of 4 of 8 groups, each group chosen by its two best: nearly every
// chosen group has an expert among the eight. The figures are those of another program's draws.
TEST(RoutedPlaces, OfV3) {
  const RouteConfig v3 = route(256, 8, 8, 4);
  EXPECT_NEAR(routed_places(v3, 8), 3.95, 0.02);
  EXPECT_NEAR(routed_places(v3, 4), 3.12, 0.02);
  EXPECT_NEAR(routed_places(v3, 16), 5.72, 0.02);
  EXPECT_NEAR(routed_places(v3, 32), 6.86, 0.02);
  EXPECT_DOUBLE_EQ(routed_places(v3, 1), 1);
  // More places are never fewer to reach, whether they divide the groups or not.
  double before = 0;
  for (const int places : {1, 2, 3, 4, 5, 6, 7, 8, 16, 64}) {
    const double now = routed_places(v3, places);
    if (8 % places == 0 || places % 8 == 0) {
      EXPECT_GE(now, before) << places;
      before = now;
    }
    EXPECT_LE(now, std::min(places, 8)) << places;
    EXPECT_GE(now, places == 1 ? 1 : 1.9) << places;
  }
}

}  // namespace
}  // namespace cachalot::cost
