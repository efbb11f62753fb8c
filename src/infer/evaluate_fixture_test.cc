// The scores of a text against the oracle's logits, on every model folder.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "infer/engine_case_test.h"
#include "infer/evaluate.h"

namespace cachalot::infer {
namespace {

TEST(EvaluateFixture, AgreesWithTheOraclesLogits) {
  const runtime::Runtime rt(anywhere());
  for (const auto& folder : model_folders()) {
    const auto model = load_for(rt, folder, Precision::kF32);
    const auto file = io::Safetensors::open(folder / "expected.safetensors");
    const std::vector<std::int32_t> tokens = tokens_of(file, "s0.tokens");
    const int vocab = model.config().vocab_size;
    const auto logits = file.at("s0.logits").to_floats();
    const auto best = [&](const std::vector<float>& from, std::size_t row) {
      const auto begin = from.begin() + static_cast<std::ptrdiff_t>(row) * vocab;
      return std::max_element(begin, begin + vocab) - begin;
    };
    double nats = 0;
    for (std::size_t i = 0; i + 1 < tokens.size(); ++i) {
      const float* row = logits.data() + i * static_cast<std::size_t>(vocab);
      double sum = 0;
      for (int v = 0; v < vocab; ++v) sum += std::exp(static_cast<double>(row[v]));
      nats += std::log(sum) - static_cast<double>(row[tokens[i + 1]]);
    }
    const Evaluation whole = evaluate(rt.context(), model, tokens, {});
    EXPECT_EQ(whole.tokens, static_cast<std::int64_t>(tokens.size()) - 1);
    EXPECT_NEAR(whole.nats, nats, 2e-3 * static_cast<double>(whole.tokens)) << folder;
    if (model.has_mtp()) {
      const auto mtp = file.at("s0.mtp.logits").to_floats();
      std::int64_t accepted = 0;
      for (std::size_t i = 0; i + 2 < tokens.size(); ++i) {
        accepted += best(mtp, i) == best(logits, i + 1) ? 1 : 0;
      }
      EXPECT_EQ(whole.drafts, static_cast<std::int64_t>(tokens.size()) - 2);
      EXPECT_EQ(whole.accepted, accepted);
    }
    // Windows: every token is scored once, whatever the context.
    for (const int context : {2, 3, 5, 16, 1000}) {
      const Evaluation cut = evaluate(rt.context(), model, tokens, {.context = context});
      EXPECT_EQ(cut.tokens, whole.tokens) << context;
      if (context == 1000) {
        EXPECT_DOUBLE_EQ(cut.nats, whole.nats);
      }
    }
  }
}

TEST(EvaluateFixture, TellsTheChoicesOfEveryTokenOnce) {
  const runtime::Runtime rt(anywhere());
  int models = 0;
  for (const auto& folder : model_folders()) {
    const auto model = load_for(rt, folder, Precision::kF32);
    if (!model.config().is_moe_layer(model.config().num_hidden_layers - 1)) continue;
    ++models;
    const int layer = model.config().moe_layer_or_first(-1);
    const auto file = io::Safetensors::open(folder / "expected.safetensors");
    const std::vector<std::int32_t> tokens = tokens_of(file, "s0.tokens");
    const auto want = file.at(cat("s0.layer", layer, ".topk_idx")).to_ints();
    const auto chosen = [&](int context) {
      std::vector<std::int64_t> got;
      EvaluateOptions options{.context = context};
      options.routing_layer = layer;
      options.on_routing = [&](MatView<const std::int32_t> rows) {
        for (int t = 0; t < rows.rows; ++t) {
          got.insert(got.end(), rows.row(t), rows.row(t) + rows.cols);
        }
      };
      evaluate(rt.context(), model, tokens, options);
      return got;
    };
    const auto whole = chosen(1000);
    const std::size_t topk = want.size() / tokens.size();
    ASSERT_EQ(whole.size(), want.size() - topk) << folder;  // the last token is not read
    EXPECT_TRUE(std::equal(whole.begin(), whole.end(), want.begin())) << folder;
    for (const int context : {2, 5}) EXPECT_EQ(chosen(context).size(), whole.size()) << folder;
  }
  EXPECT_GT(models, 0);
}

}  // namespace
}  // namespace cachalot::infer
