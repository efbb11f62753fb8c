#include "train/recipe.h"

#include <gtest/gtest.h>

#include <fstream>
#include <set>

#include "base/error.h"
#include "testing/fixtures.h"

namespace cachalot::train {
namespace {

const std::string kMinimal = "[data]\ncorpus = [\"a.txt\"]\ntrain_bpe = 1000\n";

Recipe parse(const std::string& toml, std::vector<std::string> overrides = {}) {
  return parse_recipe(toml, "r.toml", overrides, "/srv");
}

Error error_of(const std::string& toml, std::vector<std::string> overrides = {}) {
  try {
    parse(toml, std::move(overrides));
  } catch (const Error& e) {
    return e;
  }
  ADD_FAILURE() << "accepted: " << toml;
  return {Code::kInternal, ""};
}

TEST(Recipe, DefaultsFileAndOverrides) {
  const Recipe recipe = parse(kMinimal +
                                  "validation_fraction = 0.25\n[optimizer]\nlr = 2e-3\n"
                                  "[schedule]\ndecay = \"linear\"\n[run]\nprecision = \"f32\"\n",
                              {"optimizer.lr=1e-4", "model.hidden_size=64", "optimizer.lr=5e-4"});
  EXPECT_EQ(5e-4, recipe.optimizer.lr);  // the last override wins
  EXPECT_EQ(64, recipe.model.hidden_size);
  EXPECT_EQ(0.25, recipe.data.validation_fraction);
  EXPECT_EQ(ScheduleRecipe::Decay::kLinear, recipe.schedule.decay);
  EXPECT_EQ(Precision::kF32, recipe.run.kernel_precision());
  EXPECT_EQ(0.95, recipe.optimizer.beta2);
  EXPECT_EQ((std::vector<std::string>{"/srv/a.txt"}), recipe.data.corpus);
}

TEST(Recipe, TheDumpParsesBackToTheSame) {
  for (const std::vector<std::string>& overrides : std::vector<std::vector<std::string>>{
           {},
           {"model.init_from=m", "data.train_bpe=0"},
           {"model.config=c.json", "data.document_separator=a\"\n\\b"},
           {"model.scoring_func=softmax", "model.topk_method=greedy", "optimizer.lr=0.1234567891",
            "run.precision=f32", "schedule.batch_start=4", "schedule.ramp_steps=10"}}) {
    const Recipe recipe = parse(kMinimal, overrides);
    const std::string dump = to_toml(recipe);
    const Recipe again = parse_recipe(dump, "again.toml", {}, "/elsewhere");
    EXPECT_EQ(dump, to_toml(again));
    EXPECT_TRUE(differences(recipe, again).empty());
  }
}

TEST(Recipe, EveryFieldIsListedOnceAndDumpedValuesAreAllRead) {
  Recipe recipe = parse(kMinimal);
  std::set<std::string> paths;
  for (const Field& field : fields_of(recipe)) {
    EXPECT_TRUE(paths.insert(field.path).second) << field.path << " is listed twice";
    EXPECT_NE(std::string::npos, recipe_help_markdown().find("`" + field.path + "`"));
    // A default outside its own range would be refused on the way back.
    EXPECT_NO_THROW(
        assign(fields_of(recipe), field.path, value_of(field), "default", Code::kInternal))
        << field.path;
  }
}

TEST(Recipe, UnknownKeysAndBadValues) {
  const Error unknown = error_of(kMinimal + "[optimizer]\nlearning = 1\nlrr = 1\n");
  EXPECT_EQ(Code::kUsage, unknown.code());
  const Error typo = error_of(kMinimal + "[optimizer]\nweight_decya = 1\n");
  EXPECT_EQ(Code::kUsage, typo.code());
  EXPECT_NE(std::string::npos, std::string(typo.what()).find("r.toml:5")) << typo.what();
  EXPECT_NE(std::string::npos, std::string(typo.what()).find("'optimizer.weight_decay'"));
  const Error range = error_of(kMinimal + "[optimizer]\nbeta1 = 1.0\n");
  EXPECT_EQ(Code::kConfig, range.code());
  EXPECT_NE(std::string::npos, std::string(range.what()).find("optimizer.beta1 = 1.0"));
  EXPECT_EQ(Code::kUsage, error_of(kMinimal, {"optimizer.beta1=1.0"}).code());
  EXPECT_EQ(Code::kFormat, error_of("[data\n").code());
}

TEST(Recipe, NumericsAreTheReportsUnlessTheRecipeSaysOtherwise) {
  const auto numerics = [](std::string_view run, std::vector<std::string> set = {}) {
    set.push_back(cat("run.precision=", run));
    return parse_recipe(kMinimal, "r.toml", set, ".").resolved_numerics();
  };
  EXPECT_FALSE(numerics("f32").fp8);
  EXPECT_EQ(nn::Keep::kF32, numerics("f32").swiglu_input);
  EXPECT_FALSE(numerics("f32").recompute_norms);
  EXPECT_EQ(nn::Keep::kBf16, numerics("bf16").attention_output);
  EXPECT_FALSE(numerics("bf16").recompute_up_projections);
  const nn::Numerics fp8 = numerics("fp8");
  EXPECT_TRUE(fp8.fp8 && fp8.recompute_up_projections && fp8.send_results);
  EXPECT_EQ(Precision::kBF16, fp8.products);
  EXPECT_EQ(nn::Keep::kE5m6, fp8.attention_output);
  EXPECT_EQ(ScaleTile::kRow, fp8.gradient_tile);

  EXPECT_EQ(ScaleTile::kBlock, numerics("fp8", {"numerics.gradient_tile=128x128"}).gradient_tile);
  EXPECT_EQ(nn::Keep::kBf16, numerics("fp8", {"numerics.attention_output=bf16"}).attention_output);
  EXPECT_EQ(numeric::Payload::kLogFmt10, numerics("fp8", {"numerics.combine=logfmt10"}).combine);
  EXPECT_FALSE(numerics("fp8", {"numerics.combine=f32"}).send_results);
  const Accumulation sums =
      numerics("fp8", {"numerics.accumulator=hopper", "numerics.promotion_interval=0"})
          .accumulation;
  EXPECT_EQ(Accumulator::kHopper, sums.kind);
  EXPECT_EQ(0, sums.interval);
  EXPECT_TRUE(numerics("bf16", {"numerics.recompute_up_projections=on"}).recompute_up_projections);
}

TEST(Recipe, Fp8SwitchesWithoutFp8AreRefused) {
  const Error error = error_of(kMinimal, {"run.precision=bf16", "numerics.gradient_tile=tensor"});
  EXPECT_EQ(Code::kConfig, error.code());
  EXPECT_NE(std::string::npos, std::string(error.what()).find("numerics.gradient_tile"))
      << error.what();
  EXPECT_EQ(Code::kConfig,
            error_of(kMinimal, {"run.precision=fp8", "numerics.promotion_interval=48"}).code());
}

TEST(Recipe, ContradictionsAreRefused) {
  for (const std::vector<std::string>& overrides : std::vector<std::vector<std::string>>{
           {"data.corpus="},
           {"data.tokens=t.bin"},
           {"data.tokenizer=tok"},
           {"data.train_bpe=0"},
           {"data.train_bpe=100"},
           {"data.train_bpe=257"},
           {"data.random_tokens=1000"},
           {"data.corpus=", "data.train_bpe=0", "data.random_tokens=1000"},
           {"data.corpus=", "data.random_tokens=1000", "model.vocab_size=50"},
           {"data.corpus=", "data.train_bpe=0", "data.tokens=t", "data.tokenizer=tok",
            "data.end_documents=false"},
           {"optimizer.moments=bf16", "optimizer.beta2=0.999"},
           {"optimizer.beta2=0.999"},  // bf16 runs keep bf16 moments
           {"optimizer.beta1=0.998"},
           {"model.config=c", "model.init_from=m"},
           {"model.config=c", "model.hidden_size=64"},
           {"model.init_from=m", "data.train_bpe=1000"},
           {"model.init_from=m", "data.train_bpe=0", "model.vocab_size=7"},
           {"model.qk_rope_head_dim=15"},
           {"model.first_k_dense_replace=5"},
           {"model.num_experts_per_tok=9"},
           {"model.n_group=3"},
           {"loss.balance_over=batch", "schedule.batch=8", "schedule.micro_batch=4"},
           {"model.n_group=2", "model.topk_group=3"},
           {"model.n_group=8", "model.topk_group=1"},
           {"model.scoring_func=softmax"},
           {"model.scoring_func=softmax", "model.topk_method=greedy",
            "model.num_experts_per_tok=9"},
           {"model.scoring_func=softmax", "model.topk_method=group_limited_greedy",
            "model.n_group=3"},
           {"model.max_position_embeddings=255"},
           {"schedule.warmup_steps=600", "schedule.constant_steps=600"},
           {"schedule.batch_start=17", "schedule.ramp_steps=5"},
           {"schedule.batch_start=4"},
           {"schedule.ramp_steps=4"},
           {"schedule.micro_batch=5"},
           {"run.eval_stride=257"},  // past the window's end
           {"model.init_from=m", "data.train_bpe=0", "model.init_std=0.02"},
           {"model.init_from=m", "data.train_bpe=0", "model.init_embedding_mean=0.02"},
           {"data.corpus=", "data.train_bpe=0", "data.tokens=t", "data.tokenizer=tok",
            "data.validation_fraction=0.2"},
           {"data.corpus=", "data.train_bpe=0", "data.tokens=t", "data.tokenizer=tok",
            "data.document_separator=x"},
           {"run.precision=fp8", "numerics.promotion_interval=64"}}) {
    EXPECT_EQ(Code::kConfig, error_of(kMinimal, overrides).code()) << overrides[0];
  }
  EXPECT_EQ(Code::kConfig, error_of("[data]\ncorpus = [\"a\\u0000b\"]\ntrain_bpe = 1000\n").code());
  parse(kMinimal, {"model.n_routed_experts=0", "model.num_experts_per_tok=9"});  // all dense
  // Greedy routing looks at no groups, so they may be of any size and number.
  for (const char* groups : {"model.n_group=3", "model.n_group=8", "model.topk_group=3"}) {
    parse(kMinimal, {"model.scoring_func=softmax", "model.topk_method=greedy", groups});
  }
  parse(kMinimal, {"optimizer.beta2=0.999", "run.precision=f32"});
  parse(kMinimal, {"optimizer.beta2=0.999", "optimizer.moments=f32"});
  parse(kMinimal, {"optimizer.beta2=0.99"});
  parse(kMinimal, {"run.eval_stride=256"});
  // 0 / 0 where there never was a gradient.
  EXPECT_EQ(Code::kUsage, error_of(kMinimal, {"optimizer.eps=0"}).code());
  parse(kMinimal, {"data.train_bpe=256", "data.end_documents=false"});
  parse(kMinimal,
        {"data.corpus=", "data.train_bpe=0", "data.random_tokens=9", "model.vocab_size=5"});
  const Error stalls = error_of(kMinimal, {"optimizer.beta2=0.999"});
  EXPECT_NE(std::string::npos, std::string(stalls.what()).find("optimizer.moments"));
}

TEST(Recipe, DifferencesNameWhatChangesTheResult) {
  const Recipe before = parse(kMinimal);
  EXPECT_TRUE(differences(parse(kMinimal, {"run.threads=7", "run.keep_last=9", "run.max_minutes=3",
                                           "run.checkpoint_every=5"}),
                          before)
                  .empty());
  EXPECT_EQ((std::vector<std::string>{"optimizer.lr: 0.5, was 0.001", "run.seed: 9, was 1"}),
            differences(parse(kMinimal, {"optimizer.lr=0.5", "run.seed=9"}), before));
}

TEST(Recipe, LoadsAFileAndNamesItInErrors) {
  const testing::TempDir folder;
  const auto path = folder.path() / "demo.toml";
  std::ofstream(path) << kMinimal;
  const Recipe recipe = load_recipe(path);
  EXPECT_EQ((std::filesystem::current_path() / "a.txt").string(), recipe.data.corpus.at(0));
  std::ofstream(path) << "[model]\nhiden_size = 3\n";
  try {
    load_recipe(path);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(0u, std::string(e.what()).find(path.string() + ":2: ")) << e.what();
    EXPECT_NE(std::string::npos, std::string(e.what()).find("'model.hidden_size'")) << e.what();
  }
  try {
    load_recipe(folder.path() / "none.toml");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(Code::kIo, e.code());
  }
}

}  // namespace
}  // namespace cachalot::train
