// Whole runs on a small corpus: learning, saving, resuming to the same bits, and refusing what
// cannot be right.
#include "train/trainer.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstring>
#include <fstream>
#include <limits>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/rng.h"
#include "io/safetensors.h"
#include "testing/fixtures.h"
#include "train/checkpoint.h"

namespace cachalot::train {
namespace {

namespace fs = std::filesystem;

// Sentences of a tiny grammar: enough structure to learn, different everywhere.
std::string corpus(int sentences) {
  const char* const who[] = {"the whale", "a sailor", "the captain", "one gull", "the old ship"};
  const char* const does[] = {"sees", "follows", "fears", "calls", "loses"};
  const char* const what[] = {"the sea", "a storm", "the light", "the white whale", "its way"};
  const Rng rng(9);
  std::string text;
  for (int i = 0; i < sentences; ++i) {
    const auto at = static_cast<std::uint64_t>(3 * i);
    text += std::string(who[rng.below(at, 5)]) + " " + does[rng.below(at + 1, 5)] + " " +
            what[rng.below(at + 2, 5)] + ".\n";
  }
  return text;
}

class TrainerTest : public ::testing::Test {
 protected:
  void SetUp() override { std::ofstream(dir_.path() / "corpus.txt") << corpus(600); }

  Recipe recipe(const std::vector<std::string>& more = {}) const {
    const std::string toml = R"(
[model]
hidden_size = 32
num_hidden_layers = 2
first_k_dense_replace = 1
intermediate_size = 48
moe_intermediate_size = 16
num_attention_heads = 2
q_lora_rank = 16
kv_lora_rank = 16
qk_nope_head_dim = 8
qk_rope_head_dim = 4
v_head_dim = 8
n_routed_experts = 4
num_experts_per_tok = 2
init_std = 0.05
[data]
corpus = ["corpus.txt"]
train_bpe = 320
seq_len = 24
[optimizer]
lr = 1e-2
[schedule]
steps = 12
warmup_steps = 2
batch = 4
micro_batch = 2
[run]
precision = "f32"
checkpoint_every = 3
keep_last = 3
)";
    return parse_recipe(toml, "test.toml", more, dir_.path());
  }

  TrainResult run(const Recipe& r, const std::string& name, bool resume = false, int threads = 1,
                  const TrainHooks& hooks = {}) const {
    const runtime::Runtime runtime({threads, ""});
    return train(r, {dir_.path() / name, resume}, runtime, hooks);
  }

  static std::string weights(const fs::path& checkpoint) {
    return read_file(checkpoint / "model.safetensors", 1 << 28) +
           read_file(checkpoint / "optimizer.safetensors", 1 << 28);
  }

  testing::TempDir dir_;
};

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
  for (const std::string precision : {"f32", "bf16"}) {
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

Code code_of(const std::function<void()>& what) {
  try {
    what();
  } catch (const Error& e) {
    return e.code();
  }
  return Code::kInternal;
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

TEST_F(TrainerTest, EmptyCorpusIsAConfigError) {
  write_file_atomically(dir_.path() / "empty.txt", "");
  EXPECT_EQ(
      code_of([&] { run(recipe({"data.corpus=" + (dir_.path() / "empty.txt").string()}), "run"); }),
      Code::kConfig);
}

}  // namespace
}  // namespace cachalot::train
