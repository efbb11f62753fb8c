// Runs that learn the answers of conversations.
#include <gtest/gtest.h>

#include <atomic>

#include "train/step_data.h"
#include "train/trainer_case_test.h"

namespace cachalot::train {
namespace {

class Conversations : public TrainerTest {
 protected:
  void SetUp() override {
    TrainerTest::SetUp();
    run(recipe({"schedule.steps=4"}), "base");
    write_file_atomically(dir_.path() / "chat.jsonl", lines(80, 0));
  }

  // Questions whose answer stands in them, of many lengths.
  static std::string lines(int count, std::uint64_t seed, int weight = 1) {
    const char* const words[] = {"whale", "gull", "sea", "storm", "light"};
    const Rng rng(seed, 3);
    std::string text;
    for (int i = 0; i < count; ++i) {
      const auto at = static_cast<std::uint64_t>(2 * i);
      const std::string word = words[rng.below(at, 5)];
      std::string question = "say";
      for (std::uint64_t k = rng.below(at + 1, 4) + 1; k-- > 0;) question += " " + word;
      text += cat(R"({"messages": [{"role": "user", "content": ")", question,
                  R"("}, {"role": "assistant", "content": ")", word, R"(", "weight": )",
                  i == 0 ? weight : 1, "}]}\n");
    }
    return text;
  }

  Recipe tune(const std::vector<std::string>& more = {}) const {
    const std::string toml = R"(
[model]
init_from = "base/model"
[data]
conversations = ["chat.jsonl"]
seq_len = 48
[optimizer]
lr = 1e-2
[schedule]
epochs = 6
warmup_steps = 2
batch = 4
micro_batch = 2
[run]
precision = "f32"
checkpoint_every = 3
eval_every = 3
)";
    return parse_recipe(toml, "tune.toml", more, dir_.path());
  }
};

TEST_F(Conversations, AnswersAreLearnt) {
  std::vector<EvalReport> seen;
  std::vector<std::string> said;
  TrainHooks hooks;
  hooks.on_eval = [&](const EvalReport& e) { seen.push_back(e); };
  hooks.on_message = [&](const std::string& text) { said.push_back(text); };
  const Recipe recipe = tune({"schedule.epochs=30", "run.eval_every=10"});
  const TrainResult result = run(recipe, "tuned", false, 1, hooks);
  ASSERT_GT(seen.size(), 2U);
  // An answer is one of five words: from about its letters' entropy to next to nothing.
  EXPECT_LT(seen.back().loss, 0.5 * seen.front().loss);
  EXPECT_GT(seen.back().tokens, 0);
  EXPECT_GT(seen.back().bits_per_byte, 0);
  EXPECT_GT(seen.back().first_choice, seen.front().first_choice);
  EXPECT_LE(seen.back().first_choice, 1);
  EXPECT_NE(said.front().find("answers to learn"), std::string::npos) << said.front();

  RunData data;
  data.train = dir_.path() / "tuned/data/train.tokens";
  data.train_samples = dir_.path() / "tuned/data/train.samples";
  StepData read(recipe, data, true);
  EXPECT_EQ(result.step, (30 * read.windows() + 3) / 4);
  EXPECT_EQ(result.tokens, read.rows_before(4 * result.step));
}

TEST_F(Conversations, ThreadsAndResumesChangeNothing) {
  const TrainResult whole = run(tune(), "whole");
  EXPECT_EQ(weights(whole.checkpoint), weights(run(tune(), "three", false, 3).checkpoint));
  std::atomic<bool> stop{false};
  TrainHooks hooks;
  hooks.stop = &stop;
  hooks.on_step = [&](const StepReport& r) { stop = r.step == 4; };
  EXPECT_EQ(run(tune(), "cut", false, 1, hooks).ended, Ended::kStopped);
  fs::remove(dir_.path() / "chat.jsonl");  // what was made of it is enough
  EXPECT_EQ(weights(whole.checkpoint), weights(run(tune(), "cut", true).checkpoint));
}

TEST_F(Conversations, MicroBatchesAreOneBatch) {
  std::vector<std::vector<double>> losses;
  for (const char* micro : {"1", "4"}) {
    TrainHooks hooks;
    losses.emplace_back();
    hooks.on_step = [&](const StepReport& r) { losses.back().push_back(r.total_loss); };
    run(tune({cat("schedule.micro_batch=", micro)}), cat("micro-", micro), false, 1, hooks);
  }
  ASSERT_EQ(losses[0].size(), losses[1].size());
  // The first losses are of the same weights, the next ones of weights that differ by rounding.
  EXPECT_NEAR(losses[0][0], losses[1][0], 1e-5);
  EXPECT_NEAR(losses[0][1], losses[1][1], 1e-3);
}

TEST_F(Conversations, OtherAnswersToLearnAreOtherData) {
  run(tune({"schedule.epochs=1"}), "run");
  fs::remove(dir_.path() / "run/data/train.samples");
  write_file_atomically(dir_.path() / "chat.jsonl", lines(80, 0, /*weight=*/0));
  EXPECT_EQ(code_of([&] { run(tune({"schedule.epochs=1"}), "run", true); }), Code::kUsage);
  write_file_atomically(dir_.path() / "chat.jsonl", lines(80, 0));
  EXPECT_NO_THROW(run(tune({"schedule.epochs=1"}), "run", true));
}

TEST_F(Conversations, WhatIsHeldOut) {
  write_file_atomically(dir_.path() / "more.jsonl", lines(7, 1));
  const TrainResult apart =
      run(tune({"schedule.epochs=1",
                "data.held_out_conversations=" + (dir_.path() / "more.jsonl").string()}),
          "apart");
  // An answer of a few tokens and its end, seven times.
  EXPECT_GE(apart.validation.tokens, 14);
  EXPECT_LE(apart.validation.tokens, 7 * 7);
  const TrainResult none = run(tune({"schedule.epochs=1", "data.validation_fraction=0"}), "none");
  EXPECT_EQ(none.validation.tokens, 0);
  const std::string error = text_of_error([&] {
    run(tune({"schedule.epochs=1", "data.validation_fraction=0.001"}), "bad");
  });
  EXPECT_EQ(error, "no error");  // the last one of eighty
  write_file_atomically(dir_.path() / "chat.jsonl", lines(1, 1));
  EXPECT_NE(text_of_error([&] { run(tune(), "one"); }).find("held_out_conversations"),
            std::string::npos);
}

TEST_F(Conversations, ABadLineIsNamed) {
  write_file_atomically(dir_.path() / "chat.jsonl", lines(3, 0) + "\n{\"messages\": 7}\n");
  const std::string error = text_of_error([&] { run(tune(), "bad"); });
  EXPECT_NE(error.find("chat.jsonl:5"), std::string::npos) << error;
}

TEST_F(Conversations, RoutingIsOfTheRowsThereAre) {
  std::int64_t rows = 0, most = 0;
  TrainHooks hooks;
  hooks.on_routing = [&](std::int64_t before, MatView<const std::int32_t> chosen) {
    if (before == 0) rows = 0;
    EXPECT_EQ(before, rows);
    rows += chosen.rows;
    most = std::max<std::int64_t>(most, rows);
  };
  run(tune({"schedule.epochs=1"}), "run", false, 1, hooks);
  EXPECT_GT(most, 0);
  EXPECT_LE(most, 4 * 48);  // four windows of at most 48
}

}  // namespace
}  // namespace cachalot::train
