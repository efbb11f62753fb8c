// Experts over nodes of machines that are not there.
#include "model/placement.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "model/weights.h"
#include "runtime/pinning.h"
#include "runtime/topology.h"
#include "testing/fixtures.h"

namespace cachalot::model {
namespace {

using Bytes = std::vector<std::vector<std::uint64_t>>;

// The share of each node: its threads.
std::vector<NodeShare> shares(const runtime::Topology& t, int threads) {
  std::vector<NodeShare> nodes(t.nodes.size(), {0, 0});
  for (const auto& place : runtime::place_threads(t, threads)) {
    nodes[static_cast<std::size_t>(place.node)].share += 1;
  }
  return nodes;
}

// Bytes over share of each node with a share, in one layer or in all.
std::vector<double> loads(const Bytes& bytes, const std::vector<std::vector<int>>& placed,
                          const std::vector<NodeShare>& nodes, int layer = -1) {
  std::vector<double> load(nodes.size(), 0);
  for (std::size_t l = 0; l < bytes.size(); ++l) {
    if (layer >= 0 && static_cast<int>(l) != layer) continue;
    for (std::size_t e = 0; e < bytes[l].size(); ++e) {
      const auto node = static_cast<std::size_t>(placed[l][e]);
      load[node] += static_cast<double>(bytes[l][e]) / nodes[node].share;
    }
  }
  return load;
}
double spread_of(const std::vector<double>& load) {
  const auto [low, high] = std::minmax_element(load.begin(), load.end());
  return *high - *low;
}

void expect_balanced(const Bytes& bytes, const std::vector<NodeShare>& nodes) {
  const auto placed = place_experts(bytes, nodes);
  ASSERT_EQ(bytes.size(), placed.size());
  double least_share = 1e9;
  for (const NodeShare& n : nodes) least_share = std::min(least_share, n.share);
  double most = 0;
  for (std::size_t l = 0; l < bytes.size(); ++l) {
    ASSERT_EQ(bytes[l].size(), placed[l].size());
    if (bytes[l].empty()) continue;
    const double largest =
        static_cast<double>(*std::max_element(bytes[l].begin(), bytes[l].end())) / least_share;
    most = std::max(most, largest);
    EXPECT_LE(spread_of(loads(bytes, placed, nodes, static_cast<int>(l))), largest * 1.0000001);
  }
  // Over the layers differences do not add up.
  EXPECT_LE(spread_of(loads(bytes, placed, nodes)), 2 * most);
}

TEST(Placement, EqualNodes) {
  for (const char* machine : {"package:2 numa:1 core:4 pu:2", "package:1 numa:4 core:4 pu:1",
                              "package:2 numa:3 core:2 pu:1"}) {
    const auto t = runtime::fake_machine(machine);
    const auto nodes = shares(t, static_cast<int>(t.cores.size()));
    Bytes bytes;
    for (int l = 0; l < 12; ++l) {
      bytes.emplace_back(l < 1 ? 0 : 64, 4'718'592);  // a dense layer, then 64 experts
    }
    expect_balanced(bytes, nodes);
    bytes.assign(61, std::vector<std::uint64_t>(257, 44'040'192));
    expect_balanced(bytes, nodes);
  }
}

TEST(Placement, ExpertsOfManySizes) {
  const auto t = runtime::fake_machine("package:1 numa:4 core:4 pu:1");
  const auto nodes = shares(t, 16);
  Bytes bytes(7);
  for (std::size_t l = 0; l < bytes.size(); ++l) {
    for (std::size_t e = 0; e < 31; ++e) bytes[l].push_back(1000 + (e * 7919 + l * 104729) % 5000);
  }
  expect_balanced(bytes, nodes);
}

// A mask that leaves three cores of one socket and one of the other: three quarters of the bytes.
TEST(Placement, UnevenNodesHaveTheirShare) {
  const auto t = runtime::fake_machine("package:2 numa:1 core:4 pu:1", {0, 1, 2, 4});
  const auto nodes = shares(t, 4);
  ASSERT_EQ(2u, nodes.size());
  EXPECT_EQ(3, nodes[0].share);
  const Bytes bytes(8, std::vector<std::uint64_t>(64, 1000));
  expect_balanced(bytes, nodes);
  const auto placed = place_experts(bytes, nodes);
  EXPECT_EQ(48, std::count(placed[0].begin(), placed[0].end(), 0));
}

TEST(Placement, ANodeWithoutThreadsHasNoExperts) {
  const std::vector<NodeShare> nodes{{1, 0}, {0, 0}};
  const auto placed = place_experts({std::vector<std::uint64_t>(9, 10)}, nodes);
  EXPECT_EQ(std::vector<int>(9, 0), placed[0]);
}

TEST(Placement, AFullNodeIsGivenNoMore) {
  const std::vector<NodeShare> nodes{{1, 250}, {1, 0}};
  const auto placed = place_experts(Bytes(3, std::vector<std::uint64_t>(4, 50)), nodes);
  int on_first = 0;
  for (const auto& layer : placed) {
    on_first += static_cast<int>(std::count(layer.begin(), layer.end(), 0));
  }
  EXPECT_EQ(5, on_first);
  // All are full: still dealt out evenly.
  const std::vector<NodeShare> small{{1, 1}, {1, 1}};
  expect_balanced(Bytes(3, std::vector<std::uint64_t>(4, 50)), small);
}

// The areas of a real tree: every matrix once, experts whole, nothing overlaps.
TEST(Placement, AreasOfAModel) {
  const auto folders = testing::fixture_folders(testing::FixtureKind::kModel);
  ASSERT_FALSE(folders.empty());
  const std::vector<NodeShare> nodes(2);
  for (const auto& folder : folders) {
    SCOPED_TRACE(folder.string());
    LoadOptions options;
    options.keep_codes = true;
    const Model model = Model::load(folder, options);
    const auto areas = plan_placement(model.weights(), nodes, true);
    std::map<const char*, std::size_t> by_address;
    std::size_t in_experts = 0;
    for (const WeightArea& a : areas) {
      EXPECT_TRUE(by_address.emplace(static_cast<const char*>(a.data), a.bytes).second);
      in_experts += a.node != WeightArea::kSpread ? 1 : 0;
    }
    const char* end = nullptr;
    for (const auto& [at, bytes] : by_address) {
      EXPECT_LE(end, at);
      end = at + bytes;
    }
    std::size_t experts = 0;
    for (const auto& layer : model.weights().layers) experts += layer.moe.experts.size();
    for (const auto& mtp : model.weights().mtp) experts += mtp.block.moe.experts.size();
    EXPECT_GE(in_experts, 3 * experts);
    for (const WeightArea& a : plan_placement(model.weights(), nodes, false)) {
      EXPECT_EQ(WeightArea::kSpread, a.node);
    }
  }
}

}  // namespace
}  // namespace cachalot::model
