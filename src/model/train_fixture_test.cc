// One training batch of the oracle: losses, every gradient, one optimiser step, a trajectory.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

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

bool on_device() {
  const char* device = std::getenv("CACHALOT_DEVICE");
  return device != nullptr && std::string(device) != "cpu";
}

// A CPU level, or the device that $CACHALOT_DEVICE names.
struct Case {
  std::string level;
  int threads;
  bool on_device = false;
};

std::vector<Case> cases() {
  std::vector<Case> out;
  for (const cpu::Level level : cpu::supported_levels()) {
    for (const int threads : {1, 2, 3}) out.push_back({std::string(cpu::name(level)), threads});
  }
  if (on_device()) out = {{"", 1, true}};
  return out;
}

// Numbers of the parameters, wherever they lie.
std::vector<float> floats_of(const Parameters& parameters, std::span<const float> from) {
  std::vector<float> out(from.size());
  if (parameters.device() == nullptr) {
    std::copy(from.begin(), from.end(), out.begin());
  } else {
    parameters.device()->download(out.data(), from.data(), from.size_bytes());
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
    const auto got = floats_of(parameters, parameters.gradient(p));
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
    const auto got = floats_of(parameters, parameters.value(p));
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
  Parameters parameters(config, runtime.context().device);
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
    Optimizer::zero_gradients(runtime.context(), parameters);
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
  const runtime::Runtime runtime(
      {.threads = GetParam().threads, .cpu = GetParam().level, .on_device = GetParam().on_device});
  for (const fs::path& folder : folders) check_folder(folder, runtime);
}

// Scales a matrix to the standard deviation that training begins with.
void make_initial_size(Parameters& parameters, const Parameter& p) {
  std::vector<float> values = floats_of(parameters, parameters.value(p));
  double sum = 0;
  for (const float x : values) sum += double{x} * double{x};
  const double rms = std::sqrt(sum / static_cast<double>(values.size()));
  const auto factor = static_cast<float>(0.02 / rms);
  for (float& x : values) x *= factor;
  const std::span<float> to = parameters.value(p);
  if (parameters.device() != nullptr) {
    parameters.device()->upload(to.data(), values.data(), to.size_bytes());
  } else {
    std::copy(values.begin(), values.end(), to.begin());
  }
}

// Holds the routing: every token goes to the `round`-th topk experts, whatever its scores are.
void hold_routing(Parameters& parameters, int round) {
  const int topk = parameters.config().route.topk;
  for (RouterBias& b : parameters.biases()) {
    for (std::size_t e = 0; e < b.value.size(); ++e) {
      b.value[e] = static_cast<int>(e) / topk == round ? 100.0F : 0.0F;
    }
  }
}

// Gradients of one step. The fixture's weights are so large that a rounding of 1 % sends tokens to
// other experts and moves logits by whole units; at the size that training begins with, and with
// the routing held, the error is that of the products.
std::map<std::string, std::vector<float>> gradients_of(const fs::path& folder,
                                                       const runtime::Runtime& runtime,
                                                       const nn::Numerics& numerics, int round,
                                                       Parameters& parameters) {
  const auto settings = nlohmann::json::parse(read_file(folder / "train.json", 1 << 20));
  const auto expected = io::Safetensors::open(folder / "expected.safetensors");
  parameters.load(io::Safetensors::open(folder / "model.safetensors"));
  for (const Parameter& p : parameters.list()) {
    if (p.is_matrix()) make_initial_size(parameters, p);
  }
  hold_routing(parameters, round);
  TrainGraph graph(runtime.context(), parameters.config(), numerics);
  LossOptions options;
  options.mtp_lambda = settings.at("mtp_lambda").get<float>();
  options.balance_alpha = settings.at("balance_alpha").get<float>();
  Optimizer::zero_gradients(runtime.context(), parameters);
  const Mat<std::int32_t> tokens = matrix_of(expected.at("tokens"));
  graph.forward_backward(parameters, tokens.cview(), options);
  std::map<std::string, std::vector<float>> out;
  for (const Parameter& p : parameters.list()) {
    out[p.name] = floats_of(parameters, parameters.gradient(p));
  }
  return out;
}

double cosine(const std::vector<float>& a, const std::vector<float>& b) {
  double ab = 0, aa = 0, bb = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    ab += double{a[i]} * double{b[i]};
    aa += double{a[i]} * double{a[i]};
    bb += double{b[i]} * double{b[i]};
  }
  return ab / std::sqrt(aa * bb);
}

