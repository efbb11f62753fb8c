// What a run makes of what it is given beside sizes: configs, folders to go on from, token files,
// texts too short to hold anything out.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "io/safetensors.h"
#include "kernels/context.h"
#include "kernels/table.h"
#include "model/convert.h"
#include "model/end_tokens.h"
#include "text/token_file.h"
#include "text/tokenizer.h"
#include "train/checkpoint.h"
#include "train/run_model.h"
#include "train/trainer_case_test.h"

namespace cachalot::train {
namespace {

using RunInputs = TrainerTest;

// A recipe that takes its sizes from a folder or config.json.
Recipe sizes_from(Recipe r, const fs::path& config, const fs::path& init_from) {
  r.model = ModelRecipe{};
  r.model.config = config.string();
  r.model.init_from = init_from.string();
  return r;
}

void write_text(const fs::path& file, const std::string& text) {
  std::ofstream(file, std::ios::binary) << text;
}

TEST_F(RunInputs, TextsEndWhereTheTokenizerSaysNotTheConfig) {
  model::Config foreign = model::load_config(run(recipe({"schedule.steps=2"}), "a").checkpoint);
  foreign.bos_token_id = 5;
  foreign.eos_token_ids = {7};
  const fs::path file = dir_.path() / "foreign.json";
  write_text(file, model::to_json(foreign));
  const auto trained = [&](const Recipe& r, const std::string& name) {
    return model::load_config(run(sizes_from(r, file, {}), name).checkpoint);
  };
  const model::Config bpe = trained(recipe({"schedule.steps=2"}), "bpe");
  EXPECT_NE(bpe.eos_token_ids, foreign.eos_token_ids);
  EXPECT_EQ(bpe.eos_token_ids.size(), 1U);
  const model::Config bytes = trained(recipe({"schedule.steps=2", "data.train_bpe=256"}), "bytes");
  EXPECT_EQ(bytes.eos_token_ids, std::vector<int>{256});
  const model::Config endless = trained(
      recipe({"schedule.steps=2", "data.train_bpe=256", "data.end_documents=false"}), "endless");
  EXPECT_TRUE(endless.eos_token_ids.empty());
  EXPECT_EQ(endless.bos_token_id, -1);
  // A folder that goes on with its own tokenizer keeps its own ends.
  write_text(dir_.path() / "a/model/config.json", model::to_json(foreign));
  Recipe on = sizes_from(recipe({"schedule.steps=2"}), {}, dir_.path() / "a/model");
  on.data.train_bpe = 0;
  EXPECT_EQ(model::load_config(run(on, "on").checkpoint).eos_token_ids, foreign.eos_token_ids);
}

// A chat model's answers end with tokens that its generation_config.json alone may name.
TEST_F(RunInputs, AFolderThatIsGoneOnWithKeepsItsEndTokens) {
  const fs::path source = run(recipe({"schedule.steps=2"}), "source").checkpoint;
  write_text(source / "generation_config.json", R"({"eos_token_id": [7, 5]})");
  const model::Config config = model::load_config(source);
  ASSERT_EQ(config.eos_token_ids.size(), 1U);
  const std::vector<std::int32_t> wanted{config.eos_token_ids[0], 7, 5};
  Recipe on = sizes_from(recipe({"schedule.steps=2", "optimizer.ema_decay=0.9"}), {}, source);
  on.data.train_bpe = 0;
  const fs::path trained = run(on, "on").checkpoint;
  for (const fs::path& folder : {trained, trained / "ema"}) {
    const model::Config own = model::load_config(folder);
    EXPECT_EQ(own.eos_token_ids, config.eos_token_ids);
    EXPECT_EQ(model::end_tokens(own, folder), wanted);
  }
  // Named once more, under another name or as a copy, it is the same tokenizer.
  const fs::path link = dir_.path() / "link", copy = dir_.path() / "copy";
  fs::create_directory_symlink(source, link);
  fs::create_directories(copy);
  for (const char* file : {"tokenizer.json", "tokenizer_config.json"}) {
    fs::copy_file(source / file, copy / file);
  }
  Recipe named = on;
  for (const fs::path& same : {source, link, copy}) {
    named.data.tokenizer = same.string();
    const fs::path folder = run(named, "named-" + same.filename().string()).checkpoint;
    EXPECT_EQ(model::end_tokens(model::load_config(folder), folder), wanted) << same;
  }
  // One with another end is not: the end that is asked for is its own.
  const auto end = text::Tokenizer::load(copy).eos_id(),
             begin = text::Tokenizer::load(copy).bos_id();
  ASSERT_TRUE(end && begin && *end != *begin);
  nlohmann::json changed =
      nlohmann::json::parse(read_file(copy / "tokenizer_config.json", 1 << 20));
  changed["eos_token"] = changed["bos_token"];
  write_text(copy / "tokenizer_config.json", changed.dump());
  const fs::path ended = run(named, "other-end").checkpoint;
  EXPECT_EQ(model::end_tokens(model::load_config(ended), ended), std::vector<std::int32_t>{*begin});
  // Under another tokenizer those numbers are other tokens.
  Recipe other = on;
  other.data.tokenizer = run(recipe({"schedule.steps=2", "data.train_bpe=256"}), "b").checkpoint;
  const fs::path foreign = run(other, "foreign").checkpoint;
  EXPECT_EQ(model::end_tokens(model::load_config(foreign), foreign),
            std::vector<std::int32_t>{256});
}

TEST_F(RunInputs, TokenFilesBringTheirTokenizer) {
  const fs::path first = run(recipe({"schedule.steps=2"}), "first").checkpoint;
  const fs::path data = dir_.path() / "first/data";
  Recipe r = recipe({"schedule.steps=2"});
  r.data.corpus.clear();
  r.data.train_bpe = 0;
  r.data.tokens = {(data / "train.tokens").string(), (data / "validation.tokens").string()};
  r.data.tokenizer = first.string();
  const TrainResult result = run(r, "tokens");
  EXPECT_GT(result.validation.tokens, 0);
  EXPECT_EQ(model::load_config(result.checkpoint).eos_token_ids,
            model::load_config(first).eos_token_ids);
  // Going on from a folder, its tokenizer is taken.
  Recipe on = sizes_from(r, {}, first);
  on.data.tokenizer.clear();
  EXPECT_TRUE(fs::exists(run(on, "on").checkpoint / "tokenizer.json"));
  // Files of another tokenizer, or none at all, are refused before the first step.
  std::int64_t steps = 0;
  TrainHooks hooks;
  hooks.on_step = [&](const StepReport&) { ++steps; };
  const fs::path other = run(recipe({"schedule.steps=2", "data.train_bpe=256"}), "b").checkpoint;
  Recipe wrong = r;
  wrong.data.tokenizer = other.string();
  EXPECT_EQ(code_of([&] { run(wrong, "c", false, 1, hooks); }), Code::kConfig);
  wrong = r;
  wrong.data.tokens[1] = (dir_.path() / "b/data/validation.tokens").string();
  EXPECT_EQ(code_of([&] { run(wrong, "d", false, 1, hooks); }), Code::kConfig);
  wrong.data.tokens[1] = (data / "typo.tokens").string();
  EXPECT_EQ(code_of([&] { run(wrong, "e", false, 1, hooks); }), Code::kIo);
  EXPECT_EQ(steps, 0);
}

TEST_F(RunInputs, AFolderOfIntegersIsGoneOnWithInFloats) {
  const fs::path whole = run(recipe({"schedule.steps=2"}), "whole").checkpoint;
  const fs::path packed = dir_.path() / "int8";
  model::ConvertOptions options;
  options.format = model::WeightFormat::kInt8;
  model::convert_model(Context{&kReferenceTable}, whole, packed, options);
  ASSERT_TRUE(model::load_config(packed).packed.enabled);
  Recipe r = sizes_from(recipe({"schedule.steps=2"}), {}, packed);
  r.data.train_bpe = 0;
  const fs::path trained = run(r, "on").checkpoint;
  EXPECT_FALSE(model::load_config(trained).packed.enabled);
  EXPECT_EQ(io::Safetensors::open(trained).at("lm_head.weight").dtype, DType::kF32);
}

// Published folders may lack the MTP layer that their config counts.
TEST_F(RunInputs, AFolderWithoutItsMtpLayerIsGoneOnWithWithout) {
  const fs::path whole = run(recipe({"schedule.steps=2"}), "whole").checkpoint;
  const fs::path less = dir_.path() / "less";
  fs::create_directories(less);
  for (const char* name : {"config.json", "tokenizer.json", "tokenizer_config.json"}) {
    fs::copy_file(whole / name, less / name);
  }
  const auto file = io::Safetensors::open(whole);
  std::vector<io::TensorToWrite> kept;
  for (const auto& [name, t] : file.tensors()) {
    if (name.starts_with("model.layers.2.")) continue;
    kept.push_back({name, t.dtype, t.shape, t.data});
  }
  ASSERT_LT(kept.size(), file.tensors().size());
  io::write_safetensors(less / "model.safetensors", kept);
  Recipe r = sizes_from(recipe({"schedule.steps=2"}), {}, less);
  r.data.train_bpe = 0;
  const fs::path trained = run(r, "on").checkpoint;
  EXPECT_EQ(model::load_config(trained).num_nextn_predict_layers, 0);
}

TEST_F(RunInputs, TheEmbeddingBeginsWithTheMeanThatIsAskedFor) {
  const auto drawn = [&](double mean) {
    Recipe r = recipe();
    r.model.init_embedding_mean = mean;
    model::Parameters parameters(model_config(r, {.vocab_size = 300}));
    initialise(Context{}, r, parameters);
    return parameters;
  };
  model::Parameters without = drawn(0), with = drawn(0.1);
  double squares = 0;
  for (std::size_t i = 0; i < with.list().size(); ++i) {
    const model::Parameter& p = with.list()[i];
    const std::span<const float> a = without.value(without.list()[i]), b = with.value(p);
    if (p.name != "model.embed_tokens.weight") {
      EXPECT_TRUE(std::ranges::equal(a, b)) << p.name;
      continue;
    }
    // The same vector on top of every row.
    for (std::size_t j = 0; j < a.size(); ++j) {
      const std::size_t column = j % static_cast<std::size_t>(p.cols);
      ASSERT_NEAR(b[j] - a[j], b[column] - a[column], 1e-6) << j;
      squares += (b[j] - a[j]) * (b[j] - a[j]);
    }
    // 32 numbers: their deviation is known to an eighth.
    EXPECT_NEAR(std::sqrt(squares / static_cast<double>(a.size())), 0.1, 0.05);
  }
  EXPECT_GT(squares, 0);
}

TEST_F(RunInputs, SequencesLongerThanTheContextAreRefused) {
  model::Config config = model::load_config(run(recipe({"schedule.steps=2"}), "a").checkpoint);
  config.max_position_embeddings = 23;  // data.seq_len is 24
  const fs::path file = dir_.path() / "short.json";
  write_text(file, model::to_json(config));
  EXPECT_EQ(code_of([&] { run(sizes_from(recipe(), file, {}), "b"); }), Code::kConfig);
  config.max_position_embeddings = 24;
  write_text(file, model::to_json(config));
  run(sizes_from(recipe({"schedule.steps=2"}), file, {}), "c");
}

TEST_F(RunInputs, ALineWithoutEndIsHeldOutFromToo) {
  std::string line = corpus(200);
  std::replace(line.begin(), line.end(), '\n', ' ');
  write_text(dir_.path() / "line.txt", line + "\n");
  const Recipe r =
      recipe({"schedule.steps=2", "data.corpus=" + (dir_.path() / "line.txt").string()});
  EXPECT_GT(run(r, "run").validation.tokens, 1);
}

TEST_F(RunInputs, TooLittleToValidateOnIsSaid) {
  write_text(dir_.path() / "short.txt", corpus(10).substr(0, 200));
  const std::string corpus = "data.corpus=" + (dir_.path() / "short.txt").string();
  const std::vector<std::string> bytes{corpus, "data.train_bpe=256", "data.end_documents=false",
                                       "schedule.steps=2"};
  for (const char* fraction : {"0.005", "1e-6"}) {
    std::vector<std::string> more = bytes;
    more.push_back(std::string("data.validation_fraction=") + fraction);
    const std::string error = text_of_error([&] { run(recipe(more), "run"); });
    EXPECT_NE(error.find("validation_fraction"), std::string::npos) << error;
  }
  std::vector<std::string> more = bytes;
  more.push_back("data.validation_fraction=0.01");  // two bytes: one to read, one to predict
  EXPECT_EQ(run(recipe(more), "two").validation.tokens, 1);
}

// Killed between a checkpoint and its link, or between the link and the removal of what it pointed
// at.
TEST_F(RunInputs, ALinkLeftBehindIsSetRight) {
  const Recipe r = recipe({"schedule.steps=4", "run.checkpoint_every=2", "run.keep_last=1"});
  const TrainResult result = run(r, "run");
  const fs::path link = dir_.path() / "run/model";
  fs::remove(link);
  fs::create_directory_symlink("checkpoints/step-2", link);
  EXPECT_FALSE(fs::exists(link / "config.json"));
  fs::create_directory_symlink("checkpoints/step-1", dir_.path() / "run/model.new");
  run(r, "run", true);
  EXPECT_TRUE(fs::equivalent(link, result.checkpoint));
}

TEST_F(RunInputs, FittingAScheduleNeverLengthensIt) {
  const TrainResult result =
      run(recipe({"schedule.steps=7", "schedule.warmup_steps=7", "run.fit_minutes=10"}), "whole");
  EXPECT_EQ(result.step, 7);
  // Nor does a speed of one cold step decide: five are taken at least.
  const TrainResult least = run(
      recipe({"schedule.steps=1000", "schedule.warmup_steps=0", "run.fit_minutes=1e-9"}), "least");
  EXPECT_EQ(least.step, 6);
}

}  // namespace
}  // namespace cachalot::train
