// The gate against the stored routings: indices exact, weights, balance loss, load, bias update.
#include <gmock/gmock.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "io/safetensors.h"
#include "kernels/cpu/level_test.h"
#include "kernels/route.h"
#include "testing/fixtures.h"
#include "testing/random_mat.h"

namespace cachalot {
namespace {

RouteConfig parse_config(const nlohmann::json& c) {
  RouteConfig config;
  config.experts = c.at("n_routed_experts");
  config.topk = c.at("num_experts_per_tok");
  config.groups = c.at("n_group");
  config.topk_groups = c.at("topk_group");
  config.scoring = c.at("scoring_func") == "sigmoid" ? Scoring::kSigmoid : Scoring::kSoftmax;
  const std::string method = c.at("topk_method");
  config.method = method == "noaux_tc" ? TopkMethod::kNoauxTc
                  : method == "greedy" ? TopkMethod::kGreedy
                                       : TopkMethod::kGroupLimitedGreedy;
  config.norm_topk_prob = c.at("norm_topk_prob");
  config.routed_scaling = c.at("routed_scaling_factor");
  return config;
}

// One stored case through `route_op` and `balance_op`, in type T with a relative tolerance.
template <class T, class RouteOp, class BalanceOp>
void check_case(const io::Safetensors& file, const std::string& prefix, const RouteConfig& c,
                double tolerance, RouteOp&& route_op, BalanceOp&& balance_op) {
  const auto logits = testing::convert<T>(file.at(prefix + "logits").to_doubles());
  const int rows = static_cast<int>(logits.size()) / c.experts;
  std::vector<float> bias;
  if (const auto* stored = file.find(prefix + "bias")) bias = stored->to_floats();
  Mat<T> scores(rows, c.experts), weight(rows, c.topk);
  Mat<std::int32_t> index(rows, c.topk);
  route_op(Route<T>{c,
                    {logits.data(), rows, c.experts, c.experts},
                    bias,
                    scores.view(),
                    index.view(),
                    weight.view()});
  const auto want_index = file.at(prefix + "idx").to_ints();
  const auto want_weight = file.at(prefix + "weight").to_doubles();
  ASSERT_EQ(want_index.size(), index.size());
  for (std::size_t i = 0; i < index.size(); ++i) {
    ASSERT_EQ(index.data()[i], want_index[i]) << "row " << i / static_cast<std::size_t>(c.topk);
    EXPECT_NEAR(weight.data()[i], want_weight[i], tolerance * std::abs(want_weight[i])) << i;
  }
  if (const auto* balance = file.find(prefix + "sequence_balance")) {
    const double want = balance->to_doubles()[0];
    EXPECT_NEAR(balance_op(BalanceLoss<T>{scores.cview(), 1, c.topk, 0, {}}), want,
                tolerance * want);
  }
  if (const auto* stored = file.find(prefix + "load")) {
    std::vector<std::int64_t> load(static_cast<std::size_t>(c.experts));
    count_load(index.cview(), load);
    EXPECT_THAT(load, ::testing::ElementsAreArray(stored->to_ints()));
    update_router_bias(load, 1e-3, bias);
    const auto want = file.at(prefix + "bias_after_gamma_1e-3").to_doubles();
    ASSERT_EQ(bias.size(), want.size());
    // The bias is stored in float: half a unit of its last place.
    for (std::size_t e = 0; e < want.size(); ++e) {
      EXPECT_NEAR(bias[e], want[e], 0x1p-24 * std::max(std::abs(want[e]), 1e-3)) << e;
    }
  }
}

template <class T, class RouteOp, class BalanceOp>
void check_all(double tolerance, RouteOp&& route_op, BalanceOp&& balance_op) {
  int seen = 0;
  for (const auto& folder : testing::fixture_folders(testing::FixtureKind::kOps)) {
    const auto file = io::Safetensors::open(folder / "expected.safetensors");
    std::ifstream in(folder / "cases.json");
    const auto json = nlohmann::json::parse(in);
    for (const auto& [name, c] : json.at("route").items()) {
      SCOPED_TRACE(folder.string() + " " + name);
      check_case<T>(file, "route." + name + ".", parse_config(c), tolerance, route_op, balance_op);
      ++seen;
    }
  }
  EXPECT_GT(seen, 0);
}

class RouteFixture : public testing::LevelTest {};
CACHALOT_EVERY_LEVEL(RouteFixture);

TEST_P(RouteFixture, ChoosesAndWeighsAsStored) {
  check_all<float>(
      1e-5, [this](const Route<float>& a) { route(context(), a); },
      [this](const BalanceLoss<float>& a) { return balance_loss(context(), a); });
}

TEST(RouteReferenceFixture, InDouble) {
  check_all<double>(
      1e-13, [](const Route<double>& a) { route_ref(Context{}, a); },
      [](const BalanceLoss<double>& a) { return balance_loss_ref(Context{}, a); });
}

}  // namespace
}  // namespace cachalot
