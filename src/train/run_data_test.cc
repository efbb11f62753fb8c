// What a resume makes of the text and the tokens that it finds.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "train/checkpoint.h"
#include "train/trainer_case_test.h"

namespace cachalot::train {
namespace {

using ::testing::HasSubstr;
using RunDataTest = TrainerTest;

// Ends a run as a kill does: nothing is saved after the step.
TrainHooks killed_after_a_step() {
  TrainHooks hooks;
  hooks.on_step = [](const StepReport&) { throw Error(Code::kInterrupted, "killed"); };
  return hooks;
}

TEST_F(RunDataTest, ARunThatSavedNothingIsResumedOnTheTextAsItIsNow) {
  const Recipe r = recipe({"schedule.steps=2"});
  ASSERT_EQ(code_of([&] { run(r, "run", false, 1, killed_after_a_step()); }), Code::kInterrupted);
  const fs::path tokens = dir_.path() / "run" / "data" / "train.tokens";
  ASSERT_TRUE(fs::exists(tokens));
  ASSERT_FALSE(find_newest_checkpoint(dir_.path() / "run").path);
  // Without the text nothing is thrown away.
  fs::remove(dir_.path() / "corpus.txt");
  EXPECT_EQ(code_of([&] { run(r, "run", true); }), Code::kIo);
  EXPECT_TRUE(fs::exists(tokens));
  std::ofstream(dir_.path() / "corpus.txt") << corpus(300);
  const std::string resumed = weights(run(r, "run", true).checkpoint);
  EXPECT_TRUE(resumed == weights(run(r, "fresh").checkpoint));
  EXPECT_TRUE(read_file(tokens, 1 << 20) ==
              read_file(dir_.path() / "fresh" / "data" / "train.tokens", 1 << 20));
}

TEST_F(RunDataTest, NorDoesACheckpointThatIsDamagedHoldARunToItsTokens) {
  const Recipe r = recipe({"schedule.steps=2"});
  fs::remove(run(r, "run").checkpoint / "trainer.json");
  std::ofstream(dir_.path() / "corpus.txt") << corpus(300);
  const std::string resumed = weights(run(r, "run", true).checkpoint);
  EXPECT_TRUE(resumed == weights(run(r, "fresh").checkpoint));
}

TEST_F(RunDataTest, AResumeNeedsNoTextWhereItsTokensAreWhole) {
  const Recipe r = recipe({"schedule.steps=4", "run.checkpoint_every=2"});
  const TrainResult whole = run(r, "whole");
  std::atomic<bool> stop{false};
  TrainHooks hooks;
  hooks.stop = &stop;
  hooks.on_step = [&](const StepReport& report) { stop = report.step == 2; };
  ASSERT_EQ(run(r, "run", false, 1, hooks).step, 2);
  const fs::path text = dir_.path() / "corpus.txt", folder = dir_.path() / "run";
  fs::remove(text);
  const TrainResult resumed = run(r, "run", true);
  EXPECT_TRUE(weights(resumed.checkpoint) == weights(whole.checkpoint));
  EXPECT_EQ(resumed.validation.loss, whole.validation.loss);
  // What is missing needs the text; the error says which of the two to put back.
  for (const char* file : {"data/train.tokens", "data/validation.tokens", "tokenizer"}) {
    const fs::path kept = dir_.path() / "kept";
    fs::rename(folder / file, kept);
    const std::string error = text_of_error([&] { run(r, "run", true); });
    EXPECT_THAT(error, HasSubstr(text.string()));
    EXPECT_THAT(error, HasSubstr((folder / file).string() + " is "));
    EXPECT_THAT(error, HasSubstr("put the text back"));
    fs::rename(kept, folder / file);
  }
  fs::resize_file(folder / "data" / "train.tokens", 100);
  EXPECT_THAT(text_of_error([&] { run(r, "run", true); }), HasSubstr("train.tokens is damaged"));
  // With the text they are made again, and are the same.
  std::ofstream(text) << corpus(600);
  EXPECT_TRUE(weights(run(r, "run", true).checkpoint) == weights(whole.checkpoint));
}

}  // namespace
}  // namespace cachalot::train
