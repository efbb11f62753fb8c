// Whole runs on a small corpus: learning, saving, resuming to the same bits, and refusing what
// cannot be right.
#include "train/trainer.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstring>
#include <limits>
#include <tuple>

#include "base/atomic_file.h"
#include "base/error.h"
#include "io/safetensors.h"
#include "text/token_file.h"
#include "train/checkpoint.h"
#include "train/trainer_case_test.h"

namespace cachalot::train {
namespace {

TEST_F(TrainerTest, LearnsAndWritesAModelFolder) {
  std::vector<double> losses;
  TrainHooks hooks;
  hooks.on_step = [&](const StepReport& r) { losses.push_back(r.loss); };
  const TrainResult result =
      run(recipe({"schedule.steps=60", "run.checkpoint_every=0"}), "run", false, 2, hooks);
  EXPECT_EQ(result.ended, Ended::kDone);
  EXPECT_EQ(result.step, 60);
  ASSERT_EQ(losses.size(), 60U);
  EXPECT_LT(losses.back(), 0.6 * losses.front());
  EXPECT_GT(result.validation.tokens, 0);
  EXPECT_LT(result.validation.loss, 0.6 * losses.front());
  for (const char* file :
       {"config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json",
        "model.safetensors", "optimizer.safetensors", "trainer.json", "checksums.json"}) {
    EXPECT_TRUE(fs::exists(result.checkpoint / file)) << file;
    EXPECT_TRUE(fs::exists(dir_.path() / "run" / "model" / file)) << file;
  }
  // The folder opens as any model folder does, with published names.
  const auto file = io::Safetensors::open(result.checkpoint / "model.safetensors");
  EXPECT_NE(file.find("model.layers.1.mlp.experts.3.down_proj.weight"), nullptr);
  EXPECT_NE(file.find("model.layers.2.eh_proj.weight"), nullptr);
}

TEST_F(TrainerTest, ResumeGivesTheSameBitsWhereverItStopped) {
  for (const std::string precision : {"f32", "bf16", "fp8"}) {
    const Recipe r = recipe({"run.precision=" + precision});
    const std::string whole = weights(run(r, "whole-" + precision).checkpoint);
    for (const int stop_after : {1, 4, 6, 11}) {
      const std::string name = "stopped-" + precision + std::to_string(stop_after);
      std::atomic<bool> stop{false};
      TrainHooks hooks;
      hooks.stop = &stop;
      hooks.on_step = [&](const StepReport& report) {
        if (report.step == stop_after) stop = true;
      };
      const TrainResult first = run(r, name, false, 1, hooks);
      EXPECT_EQ(first.ended, Ended::kStopped);
      EXPECT_EQ(first.step, stop_after);
      const TrainResult second = run(r, name, true, 3);  // and with other threads
      EXPECT_EQ(second.step, 12);
      EXPECT_TRUE(weights(second.checkpoint) == whole)
          << precision << " stopped after " << stop_after;
    }
  }
}

TEST_F(TrainerTest, ResumeWithDropoutGivesTheSameBits) {
  for (const std::string precision : {"f32", "bf16", "fp8"}) {
    const Recipe r = recipe({"run.precision=" + precision, "regularization.dropout=0.2"});
    const TrainResult whole = run(r, "drop-" + precision);
    const Recipe plain = recipe({"run.precision=" + precision});
    EXPECT_FALSE(weights(run(plain, "keep-" + precision).checkpoint) == weights(whole.checkpoint));
    for (const int stop_after : {1, 5}) {
      const std::string name = "drop-" + precision + std::to_string(stop_after);
      std::atomic<bool> stop{false};
      TrainHooks hooks;
      hooks.stop = &stop;
      hooks.on_step = [&](const StepReport& report) { stop = report.step == stop_after; };
      run(r, name, false, 1, hooks);
      const TrainResult second = run(r, name, true, 3);
      EXPECT_EQ(second.step, 12);
      EXPECT_TRUE(weights(second.checkpoint) == weights(whole.checkpoint))
          << precision << " stopped after " << stop_after;
    }
  }
}

// Another rate computes something else, so a run cannot go on with it.
TEST_F(TrainerTest, TheRateOfDropoutCannotChange) {
  run(recipe({"schedule.steps=3", "regularization.dropout=0.1"}), "run");
  try {
    run(recipe({"schedule.steps=3", "regularization.dropout=0.2"}), "run", true);
    FAIL() << "went on";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("regularization.dropout"), std::string::npos) << e.what();
  }
}

TEST_F(TrainerTest, MomentsAreWrittenInTheirTypeAndResumeToTheSameBits) {
  for (const auto& [type, dtype, bytes] :
       {std::tuple{"f32", DType::kF32, 12.0}, std::tuple{"bf16", DType::kBF16, 8.0}}) {
    const Recipe r = recipe({std::string("optimizer.moments=") + type, "optimizer.ema_decay=0.9"});
    const std::string name = std::string("moments-") + type;
    const TrainResult whole = run(r, name);
    EXPECT_EQ(whole.optimizer_bytes_per_parameter, bytes);
    const auto file = io::Safetensors::open(whole.checkpoint / "optimizer.safetensors");
    for (const std::string moment : {"m.", "v."}) {
      EXPECT_EQ(file.at(moment + "model.layers.1.self_attn.o_proj.weight").dtype, dtype) << type;
    }
    std::atomic<bool> stop{false};
    TrainHooks hooks;
    hooks.stop = &stop;
    hooks.on_step = [&](const StepReport& report) { stop = report.step == 5; };
    run(r, name + "-stopped", false, 1, hooks);
    const TrainResult second = run(r, name + "-stopped", true, 2);
    EXPECT_TRUE(weights(second.checkpoint) == weights(whole.checkpoint)) << type;
    EXPECT_TRUE(read_file(second.checkpoint / "ema" / "model.safetensors", 1 << 28) ==
                read_file(whole.checkpoint / "ema" / "model.safetensors", 1 << 28));
  }
  // f32 runs keep float moments, the others bf16, unless the recipe says otherwise.
  EXPECT_EQ(recipe().moment_type(), DType::kF32);
  EXPECT_EQ(recipe({"run.precision=bf16"}).moment_type(), DType::kBF16);
  EXPECT_EQ(recipe({"optimizer.moments=bf16"}).moment_type(), DType::kBF16);
}

TEST_F(TrainerTest, WhatSomebodyWroteInTheFolderStays) {
  const Recipe r = recipe({"schedule.steps=2"});
  const fs::path folder = dir_.path() / "mine";
  fs::create_directories(folder / "tokenizer");
  write_file_atomically(folder / "recipe.toml", "# my notes\n" + to_toml(r));
  const std::string refused = text_of_error([&] { run(r, "mine"); });
  EXPECT_NE(refused.find("recipe.toml is not as a run writes it"), std::string::npos) << refused;
  EXPECT_EQ(read_file(folder / "recipe.toml", 1 << 20), "# my notes\n" + to_toml(r));
  EXPECT_TRUE(fs::exists(folder / "tokenizer"));
  // What a run wrote that saved nothing is begun anew.
  write_file_atomically(folder / "recipe.toml", to_toml(r));
  EXPECT_EQ(run(r, "mine").step, 2);
  for (const bool is_folder : {false, true}) {
    const fs::path other = dir_.path() / (is_folder ? "folder" : "file");
    fs::create_directories(is_folder ? other / "model" : other);
    if (!is_folder) write_file_atomically(other / "model", "mine");
    const std::string taken = text_of_error([&] { run(r, other.filename().string()); });
    EXPECT_NE(taken.find("model is there already"), std::string::npos) << taken;
    EXPECT_FALSE(fs::exists(other / "checkpoints"));
  }
}

TEST_F(TrainerTest, ARunIsNotGoneOnWithOnOtherTokens) {
  const Recipe r = recipe({"schedule.steps=2", "data.train_bpe=256"});
  run(r, "run");
  fs::remove_all(dir_.path() / "run" / "data");  // made again from the text
  EXPECT_EQ(run(r, "run", true).step, 2);
  fs::remove_all(dir_.path() / "run" / "data");
  std::ofstream(dir_.path() / "corpus.txt") << corpus(599);
  const std::string other = text_of_error([&] { run(r, "run", true); });
  EXPECT_NE(other.find("trained on other tokens"), std::string::npos) << other;
  // What was made of the wrong text does not stand in the way of the right one.
  std::ofstream(dir_.path() / "corpus.txt") << corpus(600);
  EXPECT_EQ(run(r, "run", true).step, 2);
}

TEST_F(TrainerTest, TheTypeOfTheMomentsCannotChange) {
  run(recipe({"schedule.steps=3"}), "run");
  const std::string other = text_of_error([&] {
    run(recipe({"schedule.steps=3", "optimizer.moments=bf16"}), "run", true);
  });
  EXPECT_NE(other.find("optimizer.moments"), std::string::npos) << other;
  // Someone edits the stored recipe too: the file itself says it.
  const fs::path stored = dir_.path() / "run" / "recipe.toml";
  std::string toml = read_file(stored, 1 << 20);
  const std::string was = "moments = \"auto\"";
  ASSERT_NE(toml.find(was), std::string::npos) << toml;
  write_file_atomically(stored, toml.replace(toml.find(was), was.size(), "moments = \"bf16\""));
  const std::string file = text_of_error([&] {
    run(recipe({"schedule.steps=3", "optimizer.moments=bf16"}), "run", true);
  });
  EXPECT_NE(file.find("the moments are F32, but this run keeps BF16"), std::string::npos) << file;
}

TEST_F(TrainerTest, TheMeanOfTheWeightsIsAModelOfItsOwn) {
  const Recipe r = recipe({"optimizer.ema_decay=0.8", "schedule.steps=20"});
  const TrainResult result = run(r, "run");
  EXPECT_GT(result.average.tokens, 0);
  EXPECT_EQ(result.average.tokens, result.validation.tokens);
  EXPECT_NE(result.average.loss, result.validation.loss);
  const fs::path ema = result.checkpoint / "ema";
  for (const char* file : {"config.json", "tokenizer.json", "tokenizer_config.json",
                           "generation_config.json", "model.safetensors"}) {
    EXPECT_TRUE(fs::exists(ema / file)) << file;
  }
  EXPECT_EQ(check_checkpoint(result.checkpoint), "");
  // Trained on for no step from the mean, a run finds the loss that was reported for it.
  Recipe again = recipe(
      {"schedule.steps=1", "schedule.warmup_steps=0", "optimizer.lr=0", "loss.bias_gamma=0"});
  again.model = ModelRecipe{};
  again.model.init_from = ema.string();
  again.data.train_bpe = 0;
  EXPECT_NEAR(run(again, "again").validation.loss, result.average.loss, 1e-6);
  // The weights themselves are those of a run without a mean.
  EXPECT_TRUE(weights(run(recipe({"schedule.steps=20"}), "plain").checkpoint) ==
              weights(result.checkpoint));
  // Damage in the folder shows like any other.
  fs::resize_file(ema / "model.safetensors", 100);
  EXPECT_NE(check_checkpoint(result.checkpoint).find("ema/model.safetensors"), std::string::npos);
}

TEST_F(TrainerTest, ByteTokensAreCutAtTheByteAndHaveNoEnd) {
  const Recipe r = recipe({"data.train_bpe=256", "data.end_documents=false", "schedule.steps=2",
                           "run.eval_batches=100000"});
  const TrainResult result = run(r, "run");
  const std::string text = read_file(dir_.path() / "corpus.txt", 1 << 20);
  const std::size_t cut = text.size() * 9 / 10;
  const text::TokenFile training(dir_.path() / "run" / "data" / "train.tokens");
  const text::TokenFile held_out(dir_.path() / "run" / "data" / "validation.tokens");
  EXPECT_EQ(training.info().tokens, cut);
  EXPECT_EQ(held_out.info().tokens, text.size() - cut);
  EXPECT_EQ(held_out.info().vocab_size, 256U);
  std::vector<std::int32_t> ids(held_out.info().tokens);
  held_out.read(0, ids);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    ASSERT_EQ(ids[i], static_cast<unsigned char>(text[cut + i])) << i;
  }
  EXPECT_EQ(result.validation.tokens, static_cast<std::int64_t>(ids.size()) - 1)
      << "each but the first is predicted once";
  EXPECT_NEAR(result.validation.bits_per_byte, result.validation.loss / std::log(2.0), 1e-9);
  // With ends there is one token more, and it is in the vocabulary.
  run(recipe({"data.train_bpe=256", "schedule.steps=2"}), "ends");
  const text::TokenFile ended(dir_.path() / "ends" / "data" / "validation.tokens");
  EXPECT_EQ(ended.info().tokens, ids.size() + 1);
  EXPECT_EQ(ended.info().vocab_size, 257U);
}

