#include "cli/design_recipe.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "base/atomic_file.h"
#include "base/error.h"
#include "train/recipe.h"

namespace cachalot::cli {

namespace {

constexpr double kHeldOut = 0.1;
constexpr int kByteRows = 257;  // 256 bytes and the end of a text

train::ModelRecipe model_recipe(const model::Config& c, const Corpus& corpus) {
  train::ModelRecipe m;
  m.vocab_size = corpus.bytes > 0 ? 0 : c.vocab_size;
  m.hidden_size = c.hidden_size;
  m.num_hidden_layers = c.num_hidden_layers;
  m.first_k_dense_replace = c.first_k_dense_replace;
  m.intermediate_size = c.intermediate_size;
  m.moe_intermediate_size = c.moe_intermediate_size;
  m.num_attention_heads = c.num_attention_heads;
  m.q_lora_rank = c.q_lora_rank;
  m.kv_lora_rank = c.kv_lora_rank;
  m.qk_nope_head_dim = c.qk_nope_head_dim;
  m.qk_rope_head_dim = c.qk_rope_head_dim;
  m.v_head_dim = c.v_head_dim;
  m.n_routed_experts = c.route.experts;
  m.n_shared_experts = c.n_shared_experts;
  m.num_experts_per_tok = std::max(1, c.route.topk);
  m.n_group = c.route.groups;
  m.topk_group = c.route.topk_groups;
  m.routed_scaling_factor = c.route.routed_scaling;
  m.num_nextn_predict_layers = c.num_nextn_predict_layers;
  m.max_position_embeddings = c.max_position_embeddings;
  m.init_std = c.initializer_range;
  return m;
}

// What this project's own recipes found for texts read several times (configs/): the more often,
// the more is dropped.
double dropout_for(double epochs) { return epochs > 8 ? 0.1 : epochs > 4 ? 0.05 : 0.0; }

train::Recipe recipe_of(const plan::DesignRequest& r, const plan::DesignResult& result,
                        const Corpus& corpus) {
  const plan::Design& d = result.best;
  train::Recipe recipe;
  recipe.model = model_recipe(d.config, corpus);
  recipe.data.corpus = corpus.files.empty() ? std::vector<std::string>{"corpus.txt"} : corpus.files;
  recipe.data.train_bpe = corpus.bytes > 0
                              ? (corpus.kind == TokenKind::kBytes ? 256 : corpus.vocabulary)
                              : d.config.vocab_size;
  recipe.data.end_documents = corpus.kind != TokenKind::kBytes;
  recipe.data.validation_fraction = kHeldOut;
  recipe.data.seq_len = r.sequence;
  recipe.optimizer.lr = d.learning_rate;
  const bool one_machine = result.plan->layout.devices == 1;
  // On one machine the schedule is fitted to the clock, which can only shorten it.
  const double steps = one_machine ? 1.5 * d.steps : d.steps;
  recipe.schedule.steps = std::max<std::int64_t>(1, std::llround(steps));
  recipe.schedule.warmup_steps =
      std::min<std::int64_t>(2000, std::max<std::int64_t>(1, std::llround(d.steps / 50)));
  recipe.schedule.min_lr_ratio = 0.02;
  recipe.schedule.batch = d.batch;
  if (one_machine) recipe.schedule.micro_batch = result.plan->layout.micro_batch;
  if (r.unique_tokens > 0) {
    recipe.regularization.dropout = dropout_for(d.tokens / r.unique_tokens);
  }
  recipe.run.precision = d.precision == cost::TrainPrecision::kF32 ? train::RecipePrecision::kF32
                         : d.precision == cost::TrainPrecision::kBf16
                             ? train::RecipePrecision::kBf16
                             : train::RecipePrecision::kFp8;
  recipe.run.eval_batches = 10000;
  recipe.run.checkpoint_every = std::max<std::int64_t>(1, std::llround(d.steps / 10));
  recipe.run.keep_last = 1;
  if (one_machine) {
    recipe.run.fit_minutes = 0.97 * d.seconds / 60;
    recipe.run.max_minutes = d.seconds / 60;
  }
  return recipe;
}

}  // namespace

Corpus look_at_corpus(const std::vector<std::string>& files, TokenKind kind) {
  constexpr double kFewBytes = 32e6, kManyBytes = 1e9;
  Corpus corpus;
  corpus.files = files;
  corpus.kind = kind;
  for (const std::string& file : files) {
    std::error_code error;
    const auto bytes = std::filesystem::file_size(file, error);
    if (error) {
      throw Error(Code::kIo, cat("--corpus: cannot look at '", file, "': ", error.message(), "."));
    }
    corpus.bytes += static_cast<double>(bytes);
  }
  // Bytes of a token: 3.2 measured on the King James Bible with 2048, the others usual for English.
  struct Vocabulary {
    int size;
    double bytes;
  };
  const Vocabulary v = kind == TokenKind::kBytes   ? Vocabulary{kByteRows, 1}
                       : corpus.bytes < kFewBytes  ? Vocabulary{2048, 3.2}
                       : corpus.bytes < kManyBytes ? Vocabulary{8192, 3.9}
                                                   : Vocabulary{32768, 4.4};
  corpus.vocabulary = v.size;
  corpus.tokens = (1 - kHeldOut) * corpus.bytes / v.bytes;
  return corpus;
}

void write_design(const std::string& folder, const plan::HardwareProfile& hardware,
                  const plan::DesignRequest& request, const plan::DesignResult& result,
                  const Corpus& corpus) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) {
    throw Error(Code::kIo, cat("--out: cannot make folder '", folder, "': ", error.message(), "."));
  }
  const std::filesystem::path path(folder);
  model::validate(result.best.config, (path / "config.json").string());
  const train::Recipe recipe = recipe_of(request, result, corpus);
  train::validate(recipe, (path / "recipe.toml").string());
  const std::string head = fmt::format(
      "# Made by `cachalot plan design` for {}: {:.4g} device hours, predicted loss {:.4f} by\n"
      "# {}. {} parameters, {:.4g} tokens.{}\n\n",
      hardware.name, result.best.device_hours, result.best.loss, plan::name(request.law),
      static_cast<long long>(result.best.total), result.best.tokens,
      corpus.files.empty() ? " Name your text in data.corpus." : "");
  write_file_atomically(path / "config.json", model::to_json(result.best.config));
  write_file_atomically(path / "recipe.toml", head + train::to_toml(recipe));
}

}  // namespace cachalot::cli
