// A training recipe: what is trained, on what, and how. Every field is listed once, in recipe.cc,
// with its range and its help.
//
// Threads: plain values.
// Errors:  kUsage (unknown key, --set that cannot be), kConfig (a value in the file out of range,
// or
//          values that contradict each other), kUnsupported (valid, but not in this version),
//          kFormat (not TOML), kIo; the message names file, line, key, what was met and needed.
// Paper:   DeepSeek-V3 report, sections 4.1 and 4.2: the defaults of optimiser and losses.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "base/fields.h"
#include "kernels/context.h"
#include "kernels/route.h"
#include "nn/numerics.h"
#include "tensor/dtype.h"

namespace cachalot::train {

// One of: `config` (a config.json), `init_from` (a Hugging Face folder whose weights are taken
// too), or the sizes here, by their names in config.json.
struct ModelRecipe {
  std::string config;
  std::string init_from;
  double init_std = 0.006;
  double init_embedding_mean = 0.0;

  int vocab_size = 0;  // 0: the tokenizer's
  int hidden_size = 256;
  int num_hidden_layers = 4;
  int first_k_dense_replace = 1;
  int intermediate_size = 768;
  int moe_intermediate_size = 128;
  int num_attention_heads = 4;
  int q_lora_rank = 0;
  int kv_lora_rank = 64;
  int qk_nope_head_dim = 32;
  int qk_rope_head_dim = 16;
  int v_head_dim = 32;
  int n_routed_experts = 8;
  int n_shared_experts = 1;
  int num_experts_per_tok = 2;
  int n_group = 1;
  int topk_group = 1;
  double routed_scaling_factor = 1.0;
  Scoring scoring_func = Scoring::kSigmoid;
  TopkMethod topk_method = TopkMethod::kNoauxTc;
  bool norm_topk_prob = true;
  int num_nextn_predict_layers = 1;
  double rope_theta = 10000.0;
  int max_position_embeddings = 4096;
  double rms_norm_eps = 1e-6;

  bool has_inline_sizes() const { return config.empty() && init_from.empty(); }
  void fields(FieldVisitor& f);
};

struct DataRecipe {
  std::vector<std::string> corpus;         // UTF-8 text files
  std::vector<std::string> tokens;         // or files already tokenized
  std::vector<std::string> conversations;  // or JSON Lines of conversations (text/conversation.h)
  std::vector<std::string> held_out_conversations;  // instead of validation_fraction of those
  std::string tokenizer;                            // folder with tokenizer.json
  int train_bpe = 0;               // or the size of a vocabulary to train on the corpus
  std::int64_t random_tokens = 0;  // or no text: random tokens, to measure speed with
  bool end_documents = true;       // an end-of-sentence token behind each document
  std::string document_separator;  // "": a file is one document
  double validation_fraction = 0.1;
  int seq_len = 256;
  void fields(FieldVisitor& f);
};

// kAuto: what the report does where it trains in low precision, bf16; f32 where run.precision is
// f32, the oracle path.
enum class MomentType : std::uint8_t { kAuto, kF32, kBf16 };

// data.train_bpe of this size is no BPE: tokens are bytes.
inline constexpr int kByteVocabulary = 256;

struct OptimizerRecipe {
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;
  double clip_norm = 1.0;
  MomentType moments = MomentType::kAuto;
  double ema_decay = 0.0;
  void fields(FieldVisitor& f);
};

struct ScheduleRecipe {
  enum class Decay : std::uint8_t { kCosine, kLinear, kNone };
  std::int64_t steps = 1000;
  double epochs = 0.0;
  std::int64_t warmup_steps = 50;
  std::int64_t constant_steps = 0;
  Decay decay = Decay::kCosine;
  double min_lr_ratio = 0.1;
  int batch = 16;
  int batch_start = 0;
  std::int64_t ramp_steps = 0;
  int micro_batch = 0;
  void fields(FieldVisitor& f);
};

// What the balance loss is taken over: each sequence (the report's choice), or the whole batch (its
// section 4.5.3, which balances without asking that of every sequence).
enum class BalanceOver : std::uint8_t { kSequence, kBatch };

struct LossRecipe {
  double mtp_lambda = 0.3;
  double mtp_lambda_late = 0.1;
  std::int64_t mtp_lambda_switch_step = -1;
  double balance_alpha = 1e-4;
  BalanceOver balance_over = BalanceOver::kSequence;
  double bias_gamma = 1e-3;
  std::int64_t bias_gamma_stop_step = -1;
  void fields(FieldVisitor& f);
};

struct RegularizationRecipe {
  double dropout = 0.0;
  void fields(FieldVisitor& f);
};

// Of the matrix products; fp8 with bf16 where the report keeps more (nn/numerics.h).
enum class RecipePrecision : std::uint8_t { kF32, kBf16, kFp8 };

struct RunRecipe {
  std::int64_t seed = 1;
  RecipePrecision precision = RecipePrecision::kBf16;
  int threads = 0;
  std::int64_t log_every = 1;
  std::int64_t eval_every = 0;
  int eval_batches = 8;
  int eval_stride = 0;
  std::int64_t checkpoint_every = 0;
  int keep_last = 2;
  int max_skips = 10;
  double max_minutes = 0.0;
  double fit_minutes = 0.0;