TEST_F(TrainerTest, RandomTokensNeedNoText) {
  Recipe r = recipe({"data.corpus=", "data.train_bpe=0", "data.random_tokens=3000",
                     "model.vocab_size=77", "schedule.steps=2"});
  const TrainResult result = run(r, "run");
  EXPECT_EQ(result.step, 2);
  EXPECT_EQ(result.validation.tokens, 0);
  EXPECT_NEAR(result.loss, std::log(77.0), 0.5);
  const text::TokenFile file(dir_.path() / "run" / "data" / "train.tokens");
  EXPECT_EQ(file.info().tokens, 3000U);
  std::vector<std::int32_t> ids(3000), count(77);
  file.read(0, ids);
  for (const std::int32_t id : ids) ++count[static_cast<std::size_t>(id)];
  // 39 each with a standard deviation of 6.2: seven of them would be one in 10^11.
  for (const std::int32_t n : count) EXPECT_NEAR(n, 39, 44);
  EXPECT_GT(*std::min_element(count.begin(), count.end()), 0);
}

TEST_F(TrainerTest, ADamagedCheckpointIsSkippedAndTheRunEndsTheSame) {
  const Recipe r = recipe();
  const TrainResult whole = run(r, "whole");
  std::atomic<bool> stop{false};
  std::vector<std::string> said;
  TrainHooks hooks;
  hooks.stop = &stop;
  hooks.on_step = [&](const StepReport& report) { stop = report.step == 7; };
  hooks.on_message = [&](const std::string& text) { said.push_back(text); };
  const TrainResult first = run(r, "damaged", false, 1, hooks);
  fs::resize_file(first.checkpoint / "model.safetensors", 1000);
  stop = false;
  hooks.on_step = {};
  const TrainResult second = run(r, "damaged", true, 1, hooks);
  EXPECT_TRUE(weights(second.checkpoint) == weights(whole.checkpoint));
  EXPECT_TRUE(std::any_of(said.begin(), said.end(), [](const std::string& s) {
    return s.find("skipped") != std::string::npos && s.find("step-7") != std::string::npos;
  }));
}