// FP8's model: E4M3 keeps 4 significant bits, so that rounding adds an error of 0.025 of a value in
// the mean square (a step of 2^-3 at the bottom of a binade, 2^-4 at its top, over sqrt(12)). Both
// factors of a product have it, and the sums' errors are as independent as their terms: a Linear
// adds 0.036, an MLP or an attention, three roundings deep, about 0.07 to its branch. A weight
// gradient is made of an x with the error of the path before it and a dy with that of the path
// behind: sqrt(0.07^2 + 0.1^2) = 0.12 of its norm, a cosine of 0.9926. Small tensors have too few
// elements for a mean.

void check_low_precision(const fs::path& folder, const runtime::Runtime& runtime,
                         const nn::Numerics& numerics, double least) {
  Parameters parameters(load_config(folder), runtime.context().device);
  const RouteConfig& route = parameters.config().route;
  std::set<std::string> seen;
  for (int round = 0; round < std::max(1, route.experts / std::max(1, route.topk)); ++round) {
    const auto exact = gradients_of(folder, runtime, nn::Numerics::f32(), round, parameters);
    const auto rounded = gradients_of(folder, runtime, numerics, round, parameters);
    for (const Parameter& p : parameters.list()) {
      if (!p.is_matrix() || p.size() < 256) continue;
      const double c = cosine(exact.at(p.name), rounded.at(p.name));
      if (std::isnan(c)) continue;  // an expert whose turn it is not
      seen.insert(p.name);
      EXPECT_GE(c, least) << p.name << " round " << round;
    }
  }
  for (const Parameter& p : parameters.list()) {
    if (!p.is_matrix() || p.size() < 256) continue;
    EXPECT_TRUE(seen.contains(p.name)) << p.name;
  }
}

TEST(TrainFixturePrecision, Bf16GradientsPointWhereFloatOnesDo) {
  const runtime::Runtime runtime({.threads = 0, .cpu = {}, .on_device = on_device()});
  for (const fs::path& folder : testing::fixture_folders(testing::FixtureKind::kTrain)) {
    check_low_precision(folder, runtime, nn::Numerics::bf16(), 0.999);
  }
}

TEST(TrainFixturePrecision, Fp8GradientsPointWhereFloatOnesDo) {
  const runtime::Runtime runtime({.threads = 0, .cpu = {}, .on_device = on_device()});
  for (const fs::path& folder : testing::fixture_folders(testing::FixtureKind::kTrain)) {
    check_low_precision(folder, runtime, nn::Numerics::report_fp8(), 0.99);
  }
}

// What is computed again is what was computed: float training does not notice.
TEST(TrainFixturePrecision, RecomputationChangesNoBit) {
  const runtime::Runtime runtime({.threads = 0, .cpu = {}, .on_device = on_device()});
  for (const fs::path& folder : testing::fixture_folders(testing::FixtureKind::kTrain)) {
    Parameters parameters(load_config(folder), runtime.context().device);
    const auto kept = gradients_of(folder, runtime, nn::Numerics::f32(), 0, parameters);
    nn::Numerics again = nn::Numerics::f32();
    again.recompute_norms = again.recompute_swiglu = again.recompute_up_projections = true;
    const auto computed = gradients_of(folder, runtime, again, 0, parameters);
    for (const auto& [name, gradient] : kept) EXPECT_EQ(gradient, computed.at(name)) << name;
  }
}

// Every tiling and storage format of the recipe trains, with up to twice the error's square.
TEST(TrainFixturePrecision, Ablations) {
  const runtime::Runtime runtime({.threads = 0, .cpu = {}, .on_device = on_device()});
  for (const fs::path& folder : testing::fixture_folders(testing::FixtureKind::kTrain)) {
    for (const ScaleTile tile : {ScaleTile::kRow, ScaleTile::kBlock, ScaleTile::kTensor}) {
      nn::Numerics n = nn::Numerics::report_fp8();
      n.activation_tile = n.gradient_tile = tile;
      if (tile == ScaleTile::kTensor) n.weight_tile = tile;
      check_low_precision(folder, runtime, n, 0.98);
    }
    nn::Numerics n = nn::Numerics::report_fp8();
    n.recompute_norms = n.recompute_swiglu = n.recompute_up_projections = false;
    n.attention_output = nn::Keep::kBf16;
    n.combine = numeric::Payload::kLogFmt8;
    check_low_precision(folder, runtime, n, 0.98);
    if (on_device()) continue;  // its own sums are like that, the CPU's emulation is refused
    for (const int interval : {0, 128}) {  // sums so short lose little even without promotion
      nn::Numerics hopper = nn::Numerics::report_fp8();
      hopper.accumulation = {Accumulator::kHopper, interval};
      check_low_precision(folder, runtime, hopper, 0.98);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(EveryLevel, TrainFixture, ::testing::ValuesIn(cases()),
                         [](const auto& info) {
                           return (info.param.on_device ? "device" : info.param.level) +
                                  "_threads" + std::to_string(info.param.threads);
                         });

}  // namespace
}  // namespace cachalot::model
