// The text is predicted before it is learned, and learning helps where a text repeats itself.
#include "train/learning_evaluate.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/error.h"
#include "base/rng.h"
#include "runtime/runtime.h"
#include "testing/fixtures.h"

namespace cachalot::train {
namespace {

std::filesystem::path folder() { return testing::fixtures_root() / "A"; }

// The same 24 tokens again and again.
std::vector<std::int32_t> refrain(int tokens) {
  const Rng rng(3);
  std::vector<std::int32_t> all;
  for (int i = 0; i < tokens; ++i) {
    all.push_back(static_cast<std::int32_t>(rng.below(static_cast<std::uint64_t>(i % 24), 200)));
  }
  return all;
}

struct Reading {
  LearningEvaluation sum;
  std::vector<double> nats;  // after each piece
};
Reading read(const std::vector<std::int32_t>& tokens, double lr, int threads = 2) {
  const runtime::Runtime runtime({threads, ""});
  Reading run;
  LearningOptions options;
  options.context = 32;
  options.piece = 8;
  options.lr = lr;
  options.progress = [&](std::int64_t, std::int64_t, double nats) { run.nats.push_back(nats); };
  run.sum = evaluate_learning(runtime.context(), folder(), nn::Numerics::f32(), tokens, options);
  return run;
}

TEST(EvaluateLearning, EveryTokenButTheFirstIsPredictedOnce) {
  for (const int n : {2, 8, 9, 32, 33, 34, 41, 100}) {
    const Reading run = read(refrain(n), 1e-3);
    EXPECT_EQ(run.sum.tokens, n - 1);
    EXPECT_EQ(run.sum.steps, static_cast<std::int64_t>(run.nats.size()) - 1);
    EXPECT_EQ(run.sum.nats, run.nats.back());
  }
}

TEST(EvaluateLearning, ARefrainIsLearned) {
  const auto tokens = refrain(400);
  const double still = read(tokens, 0).sum.nats;
  EXPECT_EQ(read(tokens, 0).sum.steps, 0);
  EXPECT_LT(read(tokens, 3e-3).sum.nats, 0.7 * still);
}

// What comes later has no part in what was predicted before.
TEST(EvaluateLearning, PredictsBeforeItLearns) {
  auto a = refrain(200), b = a;
  for (std::size_t i = 101; i < b.size(); ++i) b[i] = (b[i] + 17) % 200;
  const Reading x = read(a, 3e-3), y = read(b, 3e-3);
  ASSERT_EQ(x.nats.size(), y.nats.size());
  // Windows end at 32, 40, 48, ...: the one that ends at 96 is the last before token 101.
  const std::size_t same = (96 - 32) / 8 + 1;
  for (std::size_t i = 0; i < same; ++i) EXPECT_EQ(x.nats[i], y.nats[i]) << i;
  EXPECT_NE(x.nats[same], y.nats[same]);
}

TEST(EvaluateLearning, ThreadsAreNoPartOfTheResult) {
  const auto tokens = refrain(100);
  EXPECT_EQ(read(tokens, 1e-3, 1).nats, read(tokens, 1e-3, 3).nats);
}

TEST(EvaluateLearning, SaysWhatIsWrong) {
  const runtime::Runtime runtime({1, ""});
  const auto refused = [&](const std::vector<std::int32_t>& tokens, int context, int piece) {
    LearningOptions options;
    options.context = context;
    options.piece = piece;
    try {
      evaluate_learning(runtime.context(), folder(), nn::Numerics::f32(), tokens, options);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::kUsage);
      return std::string(e.what());
    }
    return std::string();
  };
  EXPECT_NE(refused({1}, 8, 4).find("at least two"), std::string::npos);
  EXPECT_NE(refused({1, 1 << 30}, 8, 4).find("token 1 of the text"), std::string::npos);
  EXPECT_NE(refused({1, 2, 3}, 1, 1).find("the context is 1"), std::string::npos);
  EXPECT_NE(refused({1, 2, 3}, 1 << 30, 1).find("the context is"), std::string::npos);
  EXPECT_NE(refused({1, 2, 3}, 8, 9).find("a piece is 9"), std::string::npos);
}

}  // namespace
}  // namespace cachalot::train
