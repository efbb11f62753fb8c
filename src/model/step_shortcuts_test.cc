// What makes a step shorter: gradients written instead of added to zeros, and activations in bf16
// between products.
#include <gtest/gtest.h>

#include <algorithm>
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
        options.weight = 0.5F;
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

}  // namespace
}  // namespace cachalot::model
