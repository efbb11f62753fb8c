#include "network/simulate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "base/error.h"
#include "network/published.h"

namespace cachalot::network {
namespace {

SimulateSpec spec_of(Kind kind, std::int64_t endpoints, Traffic traffic, int group) {
  SimulateSpec spec;
  spec.topology.kind = kind;
  spec.topology.endpoints = endpoints;
  spec.job.traffic = traffic;
  spec.job.group = group;
  spec.job.bytes = 64e6;
  return spec;
}

SimulateResult run(const SimulateSpec& spec) { return simulate(build(spec.topology), spec); }

// n GPUs on n/8 nodes; each NIC sends all that its rail has for other nodes: S (n - 8) / n.
double all_to_all_seconds(double n, double bytes, double wire) {
  return bytes * (n - 8) / n / 40e9 + wire;
}

TEST(Simulate, AllToAllOnPlanesMatchesItsClosedForm) {
  for (const int n : {16, 32, 64, 128}) {
    const SimulateResult r = run(spec_of(Kind::kMpft, n, Traffic::kAllToAll, n));
    EXPECT_NEAR(r.seconds / all_to_all_seconds(n, 64e6, 2.8e-6), 1, 1e-5) << n;
    EXPECT_NEAR(r.bus_gbs, 64e6 * (n - 1) / n / r.seconds / 1e9, 1e-9);
  }
}

TEST(Simulate, PlanesAndRailsCarryAllToAllAlike) {
  for (const int n : {32, 64, 128}) {
    const double mpft = run(spec_of(Kind::kMpft, n, Traffic::kAllToAll, n)).seconds;
    const double mrft = run(spec_of(Kind::kMrft, n, Traffic::kAllToAll, n)).seconds;
    EXPECT_NEAR(mpft / mrft, 1, 0.01) << n;
  }
}

TEST(Simulate, RingMatchesItsClosedForm) {
  // 8 nodes, 8 rails with S/8 each: (8-1)/8 S/8 per neighbour and pass over a NIC, S/8 to each of 7
  // GPUs over NVLink; 7 steps per pass.
  const double bytes = 64e6, wire = 2.8e-6, nvlink = 3.33e-6;
  for (const double nvlink_gbs : {160.0, 900.0}) {  // NVLink is short, then the NICs are
    for (const int passes : {1, 2}) {
      SimulateSpec spec =
          spec_of(Kind::kMpft, 64, passes == 2 ? Traffic::kAllReduce : Traffic::kAllGather, 64);
      spec.rates.nvlink_gbs = nvlink_gbs;
      const double on_nics = wire + passes * 7.0 / 8 * bytes / 8 / 40e9;
      const double in_node = nvlink + passes * 7.0 / 8 * bytes / (nvlink_gbs * 1e9);
      const double want = std::max(on_nics, in_node) + (passes * 7 - 1) * wire + passes * nvlink;
      EXPECT_NEAR(run(spec).seconds / want, 1, 1e-5);
    }
  }
}

TEST(Simulate, LosingOneOfEightPlanesCostsASeventh) {
  SimulateSpec spec = spec_of(Kind::kMpft, 64, Traffic::kAllToAll, 64);
  const double whole = run(spec).seconds;
  spec.faults = parse_faults("plane:1");
  const SimulateResult damaged = run(spec);
  EXPECT_NEAR(damaged.seconds / whole, 8.0 / 7, 0.01);
  EXPECT_EQ(damaged.stopped_groups, 0);
  EXPECT_EQ(damaged.cut_off_gpus, 0);
}

// Four GPUs, each a node, whose NICs have a port in each of four planes.
SimulateSpec four_ports(Routing routing) {
  SimulateSpec spec = spec_of(Kind::kMpft, 4, Traffic::kAllToAll, 4);
  spec.topology.gpus_per_node = 1;
  spec.topology.planes = spec.topology.nic_ports = 4;
  spec.routing = routing;
  return spec;
}

TEST(Simulate, AFlowTakesAllPortsOfItsNic) {
  const double sent = 64e6 * 3 / 4, wire = 2.8e-6;
  SimulateSpec spec = four_ports(Routing::kAdaptive);
  EXPECT_NEAR(run(spec).seconds, sent / 40e9 + wire, 1e-8);
  spec.faults = parse_faults("plane:1");  // of every NIC a quarter
  EXPECT_NEAR(run(spec).seconds, sent / 30e9 + wire, 1e-8);
  EXPECT_EQ(run(spec).damage.nics, 0);
  spec.faults = parse_faults("port:1");  // of one NIC a quarter: that one is as slow
  EXPECT_NEAR(run(spec).seconds, sent / 30e9 + wire, 1e-8);
  spec.faults = parse_faults("plane:3");
  EXPECT_NEAR(run(spec).seconds, sent / 10e9 + wire, 1e-8);
  EXPECT_THAT(run(spec).busiest.front().what, ::testing::StartsWith("NIC port"));
  spec.faults = parse_faults("nic:1");  // a node's only one
  EXPECT_EQ(run(spec).stopped_groups, 1);
  EXPECT_EQ(run(spec).cut_off_gpus, 1);
}

TEST(Simulate, OneFlowThatIsNotSprayedHasOnePort) {
  SimulateSpec spec = four_ports(Routing::kFixed);
  spec.topology.endpoints = 2;
  spec.job.group = 2;
  EXPECT_NEAR(run(spec).seconds, 64e6 / 2 / 10e9 + 2.8e-6, 1e-8);
  spec.routing = Routing::kAdaptive;
  EXPECT_NEAR(run(spec).seconds, 64e6 / 2 / 40e9 + 2.8e-6, 1e-8);
}

// NICs in some of the planes: what is for other planes crosses inside the node, as with one port.
TEST(Simulate, PortsInSomePlanesKeepRails) {
  SimulateSpec spec = spec_of(Kind::kMpft, 64, Traffic::kAllToAll, 64);
  const double one_port = run(spec).seconds;
  spec.topology.nic_ports = 4;
  EXPECT_NEAR(run(spec).seconds / one_port, 1, 1e-5);
  spec.faults = parse_faults("plane:1");  // half of the NICs have three quarters left
  EXPECT_NEAR(run(spec).seconds / one_port, 4.0 / 3, 0.01);
  spec.cross_rail_in_node = false;
  EXPECT_THROW(run(spec), Error);
}

TEST(Simulate, OnePlaneAloneIsEverything) {
  SimulateSpec spec = spec_of(Kind::kFt2, 64, Traffic::kAllToAll, 32);
  spec.faults = parse_faults("plane:1");
  const SimulateResult r = run(spec);
  EXPECT_EQ(r.stopped_groups, 2);
  EXPECT_EQ(r.cut_off_gpus, 64);
  EXPECT_FALSE(r.finishes());
  spec.job.traffic = Traffic::kPipeline;  // the last stage sends nothing, and is no group that ends
  EXPECT_EQ(run(spec).stopped_groups, 1);
  EXPECT_FALSE(run(spec).finishes());
  spec.faults.clear();
  EXPECT_TRUE(run(spec).finishes());
}

TEST(Simulate, AGroupOfAllIsCountedAsWhatItIs) {
  EXPECT_EQ(run(spec_of(Kind::kMpft, 16, Traffic::kAllToAll, 0)).group, 16);
  EXPECT_EQ(run(spec_of(Kind::kMpft, 16, Traffic::kAllToAll, 8)).group, 8);
}

// More damage never leaves more running: both uplinks of a leaf, and the leaf itself.
TEST(Simulate, ALeafWithoutUplinksIsNoWorseThanNone) {
  SimulateSpec spec = spec_of(Kind::kFt2, 8, Traffic::kEpDispatch, 8);
  spec.topology.ports = spec.topology.gpus_per_node = 4;
  spec.job.tokens = 64;
  spec.seed = 26;  // of the links that fail both are one leaf's
  spec.faults = parse_faults("links:2");
  EXPECT_EQ(run(spec).stopped_groups, 0);
  spec.faults = parse_faults("leaf:1");
  EXPECT_EQ(run(spec).stopped_groups, 0);
}

TEST(Simulate, NicsLostOnDifferentRailsStopNobody) {
  SimulateSpec spec = spec_of(Kind::kMrft, 4, Traffic::kEpDispatch, 4);
  spec.topology.gpus_per_node = 2;
  spec.job.tokens = 64;
  spec.faults = parse_faults("nic:2");
  for (spec.seed = 1; spec.seed <= 8; ++spec.seed) {
    const SimulateResult r = run(spec);
    const std::vector<char>& nics = r.damage.nic_down;
    const bool a_node_is_off = (nics[0] && nics[1]) || (nics[2] && nics[3]);
    EXPECT_EQ(r.stopped_groups, a_node_is_off ? 1 : 0) << spec.seed;
  }
}

// 256 experts on 144 and 320 GPUs, as published for decoding: spread over slots, they need not
// divide by nodes where tokens may go to all of them.
TEST(Simulate, ExpertsNeedNotDivideByNodes) {
  SimulateSpec spec = spec_of(Kind::kMpft, 144, Traffic::kEpDispatch, 144);
  spec.job.node_limit = 18;
  spec.job.tokens = 2;
  spec.spray = 1;
  for (int slot = 0; slot < 288; ++slot) spec.job.slots.push_back(slot % 256);
  const SimulateResult r = run(spec);
  EXPECT_GT(r.seconds, 0);
  EXPECT_EQ(r.stopped_groups, 0);
  spec.job.node_limit = 40;
  EXPECT_NO_THROW(check(synthetic_routing(spec.job, 8, 320, 1)));
  spec.job.node_limit = 4;
  EXPECT_THROW(check(synthetic_routing(spec.job, 8, 320, 1)), Error);
}

// A limit of all nodes is none, however the draw is made.
TEST(Simulate, ALimitOfAllNodesIsNone) {
  SyntheticRouting by_node;
  by_node.tokens_per_rank = 16;
  by_node.group_limit = by_node.groups;
  SyntheticRouting anywhere = by_node;
  anywhere.groups = anywhere.group_limit = 1;
  for (const int rank : {0, 63}) {
    std::vector<std::uint16_t> a = draw_rank(by_node, rank), b = draw_rank(anywhere, rank);
    for (std::size_t at = 0; at < a.size(); at += 8) {  // a token's experts, in any order
      std::sort(a.begin() + static_cast<std::ptrdiff_t>(at),
                a.begin() + static_cast<std::ptrdiff_t>(at) + 8);
      std::sort(b.begin() + static_cast<std::ptrdiff_t>(at),
                b.begin() + static_cast<std::ptrdiff_t>(at) + 8);
    }
    EXPECT_EQ(a, b);
  }
}

TEST(Simulate, PipelineStagesShareNothing) {
  const SimulateResult r = run(spec_of(Kind::kMpft, 128, Traffic::kPipeline, 16));
  EXPECT_NEAR(r.seconds, 64e6 / 40e9 + 2.8e-6, 1e-8);
  EXPECT_NEAR(r.mean_seconds, r.seconds,
              1e-9);  // the last stage, which sends nothing, is not in it
  EXPECT_EQ(r.groups, 8);
  EXPECT_EQ(r.timed_groups, 7);
}

TEST(Simulate, NoScheduleBeatsTheBound) {
  for (const Kind kind : kKinds) {
    for (const Routing routing : {Routing::kEcmp, Routing::kFixed, Routing::kAdaptive}) {
      SimulateSpec spec = spec_of(kind, 128, Traffic::kEpDispatch, 32);
      spec.job.even = true;
      spec.job.placement = Placement::kStrided;
      spec.job.tokens = 64;
      spec.topology.ports = 16;
      if (kind == Kind::kFt2 || kind == Kind::kSlimFly) spec.topology.ports = 32;
      spec.routing = routing;
      const SimulateResult r = run(spec);
      EXPECT_GE(r.seconds, r.bound_seconds * (1 - 1e-6));
      EXPECT_EQ(r.stopped_groups, 0);
    }
  }
}

TEST(Simulate, MergingEndsCostsLittle) {
  SimulateSpec spec = spec_of(Kind::kMpft, 256, Traffic::kEpDispatch, 64);
  spec.topology.ports = 16;
  spec.job.tokens = 256;
  spec.job.placement = Placement::kStrided;
  spec.spray = 1;
  spec.faults = parse_faults("links:5%");
  const double exact = run(spec).seconds;
  spec.options.merge = 0.001;
  const double merged = run(spec).seconds;
  RecordProperty("merge_error", std::to_string(merged / exact - 1));
  EXPECT_NEAR(merged / exact, 1, 0.005);
}

TEST(Simulate, DispatchMovesWhatTheCountsSay) {
  SimulateSpec spec = spec_of(Kind::kMpft, 64, Traffic::kEpDispatch, 64);
  spec.job.tokens = 256;
  const SimulateResult r = run(spec);
  // About 3.8 nodes of 8 per token, an eighth of them its own.
  const double nodes = r.algorithm_gbs * 1e9 * r.mean_seconds / (256 * 7392);
  EXPECT_GT(nodes, 3.5);
  EXPECT_LE(nodes, 4.0);
  EXPECT_NEAR(r.bound_seconds, 256 * 7392 * nodes * 7 / 8 / 40e9, 0.15 * r.bound_seconds);
}

// Inside one node NVLink alone counts: at what DeepEP's kernels reach there, unless it is given.
TEST(Simulate, ExpertsTrafficKnowsNvlinkAsItsKernelsDo) {
  SimulateSpec spec = spec_of(Kind::kMpft, 8, Traffic::kEpDispatch, 8);
  for (const auto& [direct, traffic, gbs] : {std::tuple{false, Traffic::kEpDispatch, 153.0},
                                             {false, Traffic::kEpCombine, 158.0},
                                             {true, Traffic::kEpDispatch, 98.0},
                                             {true, Traffic::kEpCombine, 127.0}}) {
    spec.job.direct = direct;
    spec.job.traffic = traffic;
    EXPECT_EQ(run(spec).rates.nvlink_gbs, gbs);
  }
  spec.nvlink_given = true;
  EXPECT_EQ(run(spec).rates.nvlink_gbs, 160);
}

TEST(Simulate, TracesDriveTheTraffic) {
  SimulateSpec spec = spec_of(Kind::kMpft, 16, Traffic::kEpDispatch, 16);
  RoutingTrace trace;
  trace.ranks = 16;
  trace.experts = 16;
  trace.topk = 1;
  for (int i = 0; i < 1000; ++i) {  // rank 0 sends all it has to rank 9: by rail 0, then NVLink
    trace.rank_of.push_back(0);
    trace.chosen.push_back(9);
  }
  spec.job.trace = trace;
  spec.job.dispatch_bytes = 7000;
  const SimulateResult r = run(spec);
  EXPECT_NEAR(r.seconds, 7e6 / 40e9 + 2.8e-6 + 3.33e-6, 1e-8);
  // One exchange of several: only its tokens travel, while all of them are known to a balancer.
  spec.job.exchange = RoutingExchange{7, 1, 200, 300};
  EXPECT_NEAR(run(spec).seconds, 0.7e6 / 40e9 + 2.8e-6 + 3.33e-6, 1e-8);
  EXPECT_EQ(expert_loads(build(spec.topology), spec)[9], 1000);
  spec.job.group = 8;
  EXPECT_THROW(run(spec), Error);
}

// A pass whose tokens all stay where they are takes no time, and is no error.
TEST(Simulate, AnExchangeMayHaveNothingToSend) {
  SimulateSpec spec = spec_of(Kind::kMpft, 16, Traffic::kEpDispatch, 16);
  spec.job.trace = parse_routing_trace(
      "cachalot-routing 1\nranks 16\nexperts 16\ntopk 1\npass 0 layer 1\n3 3\n", "t");
  spec.job.exchange = spec.job.trace->exchanges.front();
  const SimulateResult r = run(spec);
  EXPECT_EQ(r.stopped_groups, 0);
  EXPECT_LT(r.seconds, 1e-5);  // a copy to itself, at most
}

TEST(Simulate, WhatDoesNotFitIsSaid) {
  const auto error = [](const SimulateSpec& spec) -> std::string {
    try {
      run(spec);
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  };
  using ::testing::HasSubstr;
  EXPECT_THAT(error(spec_of(Kind::kMpft, 64, Traffic::kEpDispatch, 128)), HasSubstr("64 too many"));
  EXPECT_THAT(error(spec_of(Kind::kMpft, 64, Traffic::kEpDispatch, 12)),
              HasSubstr("multiple of 8"));
  EXPECT_THAT(error(spec_of(Kind::kFt2, 60, Traffic::kEpDispatch, 8)), HasSubstr("Use 56 or 64"));
  EXPECT_THAT(error(spec_of(Kind::kMpft, 48, Traffic::kEpDispatch, 48)),
              HasSubstr("are left over"));
  SimulateSpec spec = spec_of(Kind::kMpft, 64, Traffic::kAllToAll, 64);
  spec.cross_rail_in_node = false;
  EXPECT_THAT(error(spec), HasSubstr("no link between them"));
  spec = spec_of(Kind::kMpft, 16, Traffic::kPipeline, 0);
  EXPECT_THAT(error(spec), HasSubstr("stages of 16 GPUs make one of 16 endpoints"));
  spec.job.group = 8;
  spec.job.one_group = true;
  EXPECT_THAT(error(spec), HasSubstr("--one-group leaves one stage"));
  spec = spec_of(Kind::kMpft, 16, Traffic::kAllToAll, 16);
  spec.options.merge = std::nan("");
  EXPECT_THAT(error(spec), HasSubstr("--merge nan"));
}

// The acceptance figures: DeepEP on H800 with a multi-plane fat tree, and mpft beside mrft.
TEST(SimulateSlow, ComesWithin15PercentOfDeepEp) {
  for (const PublishedExchange& figure : deepep_normal()) {
    for (const Traffic traffic : {Traffic::kEpDispatch, Traffic::kEpCombine}) {
      const double published =
          traffic == Traffic::kEpDispatch ? figure.dispatch_gbs : figure.combine_gbs;
      SimulateSpec spec = spec_of(Kind::kMpft, 2048, traffic, figure.gpus);
      spec.job.token_sets = 1;
      const SimulateResult mpft = run(spec);
      spec.topology.kind = Kind::kMrft;
      const SimulateResult mrft = run(spec);
      EXPECT_NEAR(mpft.algorithm_gbs / published, 1, 0.15) << figure.gpus << " " << name(traffic);
      EXPECT_NEAR(mpft.seconds / mrft.seconds, 1, 0.01) << figure.gpus << " " << name(traffic);
    }
  }
}

}  // namespace
}  // namespace cachalot::network
