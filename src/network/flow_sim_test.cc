#include "network/flow_sim.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/rng.h"

namespace cachalot::network {
namespace {

constexpr double kGb = 1e9;

std::vector<double> finish_of(const std::vector<double>& capacity, const std::vector<Flow>& flows) {
  return simulate_flows(capacity, flows, {}).finish;
}

Flow flow(std::vector<int> path, double bytes, double latency = 0) {
  return {std::move(path), bytes, latency, 0};
}

// Max-min fairness by its definition: raise all rates together, freeze those whose link is full;
// run until a flow ends; again. For tests: quadratic.
std::vector<double> by_definition(const std::vector<double>& capacity,
                                  const std::vector<Flow>& flows) {
  std::vector<double> left, finish(flows.size(), -1);
  for (const Flow& f : flows) left.push_back(f.bytes);
  double now = 0;
  for (std::size_t open = flows.size(); open > 0;) {
    std::vector<double> rate(flows.size(), 0), free = capacity;
    std::vector<char> fixed(flows.size());
    for (std::size_t f = 0; f < flows.size(); ++f) fixed[f] = finish[f] >= 0;
    for (;;) {
      std::vector<int> users(capacity.size());
      for (std::size_t f = 0; f < flows.size(); ++f) {
        if (fixed[f]) continue;
        for (const int l : flows[f].path) ++users[static_cast<std::size_t>(l)];
      }
      double share = std::numeric_limits<double>::infinity();
      int tight = -1;
      for (std::size_t l = 0; l < capacity.size(); ++l) {
        if (users[l] > 0 && free[l] / users[l] < share) {
          share = free[l] / users[l];
          tight = static_cast<int>(l);
        }
      }
      if (tight < 0) break;
      for (std::size_t f = 0; f < flows.size(); ++f) {
        if (fixed[f] || std::count(flows[f].path.begin(), flows[f].path.end(), tight) == 0)
          continue;
        rate[f] = share;
        fixed[f] = 1;
        for (const int l : flows[f].path) free[static_cast<std::size_t>(l)] -= share;
      }
    }
    double next = std::numeric_limits<double>::infinity();
    for (std::size_t f = 0; f < flows.size(); ++f) {
      if (finish[f] < 0) next = std::min(next, left[f] / rate[f]);
    }
    now += next;
    for (std::size_t f = 0; f < flows.size(); ++f) {
      if (finish[f] >= 0) continue;
      left[f] -= rate[f] * next;
      if (left[f] <= flows[f].bytes * 1e-9) {
        finish[f] = now;
        --open;
      }
    }
  }
  return finish;
}

TEST(FlowSim, OneFlowTakesItsLatencyAndItsBytes) {
  const auto finish = finish_of({40 * kGb, 50 * kGb}, {flow({0, 1}, 1e6, 2.8e-6)});
  EXPECT_NEAR(finish[0], 2.8e-6 + 1e6 / (40 * kGb), 2e-9);
}

TEST(FlowSim, FlowsShareALinkEvenly) {
  // 3 MB and 1 MB over 1 GB/s: the short one ends when both have sent 1 MB.
  const auto finish = finish_of({kGb}, {flow({0}, 3e6), flow({0}, 1e6)});
  EXPECT_NEAR(finish[1], 2e-3, 1e-8);
  EXPECT_NEAR(finish[0], 4e-3, 1e-8);
}

TEST(FlowSim, SharingIsMaxMinFair) {
  // A over both links, B over the first (1 GB/s), C over the second (2 GB/s): 0.5, 0.5, 1.5 GB/s.
  const auto finish =
      finish_of({kGb, 2 * kGb}, {flow({0, 1}, 1e6), flow({0}, 1e6), flow({1}, 1e6)});
  EXPECT_NEAR(finish[0], 2e-3, 1e-8);
  EXPECT_NEAR(finish[1], 2e-3, 1e-8);
  EXPECT_NEAR(finish[2], 1e-3 / 1.5, 1e-8);
}

TEST(FlowSim, IncastIsBoundByTheReceiver) {
  std::vector<double> capacity(33, 40 * kGb);
  std::vector<Flow> flows;
  for (int s = 0; s < 32; ++s) flows.push_back(flow({s, 32}, 1e6, 1e-6));
  for (const double at : finish_of(capacity, flows)) {
    EXPECT_NEAR(at, 1e-6 + 32 * 1e6 / (40 * kGb), 1e-8);
  }
}

TEST(FlowSim, AgreesWithTheDefinitionOnRandomNetworks) {
  const Rng random(7);
  std::uint64_t at = 0;
  double worst = 0;
  for (int round = 0; round < 20; ++round) {
    std::vector<double> capacity;
    for (int l = 0; l < 12; ++l) capacity.push_back((1 + random.uniform(at++)) * kGb);
    std::vector<Flow> flows;
    for (int f = 0; f < 40; ++f) {
      std::vector<int> path;
      for (int hop = 0; hop < 3; ++hop) {
        const int link = static_cast<int>(random.below(at++, capacity.size()));
        if (std::count(path.begin(), path.end(), link) == 0) path.push_back(link);
      }
      flows.push_back(flow(path, std::round((1 + random.uniform(at++)) * 1e7)));
    }
    const auto got = finish_of(capacity, flows), want = by_definition(capacity, flows);
    for (std::size_t f = 0; f < flows.size(); ++f) {
      worst = std::max(worst, std::abs(got[f] / want[f] - 1));
    }
  }
  RecordProperty("worst_relative_error", cat(worst));
  EXPECT_LT(worst, 1e-6);  // times are exact to a nanosecond of tens of milliseconds
}

TEST(FlowSim, EqualPartsAreSimulatedOnce) {
  std::vector<double> capacity(20, kGb);
  std::vector<Flow> flows;
  for (int p = 0; p < 10; ++p) {
    flows.push_back(flow({2 * p, 2 * p + 1}, 1e6));
    flows.push_back(flow({2 * p}, 1e6));
  }
  const SimulationResult result = simulate_flows(capacity, flows, {});
  EXPECT_EQ(result.parts, 10);
  EXPECT_EQ(result.distinct_parts, 1);
  EXPECT_EQ(result.distinct_flows, 2);
  for (const double at : result.finish) EXPECT_NEAR(at, 2e-3, 1e-8);
  flows[5].bytes = 2e6;
  EXPECT_EQ(simulate_flows(capacity, flows, {}).distinct_parts, 2);
}

// 24 parts of 200 flows, all different. Ends that merge do so within a process, so what a process
// has must not hang on their number.
TEST(FlowSim, ResultsDoNotDependOnTheNumberOfProcesses) {
  const Rng random(5);
  constexpr int kParts = 24;
  std::vector<double> capacity(8 * kParts, kGb);
  std::vector<Flow> flows;
  for (std::uint64_t f = 0; f < 200 * kParts; ++f) {
    const int part = 8 * static_cast<int>(f % kParts);
    flows.push_back(flow({part + static_cast<int>(random.below(3 * f, 4)),
                          part + 4 + static_cast<int>(random.below(3 * f + 1, 4))},
                         1e6 + static_cast<double>(random.below(3 * f + 2, 1'000'000)), 1e-6));
  }
  for (const double merge : {0.0, 0.003}) {
    SimulationOptions one, three;
    one.processes = 1;
    three.processes = 3;
    one.merge = three.merge = merge;
    const SimulationResult alone = simulate_flows(capacity, flows, one);
    EXPECT_EQ(alone.distinct_parts, kParts);
    EXPECT_EQ(alone.finish, simulate_flows(capacity, flows, three).finish) << merge;
  }
}

TEST(FlowSim, DownLinksAndNonsenseAreErrors) {
  EXPECT_THROW(finish_of({0.0}, {flow({0}, 1e6)}), Error);
  EXPECT_THROW(finish_of({kGb}, {flow({}, 1e6)}), Error);
  EXPECT_THROW(finish_of({kGb}, {flow({1}, 1e6)}), Error);
  EXPECT_THROW(finish_of({kGb}, {flow({0}, NAN)}), Error);
  EXPECT_TRUE(finish_of({kGb}, {}).empty());
}

}  // namespace
}  // namespace cachalot::network