  Precision kernel_precision() const;
  void fields(FieldVisitor& f);
};

// How a step computes, and what it keeps for its backward. Beyond run.precision these are for
// ablations: `auto` and the defaults are the report's choices.
struct NumericsRecipe {
  enum class Auto : std::uint8_t { kAuto, kOn, kOff };
  enum class KeepChoice : std::uint8_t { kAuto, kF32, kBf16, kE5m6, kFp8 };
  enum class CombineChoice : std::uint8_t { kAuto, kF32, kBf16, kE4m3, kE5m2, kLogFmt8, kLogFmt10 };
  numeric::ScaleKind scale = numeric::ScaleKind::kPow2;
  ScaleTile activation_tile = ScaleTile::kRow;
  ScaleTile gradient_tile = ScaleTile::kRow;
  ScaleTile weight_tile = ScaleTile::kBlock;
  Accumulator accumulator = Accumulator::kFloat;
  int promotion_interval = 128;
  KeepChoice attention_output = KeepChoice::kAuto;
  KeepChoice swiglu_input = KeepChoice::kAuto;
  Auto recompute_norms = Auto::kAuto;
  Auto recompute_swiglu = Auto::kAuto;
  Auto recompute_up_projections = Auto::kAuto;
  CombineChoice combine = CombineChoice::kAuto;
  void fields(FieldVisitor& f);
};

struct Recipe {
  ModelRecipe model;
  DataRecipe data;
  OptimizerRecipe optimizer;
  ScheduleRecipe schedule;
  LossRecipe loss;
  RegularizationRecipe regularization;
  NumericsRecipe numerics;
  RunRecipe run;
  void fields(FieldVisitor& f);

  DType moment_type() const;               // optimizer.moments, resolved
  nn::Numerics resolved_numerics() const;  // run.precision and numerics, resolved
  bool byte_tokens() const { return data.train_bpe == kByteVocabulary; }
  bool learns_conversations() const { return !data.conversations.empty(); }
};

// Reads, applies the overrides ("section.key=value", as after --set) in their order, makes file
// names absolute, and validates.
Recipe load_recipe(const std::filesystem::path& path, std::span<const std::string> overrides = {});
// The same from memory; `file_name` is for messages, relative names are taken from `folder`.
Recipe parse_recipe(std::string_view toml, const std::string& file_name,
                    std::span<const std::string> overrides, const std::filesystem::path& folder);

// What no single range can say: values that contradict each other. `file_name` is for messages.
void validate(const Recipe& recipe, const std::string& file_name);

// The recipe as resolved; parse_recipe gives the same recipe back.
std::string to_toml(const Recipe& recipe);
std::string to_json(const Recipe& recipe);

// Keys whose values change what is computed, as "optimizer.lr: 0.1, was 0.2", empty where a run of
// `before` can be continued with `now`: where, how often to log, and for how long do not matter.
std::vector<std::string> differences(const Recipe& now, const Recipe& before);

// `cachalot train --help-recipe`, and the same for the docs.
std::string recipe_help();
std::string recipe_help_markdown();

}  // namespace cachalot::train
