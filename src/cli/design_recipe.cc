#include "cli/design_recipe.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>

#include "base/atomic_file.h"
#include "base/error.h"
#include "train/run_model.h"

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
  // As large as a row's own part: twice as much made no difference. Only narrow models were tried
  // (docs/training.md); wider ones begin as published.
  constexpr int kWidestTrusted = 1024;
  m.init_embedding_mean = c.hidden_size <= kWidestTrusted ? c.initializer_range : 0;
  return m;
}

// What this project's own recipes found for texts read several times (configs/): the more often,
// the more is dropped.
double dropout_for(double epochs) { return epochs > 8 ? 0.1 : epochs > 4 ? 0.05 : 0.0; }

// The same runs: weights that forget within four tenths of the run did best, that is, 1 / (rate x
// decay) = 0.4 steps.
double weight_decay_for(double epochs, double rate, double steps) {
  constexpr double kUsual = 0.1, kMost = 1, kShare = 0.4;
  if (epochs <= 4) return kUsual;
  return std::clamp(1 / (kShare * rate * steps), kUsual, kMost);
}

// A step of few tokens says little of the gradients' sizes: nanoGPT takes 0.99 for 16,384 tokens,
// 0.95 for half a million.
double beta2_for(double step_tokens) { return step_tokens < 65536 ? 0.99 : 0.95; }

// What no part of a design says, by the same rules for all; `unique_tokens` as the recipe cuts
// them.
void set_details(const plan::Design& d, const plan::TrainPlan& plan, double unique_tokens,
                 train::Recipe& recipe) {
  const double step_tokens = static_cast<double>(recipe.schedule.batch) * recipe.data.seq_len;
  const double epochs = unique_tokens > 0 ? d.tokens / unique_tokens : 1;
  recipe.data.validation_fraction = kHeldOut;
  recipe.optimizer.beta2 = beta2_for(step_tokens);
  recipe.optimizer.weight_decay = weight_decay_for(epochs, recipe.optimizer.lr, d.steps);
  const bool one_machine = plan.layout.devices == 1;
  // On one machine the schedule is fitted to the clock, which can only shorten it.
  const double steps = one_machine ? 1.5 * d.steps : d.steps;
  recipe.schedule.steps = std::max<std::int64_t>(1, std::llround(steps));
  recipe.schedule.warmup_steps =
      std::min<std::int64_t>(2000, std::max<std::int64_t>(1, std::llround(d.steps / 50)));
  recipe.schedule.min_lr_ratio = 0.02;
  if (one_machine) recipe.schedule.micro_batch = plan.layout.micro_batch;
  recipe.regularization.dropout = dropout_for(epochs);
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
}

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
  recipe.data.seq_len = r.sequence;
  recipe.optimizer.lr = d.learning_rate;
  recipe.schedule.batch = d.batch;
  set_details(d, *result.plan, r.unique_tokens, recipe);
  return recipe;
}

// Bytes of a token: 3.2 measured on the King James Bible with 2048, the others usual for English.
double token_bytes_of(int vocabulary) {
  return vocabulary == kByteRows ? 1 : vocabulary < 8192 ? 3.2 : vocabulary < 32768 ? 3.9 : 4.4;
}

std::string heading(const plan::HardwareProfile& hardware, const plan::DesignRequest& request,
                    const plan::Design& d, const std::string& what) {
  return fmt::format(
      "# {} for {}: {:.4g} device hours, predicted loss {:.4f} by\n# {}. {} "
      "parameters, {:.4g} tokens.",
      what, hardware.name, d.device_hours, d.loss, plan::name(request.law),
      static_cast<long long>(d.total), d.tokens);
}

// One machine's schedule is longer than the plan's, until the clock has its say.
std::string schedule_note(const train::Recipe& recipe, const plan::Design& d) {
  if (recipe.run.fit_minutes <= 0) return "";
  return fmt::format(
      "\n# Planned are {:.0f} steps. schedule.steps = {} is more, and run.fit_minutes shortens it "
      "to what\n# the first steps show to fit the time.",
      d.steps, recipe.schedule.steps);
}

}  // namespace

