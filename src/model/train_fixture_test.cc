// One training batch of the oracle: losses, every gradient, one optimiser step, a trajectory.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/atomic_file.h"
#include "io/safetensors.h"
#include "kernels/adamw.h"
#include "kernels/cpu/levels.h"
#include "kernels/elementwise.h"
#include "model/optimizer.h"
#include "model/train_graph.h"
#include "runtime/runtime.h"
#include "testing/fixtures.h"

namespace cachalot::model {
namespace {

namespace fs = std::filesystem;

struct Case {
  std::string level;
  int threads;
};

std::vector<Case> cases() {
  std::vector<Case> out;
  for (const cpu::Level level : cpu::supported_levels()) {
    for (const int threads : {1, 2, 3}) out.push_back({std::string(cpu::name(level)), threads});
  }
  return out;
}

Mat<std::int32_t> matrix_of(const io::TensorView& t) {
  const auto ints = t.to_ints();
  Mat<std::int32_t> out(static_cast<int>(t.shape.at(0)), static_cast<int>(t.shape.at(1)));
  std::copy(ints.begin(), ints.end(), out.data());
  return out;
}

double scalar(const io::Safetensors& file, const std::string& name) {
  return file.at(name).to_doubles().at(0);
}

void expect_close(double got, double want, double relative, const std::string& what) {
  EXPECT_NEAR(got, want, relative * std::fabs(want)) << what;
}

void check_gradients(const io::Safetensors& expected, Parameters& parameters) {
  for (const Parameter& p : parameters.list()) {
    const auto want = expected.at("grad." + p.name).to_floats();
    const auto got = parameters.gradient(p);
    ASSERT_EQ(want.size(), got.size()) << p.name;
    float scale = 0;
    for (const float x : want) scale = std::max(scale, std::fabs(x));
    float worst = 0;
    for (std::size_t i = 0; i < want.size(); ++i) {
      const float e = std::fabs(got[i] - want[i]);
      if (!(e <= worst)) worst = e;
    }
    EXPECT_LE(worst, 1e-4F * scale) << p.name;
  }
}

void check_after(const io::Safetensors& expected, Parameters& parameters, double clip, double lr) {
  for (const Parameter& p : parameters.list()) {
    const auto want = expected.at("after." + p.name).to_floats();
    const auto grad = expected.at("grad." + p.name).to_floats();
    const auto got = parameters.value(p);
    for (std::size_t i = 0; i < want.size(); ++i) {
      const double tolerance = std::fabs(grad[i] * clip) > 1e-6 ? 1e-5 : 2 * lr;
      ASSERT_NEAR(got[i], want[i], tolerance) << p.name << " " << i;
    }
  }
  for (const RouterBias& b : parameters.biases()) {
    const auto want = expected.at("after." + b.name).to_floats();
    for (std::size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(b.value[i], want[i], 1e-5) << b.name;
  }
}

void check_folder(const fs::path& folder, const runtime::Runtime& runtime) {
  const Config config = load_config(folder);
  const auto settings = nlohmann::json::parse(read_file(folder / "train.json", 1 << 20));
  const auto expected = io::Safetensors::open(folder / "expected.safetensors");
  Parameters parameters(config);
  parameters.load(io::Safetensors::open(folder / "model.safetensors"));
  const Mat<std::int32_t> tokens = matrix_of(expected.at("tokens"));
  TrainGraph graph(runtime.context(), config, Precision::kF32);
  Optimizer optimizer(parameters);
  LossOptions options;
  options.mtp_lambda = settings.at("mtp_lambda").get<float>();
  options.balance_alpha = settings.at("balance_alpha").get<float>();
  options.head_rows = 7;  // pieces that do not divide the rows
  OptimizerStep step;
  step.adamw = {settings.at("lr"), settings.at("beta1"), settings.at("beta2"), settings.at("eps"),
                settings.at("weight_decay")};
  step.clip_norm = settings.at("clip_norm");
  step.bias_gamma = settings.at("bias_gamma");

  const auto trajectory = expected.at("trajectory").to_doubles();
  const std::size_t steps = trajectory.size() / 5;
  for (std::size_t s = 0; s < steps; ++s) {
    optimizer.zero_gradients(parameters);
    const Losses losses = graph.forward_backward(parameters, tokens.cview(), options);
    if (s == 0) {
      const Losses eval = graph.evaluate(parameters, tokens.cview(), options);
      EXPECT_EQ(eval.main, losses.main);
      EXPECT_EQ(eval.mtp, losses.mtp);
      EXPECT_EQ(eval.balance, losses.balance);
      check_gradients(expected, parameters);
      expect_close(losses.main, scalar(expected, "loss.main"), 1e-5, "main");
      expect_close(losses.mtp, scalar(expected, "loss.mtp"), 1e-5, "mtp");
      expect_close(losses.balance, scalar(expected, "loss.balance"), 1e-5, "balance");
      expect_close(losses.total, scalar(expected, "loss.total"), 1e-5, "total");
      for (std::size_t l = 0; l < losses.expert_load.size(); ++l) {
        const std::string layer = "layer" + std::to_string(parameters.biases().at(l).layer);
        EXPECT_EQ(losses.expert_load[l], expected.at("load." + layer).to_ints()) << layer;
        expect_close(losses.balance_per_layer[l], scalar(expected, "balance." + layer), 1e-5,
                     layer);
      }
    }
    const OptimizerReport report =
        optimizer.step(runtime.context(), parameters, losses.expert_load, step);
    if (s == 0) {
      expect_close(report.grad_norm, scalar(expected, "grad_norm"), 1e-5, "grad_norm");
      expect_close(report.clip_scale, scalar(expected, "clip_scale"), 1e-5, "clip_scale");
      check_after(expected, parameters, report.clip_scale, step.adamw.lr);
    }
    const double* row = trajectory.data() + 5 * s;
    const std::string at = "step " + std::to_string(s + 1);
    expect_close(losses.main, row[0], 1e-3, at + " main");
    expect_close(losses.mtp, row[1], 1e-3, at + " mtp");
    expect_close(losses.balance, row[2], 1e-3, at + " balance");
    expect_close(losses.total, row[3], 1e-3, at + " total");
    expect_close(report.grad_norm, row[4], 1e-3, at + " grad norm");
  }
}

class TrainFixture : public ::testing::TestWithParam<Case> {};

TEST_P(TrainFixture, MatchesTheOracle) {
  const auto folders = testing::fixture_folders(testing::FixtureKind::kTrain);
  ASSERT_FALSE(folders.empty()) << "no training fixture below " << testing::fixtures_root();
  const runtime::Runtime runtime({GetParam().threads, GetParam().level});
  for (const fs::path& folder : folders) check_folder(folder, runtime);
}

INSTANTIATE_TEST_SUITE_P(EveryLevel, TrainFixture, ::testing::ValuesIn(cases()),
                         [](const auto& info) {
                           return info.param.level + "_threads" +
                                  std::to_string(info.param.threads);
                         });

}  // namespace
}  // namespace cachalot::model
