// A small corpus and recipes for whole runs on it.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/rng.h"
#include "testing/fixtures.h"
#include "train/trainer.h"

namespace cachalot::train {

namespace fs = std::filesystem;

// Sentences of a tiny grammar: enough structure to learn, different everywhere.
inline std::string corpus(int sentences) {
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

inline Code code_of(const std::function<void()>& what) {
  try {
    what();
  } catch (const Error& e) {
    return e.code();
  }
  return Code::kInternal;
}

inline std::string text_of_error(const std::function<void()>& what) {
  try {
    what();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

}  // namespace cachalot::train