Corpus look_at_corpus(const std::vector<std::string>& files, TokenKind kind, int vocabulary) {
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
  const int usual = corpus.bytes < kFewBytes ? 2048 : corpus.bytes < kManyBytes ? 8192 : 32768;
  corpus.vocabulary = kind == TokenKind::kBytes ? kByteRows : vocabulary > 0 ? vocabulary : usual;
  if (files.empty()) return corpus;
  corpus.token_bytes = token_bytes_of(corpus.vocabulary);
  corpus.tokens = (1 - kHeldOut) * corpus.bytes / corpus.token_bytes;
  return corpus;
}

HandMade judge(const std::string& recipe_file, const plan::HardwareProfile& hardware,
               const plan::DesignRequest& request, cost::TrainPrecision precision,
               const Corpus& corpus) {
  HandMade out{std::filesystem::path(recipe_file).stem().string(),
               train::load_recipe(recipe_file),
               request,
               {}};
  train::Recipe& recipe = out.recipe;
  if (recipe.data.train_bpe == 0) {
    throw Error(Code::kConfig, cat(recipe_file,
                                   ": --beside compares recipes on the text of "
                                   "--corpus, so data.train_bpe has to say how it is cut: 256 for "
                                   "bytes, or the size of a vocabulary."));
  }
  const Corpus cut =
      look_at_corpus(corpus.files, recipe.byte_tokens() ? TokenKind::kBytes : TokenKind::kBpe,
                     recipe.byte_tokens() ? 0 : recipe.data.train_bpe);
  plan::DesignRequest& r = out.request;
  r.vocabulary = cut.vocabulary;
  r.unique_tokens = cut.tokens;
  r.token_bytes = cut.token_bytes;
  r.sequence = recipe.data.seq_len;
  r.batch = recipe.schedule.batch;
  const model::Config config = train::model_config(recipe, {.vocab_size = cut.vocabulary});
  out.timed = plan::evaluate_design(hardware, r, config, precision, r.device_hours);
  out.timed.design.learning_rate = recipe.optimizer.lr;
  recipe.data.corpus = corpus.files;
  set_details(out.timed.design, out.timed.plan, r.unique_tokens, recipe);
  train::validate(recipe, recipe_file);
  return out;
}

void write_design(const std::string& folder, const plan::HardwareProfile& hardware,
                  const plan::DesignRequest& request, const plan::DesignResult& result,
                  const Corpus& corpus, const std::vector<HandMade>& by_hand) {
  std::set<std::string> names{"recipe"};
  for (const HandMade& hand : by_hand) {
    if (names.insert(hand.name).second) continue;
    throw Error(Code::kConfig, cat("--beside: ", hand.name, ".toml would be written twice into ",
                                   folder, "; give the recipes names of their own."));
  }
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) {
    throw Error(Code::kIo, cat("--out: cannot make folder '", folder, "': ", error.message(), "."));
  }
  const std::filesystem::path path(folder);
  model::validate(result.best.config, (path / "config.json").string());
  const train::Recipe recipe = recipe_of(request, result, corpus);
  train::validate(recipe, (path / "recipe.toml").string());
  const std::string head =
      heading(hardware, request, result.best, "Made by `cachalot plan design`") +
      schedule_note(recipe, result.best) +
      (corpus.files.empty() ? " Name your text in data.corpus.\n\n" : "\n\n");
  write_file_atomically(path / "config.json", model::to_json(result.best.config));
  write_file_atomically(path / "recipe.toml", head + train::to_toml(recipe));
  for (const HandMade& hand : by_hand) {
    const std::string text = heading(
        hardware, hand.request, hand.timed.design,
        cat(hand.name, ", with the details that `cachalot plan design` gives every recipe"));
    write_file_atomically(path / (hand.name + ".toml"),
                          text + schedule_note(hand.recipe, hand.timed.design) + "\n\n" +
                              train::to_toml(hand.recipe));
  }
}

}  // namespace cachalot::cli
