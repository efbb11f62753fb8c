// The whole model's gradient by finite differences, tensor by tensor, in float.
//
// For each tensor the loss is moved along its own gradient g by h = +-step / |g|, so the expected
// change is 2 * step exactly. Error model: the float forward pass leaves noise of about eps *
// sqrt(ops on a path) * loss (taken as 2e-6 * loss per evaluation), the central difference a
// curvature term of third order, bounded by halving the step: the two estimates must agree with the
// gradient and with each other.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/rng.h"
#include "kernels/cpu/levels.h"
#include "model/optimizer.h"
#include "model/tiny_config_test.h"
#include "model/train_graph.h"
#include "runtime/runtime.h"

namespace cachalot::model {
namespace {

struct Case {
  bool balance_over_batch = false;
  double dropout = 0;
  int score_from = 0;
  bool conversations = false;  // sequences of several lengths, of whose tokens some are learnt
};

void check(bool v3, const Case& of, const std::string& level) {
  const Config config = tiny(v3);
  const runtime::Runtime runtime({2, level});
  Parameters parameters(config);
  parameters.initialise(0.15, 7);
  const std::vector<std::int32_t> lengths =
      of.conversations ? std::vector{7, 2, 12, 3} : std::vector{12, 12};
  std::vector<std::int32_t> tokens(24);
  std::vector<std::uint8_t> learnt(of.conversations ? tokens.size() : 0);
  const Rng rng(3);
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = static_cast<std::int32_t>(rng.below(i, 53));
    if (of.conversations) learnt[i] = i % 3 != 0 ? 1 : 0;
  }
  const Sequences read{tokens, lengths, learnt};
  TrainGraph graph(runtime.context(), config, Precision::kF32);
  LossOptions options;
  options.rows_per_sequence = of.conversations ? 12 : 0;
  options.mtp_lambda = 0.5F;
  // In few rows the shares of experts, which the balance loss takes for constants, jump far.
  options.balance_alpha = of.conversations ? 0.01F : 0.1F;
  options.balance_over_batch = of.balance_over_batch;
  options.dropout = of.dropout;
  options.score_from = of.score_from;
  options.dropout_seed = 5;
  options.first_sequence = 40;
  Optimizer::zero_gradients(parameters);
  const Losses base = graph.forward_backward(parameters, read, options);
  ASSERT_TRUE(std::isfinite(base.total));

