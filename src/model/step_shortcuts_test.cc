// What makes a step shorter: gradients written instead of added to zeros, and activations in bf16
// between products.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

#include "base/rng.h"
#include "model/optimizer.h"
#include "model/train_graph.h"
#include "runtime/runtime.h"

namespace cachalot::model {
namespace {

// `width` of an expert: with 8, gate and up are neighbours in the arena; with 9 they are not.
Config small(int width, bool mtp) {
  Config c;
  c.family = Family::kDeepseekV3;
  c.vocab_size = 53;
  c.hidden_size = 24;
  c.intermediate_size = 20;
  c.moe_intermediate_size = width;
  c.num_hidden_layers = 2;
  c.first_k_dense_replace = 1;
  c.num_attention_heads = 3;
  c.q_lora_rank = 10;
  c.kv_lora_rank = 12;
  c.qk_nope_head_dim = 7;
  c.qk_rope_head_dim = 4;
  c.v_head_dim = 5;
  c.n_shared_experts = 1;
  c.num_nextn_predict_layers = mtp ? 1 : 0;
  c.max_position_embeddings = 64;
  c.rope.dim = 4;
  c.route.experts = 16;
  c.route.topk = 2;
  c.route.scoring = Scoring::kSigmoid;
  c.route.method = TopkMethod::kNoauxTc;
  c.route.norm_topk_prob = true;
  return c;
}

Mat<std::int32_t> some_tokens(int rows, int cols) {
  Mat<std::int32_t> tokens(rows, cols);
  const Rng rng(3);
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    tokens.data()[i] = static_cast<std::int32_t>(rng.below(i, 53));
  }
  return tokens;
}

TEST(FreshGradients, AreThoseAddedToZeros) {
  for (const int width : {8, 9}) {
    for (const int length : {1, 2, 9}) {  // of one there is no MTP pass, though there is the layer
      const Config config = small(width, true);
      const Mat<std::int32_t> tokens = some_tokens(2, length + 1);
      const runtime::Runtime runtime({2, ""});
      for (const auto& numerics :
           {nn::Numerics::f32(), nn::Numerics::bf16(), nn::Numerics::report_fp8()}) {
        Parameters added(config), fresh(config);
        added.initialise(0.15, 7);
        fresh.initialise(0.15, 7);
        // Gaps between tensors stay zero; what lies in the tensors must not matter.
        for (const Parameter& p : fresh.list()) {
          const auto g = fresh.gradient(p);
          std::fill(g.begin(), g.end(), std::numeric_limits<float>::quiet_NaN());
        }
        TrainGraph graph(runtime.context(), config, numerics);
        LossOptions options;
        options.share = LossShare::equal(0.5F);
        for (int pass = 0; pass < 2; ++pass) {  // the second one adds
          graph.forward_backward(added, tokens.cview(), options);
          options.fresh_gradients = pass == 0;
          const Losses losses = graph.forward_backward(fresh, tokens.cview(), options);
          options.fresh_gradients = false;
          const auto& load = losses.expert_load.front();
          if (length < 9) {  // some expert has no rows
            EXPECT_NE(std::find(load.begin(), load.end(), 0), load.end());
          }
          for (const Parameter& p : added.list()) {
            const auto want = added.gradient(p), got = fresh.gradient(p);
            EXPECT_TRUE(std::equal(want.begin(), want.end(), got.begin()))
                << p.name << " of " << length << " tokens, width " << width << ", pass " << pass;
          }
        }
      }
    }
  }
}

// What stands between products in bf16 is rounded by itself, whoever computes it.
TEST(Bf16Operands, DoNotDependOnTheThreads) {
  for (const int width : {8, 9}) {
    const Config config = small(width, true);
    const Mat<std::int32_t> tokens = some_tokens(3, 18);
    std::vector<float> first;
    for (const int threads : {1, 2, 3}) {
      const runtime::Runtime runtime({threads, ""});
      Parameters parameters(config);
      parameters.initialise(0.15, 7);
      TrainGraph graph(runtime.context(), config, nn::Numerics::bf16());
      graph.forward_backward(parameters, tokens.cview(), {});
      const std::vector<float> all(parameters.gradients().begin(), parameters.gradients().end());
      if (first.empty()) first = all;
      EXPECT_TRUE(all == first) << threads << " threads, width " << width;
    }
  }
}

std::vector<float> gradients_of(const runtime::Runtime& runtime, const Config& config,
                                const nn::Numerics& numerics, Parameters& parameters) {
  parameters.initialise(0.02, 7);
  TrainGraph graph(runtime.context(), config, numerics);
  const Mat<std::int32_t> tokens = some_tokens(3, 101);
  for (int pass = 0; pass < 2; ++pass) {  // the second one adds
    LossOptions options;
    options.fresh_gradients = pass == 0;
    graph.forward_backward(parameters, tokens.cview(), options);
  }
  std::vector<float> all(parameters.gradients().size());
  if (Device* device = parameters.device(); device != nullptr) {
    device->download(all.data(), parameters.gradients().data(), all.size() * sizeof(float));
  } else {
    std::copy_n(parameters.gradients().begin(), all.size(), all.begin());
  }
  return all;
}

double cosine(const Parameter& p, const std::vector<float>& a, const std::vector<float>& b) {
  double ab = 0, aa = 0, bb = 0;
  for (auto i = static_cast<std::size_t>(p.offset), end = i + static_cast<std::size_t>(p.size());
       i < end; ++i) {
    ab += double{a[i]} * double{b[i]};
    aa += double{a[i]} * double{a[i]};
    bb += double{b[i]} * double{b[i]};
  }
  return ab / std::sqrt(aa * bb);
}

// On a device FP8 products hand each other bf16, and codes lie as weight gradients read them: the
// gradients point where they did, and where the host's do. Of widths that are no multiple of 128,
// gate and up are two matrices there.
TEST(Fp8OnADevice, GradientsPointWhereTheHostsDo) {
  const char* named = std::getenv("CACHALOT_DEVICE");
  if (named == nullptr || std::string(named) == "cpu") GTEST_SKIP() << "no CACHALOT_DEVICE";
  const std::string name = named;
  unsetenv("CACHALOT_DEVICE");  // a Runtime that may not take it refuses it
  const runtime::Runtime host;
  setenv("CACHALOT_DEVICE", name.c_str(), 1);
  const runtime::Runtime runtime({.threads = 1, .cpu = "", .on_device = true});
  for (const int width : {128, 384, 80}) {
    Config config = small(width, true);
    config.route.experts = 4;  // with rows enough that few of them can change
    config.hidden_size = 256;
    config.intermediate_size = 3 * width;
    config.q_lora_rank = width == 384 ? 0 : 144;
    config.kv_lora_rank = 128;
    config.qk_nope_head_dim = config.v_head_dim = 128;
    config.qk_rope_head_dim = config.rope.dim = 64;
    Parameters on_host(config), parameters(config, runtime.context().device);
    const auto exact = gradients_of(host, config, nn::Numerics::bf16(), on_host);
    const auto coded = gradients_of(host, config, nn::Numerics::report_fp8(), on_host);
    nn::Numerics floats = nn::Numerics::report_fp8();
    floats.bf16_results = false;
    const auto before = gradients_of(runtime, config, floats, parameters);
    const auto after = gradients_of(runtime, config, nn::Numerics::report_fp8(), parameters);
    EXPECT_TRUE(after == gradients_of(runtime, config, nn::Numerics::report_fp8(), parameters));
    double least = 1, least_of_host = 1;
    for (const Parameter& p : on_host.list()) {
      if (!p.is_matrix()) continue;
      // A token that goes to another expert moves the gradients of both, and the router's.
      const bool routed =
          p.name.find(".experts.") != std::string::npos || p.name.ends_with(".mlp.gate.weight");
      const double here = cosine(p, exact, after), there = cosine(p, exact, coded);
      if (std::isnan(there)) continue;  // no token came
      EXPECT_GE(cosine(p, before, after), routed ? 0.9 : 0.99) << p.name << ", width " << width;
      EXPECT_GE(here, there - (routed ? 0.1 : 0.01)) << p.name << ", width " << width;
      if (!routed) least = std::min(least, here), least_of_host = std::min(least_of_host, there);
    }
    std::printf("width %d: cosine with bf16 at least %.5f on the device, %.5f with the host\n",
                width, least, least_of_host);
  }
}

}  // namespace
}  // namespace cachalot::model
