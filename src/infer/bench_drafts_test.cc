#include "infer/bench_drafts.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "infer/engine_case_test.h"

namespace cachalot::infer {
namespace {

TEST(BenchDrafts, TokensOfAPass) {
  EXPECT_EQ(tokens_of_pass({}), 1);
  EXPECT_EQ(tokens_of_pass(std::vector<double>{0.5}), 1.5);
  EXPECT_EQ(tokens_of_pass(std::vector<double>{0.5, 0.5, 0}), 1.75);
  EXPECT_EQ(tokens_of_pass(std::vector<double>{1, 1, 1, 1}), 5);
}

TEST(BenchDrafts, CasesAnswerAlikeAndCountWhatTheyDrafted) {
  const runtime::Runtime rt({2, ""});
  const model::Model model = load_for(rt, model_with_mtp(), Precision::kBF16);
  DraftBenchOptions o;
  o.request.prompt = {5, 6, 7, 8};
  o.request.max_tokens = 12;
  o.lengths = {1, 3};
  o.turns = 2;
  int said = 0;
  const DraftBenchResult r =
      bench_drafts(rt.context(), model, o, [&](const std::string&) { ++said; });
  EXPECT_GT(said, 2);
  EXPECT_EQ(r.tokens.size(), 12U);
  ASSERT_EQ(r.cases.size(), 4U);
  const DraftBenchCase& off = r.cases[0];
  EXPECT_EQ(off.mode, MtpMode::kOff);
  EXPECT_EQ(off.gain, 1);
  EXPECT_EQ(off.tokens_per_pass, 1);
  EXPECT_TRUE(off.right.empty());
  EXPECT_EQ(off.experts, model.config().route.topk);
  for (std::size_t i = 1; i < 3; ++i) {
    const DraftBenchCase& on = r.cases[i];
    EXPECT_EQ(on.drafts, o.lengths[i - 1]);
    // A draft behind a wrong one is never looked at.
    ASSERT_GE(on.right.size(), 1U);
    ASSERT_LE(on.right.size(), static_cast<std::size_t>(on.drafts));
    // What came out of a pass is what its drafts were worth; the last pass of an answer may have
    // fewer of them, or more right ones than were wanted.
    EXPECT_NEAR(on.tokens_per_pass, tokens_of_pass(on.right), 0.5);
    EXPECT_GT(on.predicted_gain, 0);
    // One row reads its own experts, more rows no fewer and none of them twice.
    EXPECT_GE(on.experts, off.experts);
    EXPECT_LE(on.experts, (1 + on.drafts) * off.experts);
    EXPECT_GT(on.tokens_per_s, 0);
    EXPECT_GT(on.cpu_seconds, 0);
  }
  EXPECT_EQ(r.cases.back().mode, MtpMode::kAuto);
  EXPECT_GT(r.auto_of_best, 0);
  EXPECT_GT(r.auto_of_best_cpu, 0);
}

TEST(BenchDrafts, SaysWhatIsWrong) {
  const runtime::Runtime rt({1, ""});
  const model::Model model = load_for(rt, model_with_mtp(), Precision::kBF16);
  const auto refused = [&](int tokens, int length) {
    DraftBenchOptions o;
    o.request.prompt = {1};
    o.request.max_tokens = tokens;
    o.lengths = {length};
    try {
      bench_drafts(rt.context(), model, o, [](const std::string&) {});
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::kUsage);
      return std::string(e.what());
    }
    return std::string();
  };
  EXPECT_NE(refused(1, 1).find("at least two tokens"), std::string::npos);
  EXPECT_NE(refused(8, 0).find("with 0 drafts"), std::string::npos);
  EXPECT_NE(refused(8, 5).find("1 to 4"), std::string::npos);
}

}  // namespace
}  // namespace cachalot::infer