  std::vector<std::vector<float>> gradients;
  for (const Parameter& p : parameters.list()) {
    gradients.emplace_back(parameters.gradient(p).begin(), parameters.gradient(p).end());
  }
  int checked = 0;
  for (std::size_t at = 0; at < gradients.size(); ++at) {
    const Parameter& p = parameters.list()[at];
    const std::vector<float>& g = gradients[at];
    const std::vector<float> start(parameters.value(p).begin(), parameters.value(p).end());
    double square = 0;
    for (const float x : g) square += static_cast<double>(x) * x;
    const double norm = std::sqrt(square);
    ASSERT_TRUE(std::isfinite(norm)) << p.name;
    if (norm < 1e-4) continue;  // an expert no token chose, or a gradient below the noise
    bool same_routes = true;
    const auto slope = [&](double step) {
      double loss[2];
      for (const int sign : {0, 1}) {
        const double h = (sign == 0 ? 1 : -1) * step / square;
        for (std::size_t i = 0; i < g.size(); ++i) {
          parameters.value(p)[i] = static_cast<float>(start[i] + h * g[i]);
        }
        // An evaluation never drops; the gradients that the other adds were copied.
        const Losses moved = of.dropout > 0 ? graph.forward_backward(parameters, read, options)
                                            : graph.evaluate(parameters, read, options);
        same_routes = same_routes && moved.expert_load == base.expert_load;
        loss[sign] = moved.total;
      }
      std::copy(start.begin(), start.end(), parameters.value(p).begin());
      return (loss[0] - loss[1]) / (2 * step);
    };
    // Small enough that no weight moves by more than a few percent of its scale.
    const double step = std::min(4e-3, 0.02 * norm);
    const double coarse = slope(step);
    const double fine = slope(step / 2);
    if (!same_routes) continue;  // the choice of experts moved: the loss has a jump there
    const double noise = 2e-6 * base.total / step;
    EXPECT_NEAR(fine, 1.0, 2 * noise + std::fabs(coarse - fine) + 1e-4) << p.name << " " << level;
    EXPECT_NEAR(coarse, fine, 2 * noise + 0.02) << p.name << " " << level;
    ++checked;
  }
  EXPECT_GE(checked, static_cast<int>(parameters.list().size()) * 2 / 3) << level;
}

TEST(WholeModelGradient, AgreesWithFiniteDifferences) {
  for (const cpu::Level level : cpu::supported_levels()) {
    check(true, {}, std::string(cpu::name(level)));
    check(true, {.balance_over_batch = true}, std::string(cpu::name(level)));
    check(false, {}, std::string(cpu::name(level)));
  }
}

// Rows that are context have a part in what follows them, and no loss of their own.
TEST(WholeModelGradient, AgreesWithFiniteDifferencesBehindContext) {
  for (const cpu::Level level : cpu::supported_levels()) {
    for (const bool v3 : {true, false}) check(v3, {.score_from = 5}, std::string(cpu::name(level)));
  }
}

TEST(WholeModelGradient, AgreesWithFiniteDifferencesOfConversations) {
  for (const cpu::Level level : cpu::supported_levels()) {
    const std::string name(cpu::name(level));
    for (const bool v3 : {true, false}) check(v3, {.conversations = true}, name);
    check(true, {.balance_over_batch = true, .conversations = true}, name);
    check(true, {.dropout = 0.2, .conversations = true}, name);
  }
}

TEST(WholeModelGradient, OfTheLastRowAloneTheMtpLayerHasTheRowBefore) {
  const Config config = tiny(true);
  const runtime::Runtime runtime({2, ""});
  Parameters parameters(config);
  parameters.initialise(0.15, 7);
  Mat<std::int32_t> tokens(1, 9);  // rows 0 to 7, of the MTP layer 0 to 6
  for (int i = 0; i < 9; ++i) tokens.at(0, i) = 5 * i;
  TrainGraph graph(runtime.context(), config, Precision::kF32);
  LossOptions options;
  options.balance_alpha = 0;
  options.score_from = 7;
  Optimizer::zero_gradients(parameters);
  const Losses losses = graph.forward_backward(parameters, tokens.cview(), options);
  EXPECT_EQ(losses.main_rows, 1);
  EXPECT_EQ(losses.mtp_rows, 1);  // row 6 and row 7 of the main model predict the same token
  EXPECT_GT(losses.mtp, 0);
  for (const Parameter& p : parameters.list()) {
    double most = 0;
    for (const float g : parameters.gradient(p)) most = std::max(most, std::fabs(double{g}));
    ASSERT_TRUE(std::isfinite(most)) << p.name;
    const bool always = p.name == "model.layers.0.mlp.down_proj.weight";
    if (always) {
      EXPECT_GT(most, 0) << p.name;
    }
  }
  options.score_from = 8;
  EXPECT_THROW(graph.evaluate(parameters, tokens.cview(), options), Error);
}

// The masks are the same in every pass of the same sequences, so the loss is a smooth function.
TEST(WholeModelGradient, AgreesWithFiniteDifferencesUnderDropout) {
  for (const cpu::Level level : cpu::supported_levels()) {
    check(true, {.dropout = 0.2}, std::string(cpu::name(level)));
    check(false, {.dropout = 0.2}, std::string(cpu::name(level)));
  }
}

TEST(WholeModelGradient, DropoutFollowsTheSequenceAndLeavesEvaluationAlone) {
  const Config config = tiny(true);
  const runtime::Runtime runtime({2, ""});
  Mat<std::int32_t> tokens(4, 9);
  const Rng rng(6);
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    tokens.data()[i] = static_cast<std::int32_t>(rng.below(i, 53));
  }
  for (const auto& numerics :
       {nn::Numerics::f32(), nn::Numerics::bf16(), nn::Numerics::report_fp8()}) {
    Parameters parameters(config);
    parameters.initialise(0.15, 1);
    TrainGraph graph(runtime.context(), config, numerics);
    const auto losses = [&](double rate, std::uint64_t seed, std::int64_t first, int from, int n) {
      LossOptions options;
      options.dropout = rate;
      options.dropout_seed = seed;
      options.first_sequence = first;
      return graph.forward_backward(parameters, tokens.cview().sub_rows(from, n), options).total;
    };
    const double plain = losses(0, 1, 0, 0, 4);
    const double dropped = losses(0.2, 1, 0, 0, 4);
    EXPECT_NE(plain, dropped);
    EXPECT_EQ(dropped, losses(0.2, 1, 0, 0, 4));
    EXPECT_NE(dropped, losses(0.2, 2, 0, 0, 4));
    EXPECT_NE(dropped, losses(0.2, 1, 4, 0, 4));
    EXPECT_EQ(plain, losses(0, 2, 4, 0, 4));  // without dropout neither counts
    LossOptions options;
    const double evaluated = graph.evaluate(parameters, tokens.cview(), options).total;
    options.dropout = 0.5;
    EXPECT_EQ(evaluated, graph.evaluate(parameters, tokens.cview(), options).total);
  }
}