TEST_F(TrainerTest, RefusesWhatWouldMixTwoRuns) {
  const Recipe r = recipe();
  run(r, "run");
  EXPECT_EQ(code_of([&] { run(r, "run"); }), Code::kUsage);  // not asked to resume
  EXPECT_EQ(code_of([&] { run(recipe({"optimizer.lr=0.5"}), "run", true); }), Code::kUsage);
  const RunLock held(dir_.path() / "run");
  EXPECT_EQ(code_of([&] { run(r, "run", true); }), Code::kBusy);
}

TEST_F(TrainerTest, AFullDiskLeavesTheOlderCheckpointWhole) {
  const Recipe r = recipe();
  std::atomic<bool> stop{false};
  TrainHooks hooks;
  hooks.stop = &stop;
  hooks.on_step = [&](const StepReport& report) { stop = report.step == 3; };
  const TrainResult first = run(r, "run", false, 1, hooks);
  struct rlimit before {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  struct rlimit small = before;
  small.rlim_cur = 40000;  // less than the model file needs
  std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const Code code = code_of([&] { run(r, "run", true); });
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_EQ(code, Code::kIo);
  EXPECT_EQ(check_checkpoint(first.checkpoint), "");
  const TrainResult second = run(r, "run", true);
  EXPECT_TRUE(weights(second.checkpoint) == weights(run(r, "whole").checkpoint));
}

TEST_F(TrainerTest, StopsWithAClearErrorWhenNothingIsFinite) {
  const fs::path poisoned = run(recipe({"schedule.steps=2"}), "source").checkpoint;
  const fs::path file = poisoned / "model.safetensors";
  std::string bytes = read_file(file, 1 << 28);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  {
    const auto model = io::Safetensors::open(file);
    const auto& norm = model.at("model.norm.weight");
    // The file is mapped from its first byte, so the distance between two tensors is that in the
    // file.
    const auto* first = static_cast<const char*>(norm.data);
    const std::string head(first, 8);
    const std::size_t at = bytes.find(head);
    ASSERT_NE(at, std::string::npos);
    std::memcpy(bytes.data() + at, &nan, sizeof(nan));
  }
  write_file_atomically(file, bytes);
  Recipe r = recipe();
  r.model = ModelRecipe{};
  r.model.init_from = poisoned.string();
  r.data.train_bpe = 0;
  r.data.tokenizer = poisoned.string();
  std::int64_t skipped = 0;
  TrainHooks hooks;
  hooks.on_step = [&](const StepReport& report) { skipped += report.skipped ? 1 : 0; };
  EXPECT_EQ(code_of([&] { run(r, "run", false, 1, hooks); }), Code::kNumeric);
  EXPECT_EQ(skipped, 10);
  EXPECT_FALSE(find_newest_checkpoint(dir_.path() / "run").path);
}

// lr * weight_decay of 100 multiplies every matrix by -99 a step, until products overflow: a run
// that diverges by its recipe alone, after steps that were good.
TEST_F(TrainerTest, ADivergingRunStopsAndItsLastGoodCheckpointStands) {
  for (const std::string precision : {"f32", "bf16", "fp8"}) {
    const std::vector<std::string> wild{"optimizer.lr=10",         "optimizer.weight_decay=10",
                                        "schedule.warmup_steps=0", "schedule.decay=none",
                                        "schedule.steps=200",      "run.checkpoint_every=1",
                                        "run.max_skips=4",         "run.precision=" + precision};
    const std::string name = "wild-" + precision;
    std::int64_t last_good = 0, skipped = 0, steps = 0;
    std::vector<std::string> said;
    TrainHooks hooks;
    hooks.on_step = [&](const StepReport& report) {
      steps = report.step;
      if (report.skipped) ++skipped;
      if (!report.skipped) last_good = report.step;
    };
    hooks.on_message = [&](const std::string& text) { said.push_back(text); };
    const Recipe r = recipe(wild);
    const std::string error = text_of_error([&] { run(r, name, false, 1, hooks); });
    EXPECT_GT(last_good, 0) << "it began well";
    EXPECT_EQ(steps, last_good + 4) << "four skipped in a row";
    EXPECT_NE(error.find("4 steps in a row"), std::string::npos) << error;
    EXPECT_NE(error.find("step-" + std::to_string(last_good)), std::string::npos) << error;
    EXPECT_NE(error.find("optimizer.lr"), std::string::npos) << error;
    EXPECT_EQ(std::count_if(said.begin(), said.end(),
                            [](const auto& s) { return s.find("skipped") != std::string::npos; }),
              skipped);
    const FoundCheckpoint found = find_newest_checkpoint(dir_.path() / name);
    ASSERT_TRUE(found.path) << "the last good one stands";
    EXPECT_EQ(found.step, last_good);
    const auto model = io::Safetensors::open(*found.path / "model.safetensors");
    for (const float x : model.at("lm_head.weight").to_floats()) ASSERT_TRUE(std::isfinite(x));
    // Resumed, it meets the same end at the same step: nothing was lost, nothing made up.
    std::int64_t again = 0;
    hooks.on_step = [&](const StepReport& report) { again = report.step; };
    EXPECT_EQ(code_of([&] { run(r, name, true, 2, hooks); }), Code::kNumeric);
    EXPECT_EQ(again, steps);
  }
}

// Stopped between two skipped steps and resumed, the count in a row goes on.
TEST_F(TrainerTest, SkippedStepsAreCountedOverAResume) {
  const Recipe r = recipe({"optimizer.lr=10", "optimizer.weight_decay=10", "schedule.decay=none",
                           "schedule.warmup_steps=0", "schedule.steps=200", "run.max_skips=6"});
  std::int64_t skipped = 0;
  std::atomic<bool> stop{false};
  TrainHooks hooks;
  hooks.stop = &stop;
  hooks.on_step = [&](const StepReport& report) {
    skipped += report.skipped ? 1 : 0;
    if (skipped == 2 && report.skipped) stop = true;
  };
  const TrainResult first = run(r, "run", false, 1, hooks);
  EXPECT_EQ(first.ended, Ended::kStopped);
  EXPECT_EQ(first.skipped_steps, 2);
  stop = false;
  EXPECT_EQ(code_of([&] { run(r, "run", true, 1, hooks); }), Code::kNumeric);
  EXPECT_EQ(skipped, 6);
}

TEST_F(TrainerTest, EmptyCorpusIsAConfigError) {
  write_file_atomically(dir_.path() / "empty.txt", "");
  EXPECT_EQ(
      code_of([&] { run(recipe({"data.corpus=" + (dir_.path() / "empty.txt").string()}), "run"); }),
      Code::kConfig);
}

}  // namespace
}  // namespace cachalot::train
