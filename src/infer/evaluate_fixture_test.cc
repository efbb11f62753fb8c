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

}  // namespace
}  // namespace cachalot::infer