// A sequence has its masks wherever the micro-batches are cut. (Balance terms are per sequence.)
TEST(WholeModelGradient, DropoutDoesNotDependOnTheMicroBatches) {
  const Config config = tiny(true);
  const runtime::Runtime runtime({1, ""});
  Mat<std::int32_t> tokens(4, 9);
  const Rng rng(6);
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    tokens.data()[i] = static_cast<std::int32_t>(rng.below(i, 53));
  }
  Parameters whole(config), halves(config);
  whole.initialise(0.15, 1);
  halves.initialise(0.15, 1);
  TrainGraph graph(runtime.context(), config, Precision::kF32);
  LossOptions options;
  options.dropout = 0.2;
  options.first_sequence = 12;
  graph.forward_backward(whole, tokens.cview(), options);
  options.share = LossShare::equal(0.5F);
  graph.forward_backward(halves, tokens.cview().sub_rows(0, 2), options);
  options.first_sequence = 14;
  graph.forward_backward(halves, tokens.cview().sub_rows(2, 2), options);
  float largest = 0;
  for (const float x : whole.gradients()) largest = std::max(largest, std::fabs(x));
  for (std::size_t i = 0; i < whole.gradients().size(); ++i) {
    ASSERT_NEAR(whole.gradients()[i], halves.gradients()[i], 1e-5F * largest);
  }
}

TEST(WholeModelGradient, DoesNotDependOnTheThreads) {
  for (const Precision precision : {Precision::kF32, Precision::kBF16}) {
    const Config config = tiny(true);
    Mat<std::int32_t> tokens(3, 17);
    const Rng rng(5);
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      tokens.data()[i] = static_cast<std::int32_t>(rng.below(i, 53));
    }
    std::vector<float> want;
    for (const int threads : {1, 2, 3}) {
      const runtime::Runtime runtime({threads, ""});
      Parameters parameters(config);
      parameters.initialise(0.15, 7);
      TrainGraph graph(runtime.context(), config, precision);
      LossOptions options;
      options.dropout = 0.1;
      graph.forward_backward(parameters, tokens.cview(), options);
      const std::vector<float> got(parameters.gradients().begin(), parameters.gradients().end());
      if (want.empty()) want = got;
      EXPECT_TRUE(got == want) << threads << " threads";
    }
  }
}

// The batch-wise loss lets sequences differ: what one lacks another may bring. Equal sequences make
// the two losses one.
TEST(WholeModelGradient, BalanceOverTheBatchIsThatOfAllSequencesTogether) {
  const Config config = tiny(true);
  const runtime::Runtime runtime({1, ""});
  Parameters parameters(config);
  parameters.initialise(0.15, 7);
  TrainGraph graph(runtime.context(), config, Precision::kF32);
  const auto balance = [&](const Mat<std::int32_t>& tokens, bool over_batch, bool backward) {
    LossOptions options;
    options.balance_over_batch = over_batch;
    const Losses l = backward ? graph.forward_backward(parameters, tokens.cview(), options)
                              : graph.evaluate(parameters, tokens.cview(), options);
    EXPECT_NEAR(l.total, l.main + 0.3F * l.mtp + 1e-4F * l.balance, 1e-9);
    return l.balance;
  };
  Mat<std::int32_t> tokens(2, 12);
  const Rng rng(9);
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    tokens.data()[i] = static_cast<std::int32_t>(rng.below(i % 12, 53));
  }
  EXPECT_NEAR(balance(tokens, true, false), balance(tokens, false, false), 1e-12);
  for (std::size_t i = 12; i < 24; ++i) {
    tokens.data()[i] = static_cast<std::int32_t>(rng.below(i, 53));
  }
  const double apart = balance(tokens, false, false), together = balance(tokens, true, false);
  EXPECT_LT(together, apart);
  EXPECT_EQ(apart, balance(tokens, false, true));
  EXPECT_EQ(together, balance(tokens, true, true));
}

TEST(WholeModelGradient, AccumulatesOverMicroBatches) {
  // Without balance terms (they are per sequence) two halves of half weight are the whole batch.
  const Config config = tiny(true);
  const runtime::Runtime runtime({1, ""});
  Mat<std::int32_t> tokens(4, 9);
  const Rng rng(6);
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    tokens.data()[i] = static_cast<std::int32_t>(rng.below(i, 53));
  }
  Parameters whole(config);
  Parameters halves(config);
  whole.initialise(0.15, 1);
  halves.initialise(0.15, 1);
  TrainGraph graph(runtime.context(), config, Precision::kF32);
  LossOptions options;
  graph.forward_backward(whole, tokens.cview(), options);
  options.share = LossShare::equal(0.5F);
  graph.forward_backward(halves, tokens.cview().sub_rows(0, 2), options);
  graph.forward_backward(halves, tokens.cview().sub_rows(2, 2), options);
  float largest = 0;
  for (const float x : whole.gradients()) largest = std::max(largest, std::fabs(x));
  for (std::size_t i = 0; i < whole.gradients().size(); ++i) {
    ASSERT_NEAR(whole.gradients()[i], halves.gradients()[i], 1e-5F * largest);
  }
}

}  // namespace
}  // namespace cachalot::model
