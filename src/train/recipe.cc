#include "train/recipe.h"

#include <algorithm>
#include <set>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/fields_text.h"
#include "io/toml.h"
#include "runtime/runtime.h"

namespace cachalot::train {

namespace {

constexpr std::int64_t kMostSteps = 1'000'000'000;
constexpr std::uint64_t kMostRecipeBytes = 1 << 20;

// An empty name stays empty: it means "not given".
void make_absolute(std::string& name, const std::filesystem::path& folder) {
  if (!name.empty()) name = (folder / name).lexically_normal().string();
}

void make_absolute(Recipe& recipe, const std::filesystem::path& folder) {
  make_absolute(recipe.model.config, folder);
  make_absolute(recipe.model.init_from, folder);
  make_absolute(recipe.data.tokenizer, folder);
  DataRecipe& d = recipe.data;
  for (auto* names : {&d.corpus, &d.tokens, &d.conversations, &d.held_out_conversations}) {
    for (std::string& name : *names) make_absolute(name, folder);
  }
}

bool is_inline_size(std::string_view path) {
  return path.starts_with("model.") && path != "model.config" && path != "model.init_from" &&
         path != "model.init_std" && path != "model.init_embedding_mean";
}

// Sizes beside `config` or `init_from` would be ignored, so they are refused.
void check_sizes_are_used(const Recipe& recipe, const std::set<std::string>& given,
                          const std::string& file_name) {
  if (recipe.model.has_inline_sizes()) return;
  const char* source = recipe.model.config.empty() ? "model.init_from" : "model.config";
  for (const std::string& path : given) {
    if (!is_inline_size(path)) continue;
    throw Error(Code::kConfig, cat(file_name, ": ", path, " is given, but ", source,
                                   " already says all sizes; remove one of the two."));
  }
}

// Fields that the dump shows: sizes only where they are what the model is made from, what is about
// conversations or passes over the data only where it is asked for.
std::vector<Field> shown_fields(Recipe& recipe) {
  auto fields = fields_of(recipe);
  std::erase_if(fields, [&](const Field& field) {
    if (is_inline_size(field.path)) return !recipe.model.has_inline_sizes();
    if (field.path == "data.conversations") return recipe.data.conversations.empty();
    if (field.path == "data.held_out_conversations") {
      return recipe.data.held_out_conversations.empty();
    }
    return field.path == "schedule.epochs" && recipe.schedule.epochs == 0;
  });
  return fields;
}

}  // namespace

void ModelRecipe::fields(FieldVisitor& f) {
  constexpr int kWidest = 1 << 20;
  f("config", config, "config.json whose sizes are trained from scratch");
  f("init_from", init_from, "Hugging Face folder to continue from: sizes, weights, tokenizer");
  f("init_std", init_std, 0.0, 1.0, "standard deviation of the initial weights");
  f("init_embedding_mean", init_embedding_mean, 0.0, 1.0,
    "standard deviation of a vector that all rows of the embedding begin with in common; 0: none");
  f("vocab_size", vocab_size, 0, 1 << 24, "rows of embedding and head; 0: the tokenizer's");
  f("hidden_size", hidden_size, 1, kWidest, "width of the residual stream");
  f("num_hidden_layers", num_hidden_layers, 1, 1000, "layers, without the MTP layer");
  f("first_k_dense_replace", first_k_dense_replace, 0, 1000, "first layers with a dense MLP");
  f("intermediate_size", intermediate_size, 1, kWidest, "width of a dense MLP");
  f("moe_intermediate_size", moe_intermediate_size, 1, kWidest, "width of one expert");
  f("num_attention_heads", num_attention_heads, 1, 4096, "attention heads");
  f("q_lora_rank", q_lora_rank, 0, kWidest, "query latent; 0: one plain projection");
  f("kv_lora_rank", kv_lora_rank, 1, kWidest, "key-value latent, what the cache holds");
  f("qk_nope_head_dim", qk_nope_head_dim, 1, kWidest, "query and key width without position");
  f("qk_rope_head_dim", qk_rope_head_dim, 2, kWidest, "rotated query and key width; even");
  f("v_head_dim", v_head_dim, 1, kWidest, "value width of a head");
  f("n_routed_experts", n_routed_experts, 0, 65536, "routed experts; 0: every layer is dense");
  f("n_shared_experts", n_shared_experts, 0, 1024, "experts every token passes");
  f("num_experts_per_tok", num_experts_per_tok, 1, 1024, "routed experts of one token");
  f("n_group", n_group, 1, 65536, "groups of routed experts");
  f("topk_group", topk_group, 1, 65536, "groups one token may use");
  f("routed_scaling_factor", routed_scaling_factor, 0.0, 1000.0, "factor on the expert weights");
  f("scoring_func", scoring_func, {{"sigmoid", Scoring::kSigmoid}, {"softmax", Scoring::kSoftmax}},
    "expert scores");
  f("topk_method", topk_method,
    {{"noaux_tc", TopkMethod::kNoauxTc},
     {"greedy", TopkMethod::kGreedy},
     {"group_limited_greedy", TopkMethod::kGroupLimitedGreedy}},
    "choice of experts");
  f("norm_topk_prob", norm_topk_prob, "expert weights of a token sum to one before scaling");
  f("num_nextn_predict_layers", num_nextn_predict_layers, 0, 1, "multi-token prediction layers");
  f("rope_theta", rope_theta, 1.0, 1e12, "base of the rotary frequencies");
  f("max_position_embeddings", max_position_embeddings, 1, 1 << 30, "longest context");
  f("rms_norm_eps", rms_norm_eps, 1e-12, 1.0, "epsilon of every RMSNorm");
}

void DataRecipe::fields(FieldVisitor& f) {
  f("corpus", corpus, "UTF-8 text files to train on");
  f("tokens", tokens, "token files to train on, instead of corpus");
  f("conversations", conversations,
    "JSON Lines of conversations to fine-tune on, instead of corpus: answers alone are learnt");
  f("held_out_conversations", held_out_conversations,
    "conversations to validate on, instead of a validation_fraction of the others");
  f("tokenizer", tokenizer, "folder with tokenizer.json");
  f("train_bpe", train_bpe, 0, 1 << 24,
    "train a BPE of this size on the corpus; 256: tokens are bytes; 0: do not");
  f("random_tokens", random_tokens, 0, 1 << 30,
    "no text: so many random tokens of model.vocab_size, to measure speed with");
  f("end_documents", end_documents, "an end-of-sentence token behind each document");
  f("document_separator", document_separator,
    "text between documents of a corpus file; empty: a file is one document");
  f("validation_fraction", validation_fraction, 0.0, 0.9, "last part of the data, held out");
  f("seq_len", seq_len, 2, 1 << 24,
    "tokens of a training sequence; of conversations: of as many as fit, packed");
}

void OptimizerRecipe::fields(FieldVisitor& f) {
  f("lr", lr, 0.0, 10.0, "peak learning rate");
  f("beta1", beta1, 0.0, 0.999999, "decay of the first moment");
  f("beta2", beta2, 0.0, 0.999999, "decay of the second moment");
  f("eps", eps, 1e-30, 1.0, "added to the root of the second moment");
  f("weight_decay", weight_decay, 0.0, 10.0, "decoupled decay of matrices, times lr");
  f("clip_norm", clip_norm, 0.0, 1e9, "largest global gradient norm; 0: no clipping");
  f("moments", moments,
    {{"auto", MomentType::kAuto}, {"f32", MomentType::kF32}, {"bf16", MomentType::kBf16}},
    "type the moments are kept in; auto: f32 where run.precision is f32, else bf16");
  f("ema_decay", ema_decay, 0.0, 0.999999,
    "keep a running mean of the weights with this decay per step; 0: do not");
}

void ScheduleRecipe::fields(FieldVisitor& f) {
  f("steps", steps, 1, kMostSteps, "optimiser steps of the whole run");
  f("epochs", epochs, 0.0, 1e6, "passes over the data that say how many steps; 0: steps says it");
  f("warmup_steps", warmup_steps, 0, kMostSteps, "steps of linear warm-up");
  f("constant_steps", constant_steps, 0, kMostSteps, "steps at the peak before the decay");
  f("decay", decay,
    {{"cosine", Decay::kCosine}, {"linear", Decay::kLinear}, {"none", Decay::kNone}},
    "shape of the decay over the remaining steps");
  f("min_lr_ratio", min_lr_ratio, 0.0, 1.0, "learning rate of the last step over the peak");
  f("batch", batch, 1, 1 << 24, "sequences of a step");
  f("batch_start", batch_start, 0, 1 << 24, "sequences of the first step; 0: batch");
  f("ramp_steps", ramp_steps, 0, 10'000'000, "steps in which batch_start grows to batch");
  f("micro_batch", micro_batch, 0, 1 << 24, "sequences at once, gradients add up; 0: the batch");
}

void LossRecipe::fields(FieldVisitor& f) {
  f("mtp_lambda", mtp_lambda, 0.0, 100.0, "weight of the multi-token prediction loss");
  f("mtp_lambda_late", mtp_lambda_late, 0.0, 100.0, "its weight from mtp_lambda_switch_step on");
  f("mtp_lambda_switch_step", mtp_lambda_switch_step, -1, kMostSteps, "-1: never");
  f("balance_alpha", balance_alpha, 0.0, 100.0, "weight of the balance loss");
  f("balance_over", balance_over,
    {{"sequence", BalanceOver::kSequence}, {"batch", BalanceOver::kBatch}},
    "what the balance loss is taken over: each sequence, or the whole batch at once");
  f("bias_gamma", bias_gamma, 0.0, 1.0, "step of the router bias");
  f("bias_gamma_stop_step", bias_gamma_stop_step, -1, kMostSteps,
    "from this step on the router bias rests; -1: never");
}

void RegularizationRecipe::fields(FieldVisitor& f) {
  f("dropout", dropout, 0.0, 0.99,
    "share of the embedding and of each sublayer's result that training drops");
}

void RunRecipe::fields(FieldVisitor& f) {
  f("seed", seed, 0, kNoLimit, "seed of initialisation, data order and dropout");
  f("precision", precision,
    {{"f32", RecipePrecision::kF32},
     {"bf16", RecipePrecision::kBf16},
     {"fp8", RecipePrecision::kFp8}},
    "precision of the matrix products");
  f("threads", threads, 0, runtime::kMaxThreads, "threads; 0: all cores");
  f("log_every", log_every, 1, kMostSteps, "steps from one line of metrics.jsonl to the next");
  f("eval_every", eval_every, 0, kMostSteps, "steps between validations; 0: only at the end");
  f("eval_batches", eval_batches, 1, 1 << 24, "batches of windows of a validation, at most");
  f("eval_stride", eval_stride, 0, 1 << 24,
    "tokens from one validation window to the next; 0: half of data.seq_len");
  f("checkpoint_every", checkpoint_every, 0, kMostSteps,
    "steps between checkpoints; 0: only at the end");
  f("keep_last", keep_last, 1, 1 << 20, "whole checkpoints that are kept");
  f("max_skips", max_skips, 1, 1 << 20,
    "stop after so many steps in a row without a finite loss and gradient");
  f("max_minutes", max_minutes, 0.0, 1e9, "stop and save after this time; 0: no limit");
  f("fit_minutes", fit_minutes, 0.0, 1e9,
    "shorten schedule.steps, by the speed of the first steps, to end in this time; 0: do not");
}

Precision RunRecipe::kernel_precision() const {
  return precision == RecipePrecision::kF32 ? Precision::kF32 : Precision::kBF16;
}

DType Recipe::moment_type() const {
  if (optimizer.moments == MomentType::kAuto) {
    return run.precision == RecipePrecision::kF32 ? DType::kF32 : DType::kBF16;
  }
  return optimizer.moments == MomentType::kF32 ? DType::kF32 : DType::kBF16;
}

void Recipe::fields(FieldVisitor& f) {
  f.section("model", model);
  f.section("data", data);
  f.section("optimizer", optimizer);
  f.section("schedule", schedule);
  f.section("loss", loss);
  f.section("regularization", regularization);
  f.section("numerics", numerics);
  f.section("run", run);
}

Recipe parse_recipe(std::string_view toml, const std::string& file_name,
                    std::span<const std::string> overrides, const std::filesystem::path& folder) {
  Recipe recipe;
  const auto fields = fields_of(recipe);
  std::set<std::string> given;
  for (const io::TomlEntry& entry : io::parse_toml(toml, file_name)) {
    assign(fields, entry.path, entry.value, cat(file_name, ":", entry.line), Code::kConfig);
    given.insert(entry.path);
  }
  for (const std::string& assignment : overrides) {
    assign_text(fields, assignment, "--set");
    given.insert(assignment.substr(0, assignment.find('=')));
  }
  check_sizes_are_used(recipe, given, file_name);
  make_absolute(recipe, folder);
  validate(recipe, file_name);
  return recipe;
}

Recipe load_recipe(const std::filesystem::path& path, std::span<const std::string> overrides) {
  return parse_recipe(read_file(path, kMostRecipeBytes), path.string(), overrides,
                      std::filesystem::current_path());
}

std::string to_toml(const Recipe& recipe) {
  Recipe copy = recipe;
  return cachalot::to_toml(shown_fields(copy));
}

std::string to_json(const Recipe& recipe) {
  Recipe copy = recipe;
  return cachalot::to_json(shown_fields(copy));
}

std::vector<std::string> differences(const Recipe& now, const Recipe& before) {
  static const std::set<std::string_view> kFree{
      "run.threads",      "run.log_every",        "run.eval_every",
      "run.eval_batches", "run.checkpoint_every", "run.keep_last",
      "run.max_minutes",  "run.eval_stride",      "run.max_skips",
  };
  Recipe a = now, b = before;
  const auto left = fields_of(a), right = fields_of(b);
  std::vector<std::string> found;
  for (std::size_t i = 0; i < left.size(); ++i) {
    const auto x = value_of(left[i]), y = value_of(right[i]);
    if (x == y || kFree.contains(left[i].path)) continue;
    found.push_back(cat(left[i].path, ": ", field_text(x), ", was ", field_text(y)));
  }
  return found;
}

std::string recipe_help() {
  Recipe recipe;
  return help_table(fields_of(recipe));
}

std::string recipe_help_markdown() {
  Recipe recipe;
  return help_table_markdown(fields_of(recipe));
}

}  // namespace cachalot::train
