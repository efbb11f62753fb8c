#include "train/run_model.h"

#include <filesystem>
#include <system_error>

#include "base/atomic_file.h"
#include "io/safetensors.h"
#include "model/end_tokens.h"
#include "model/weights.h"

namespace cachalot::train {

namespace fs = std::filesystem;

namespace {

model::Config inline_config(const ModelRecipe& m) {
  model::Config c;
  const bool v3 = m.topk_method == TopkMethod::kNoauxTc;
  c.family = v3 ? model::Family::kDeepseekV3 : model::Family::kDeepseekV2;
  c.hidden_size = m.hidden_size;
  c.intermediate_size = m.intermediate_size;
  c.moe_intermediate_size = m.moe_intermediate_size;
  c.num_hidden_layers = m.num_hidden_layers;
  c.first_k_dense_replace = m.first_k_dense_replace;
  c.num_attention_heads = m.num_attention_heads;
  c.q_lora_rank = m.q_lora_rank;
  c.kv_lora_rank = m.kv_lora_rank;
  c.qk_nope_head_dim = m.qk_nope_head_dim;
  c.qk_rope_head_dim = m.qk_rope_head_dim;
  c.v_head_dim = m.v_head_dim;
  c.n_shared_experts = m.n_shared_experts;
  c.num_nextn_predict_layers = m.num_nextn_predict_layers;
  c.max_position_embeddings = m.max_position_embeddings;
  c.rms_norm_eps = m.rms_norm_eps;
  c.initializer_range = m.init_std;
  c.rope.dim = m.qk_rope_head_dim;
  c.rope.theta = m.rope_theta;
  c.route.experts = m.n_routed_experts;
  c.route.topk = m.num_experts_per_tok;
  c.route.groups = m.n_group;
  c.route.topk_groups = m.topk_group;
  c.route.scoring = m.scoring_func;
  c.route.method = m.topk_method;
  c.route.norm_topk_prob = m.norm_topk_prob;
  c.route.routed_scaling = m.routed_scaling_factor;
  return c;
}

// Whether both folders have this file with the same bytes, or neither has it.
bool same_file(const fs::path& a, const fs::path& b) {
  constexpr std::uint64_t kMostBytes = 1ull << 30;
  std::error_code ignored;
  const bool there = fs::exists(a, ignored);
  if (there != fs::exists(b, ignored)) return false;
  return !there || read_file(a, kMostBytes) == read_file(b, kMostBytes);
}

// By another name, or in a copy, a tokenizer is the same. tokenizer_config.json counts: it says
// which token ends a text.
bool same_tokenizer(const fs::path& a, const fs::path& b) {
  std::error_code ignored;
  if (fs::equivalent(a, b, ignored)) return true;
  return fs::exists(a / "tokenizer.json", ignored) &&
         same_file(a / "tokenizer.json", b / "tokenizer.json") &&
         same_file(a / "tokenizer_config.json", b / "tokenizer_config.json");
}

// A folder that is trained on with its own tokenizer knows best where its texts end.
bool keeps_tokenizer(const Recipe& recipe) {
  const std::string& named = recipe.data.tokenizer;
  const std::string& folder = recipe.model.init_from;
  return !folder.empty() && (named.empty() || same_tokenizer(named, folder));
}

}  // namespace

model::Config model_config(const Recipe& recipe, const TokenizerFacts& tokenizer) {
  const ModelRecipe& m = recipe.model;
  model::Config c;
  if (!m.init_from.empty()) {
    c = model::load_config(m.init_from);
    model::drop_absent_mtp(c, io::Safetensors::open(m.init_from));
  } else if (!m.config.empty()) {
    c = model::load_config(m.config);
  } else {
    c = inline_config(m);
    c.vocab_size = m.vocab_size > 0 ? m.vocab_size : tokenizer.vocab_size;
    if (c.vocab_size == 0) {
      throw Error(Code::kConfig,
                  "the recipe's [model] takes its vocab_size from a tokenizer, and there is none: "
                  "give one (cachalot init: --tokenizer PATH), or set model.vocab_size in the "
                  "recipe");
    }
  }
  if (tokenizer.known && !keeps_tokenizer(recipe)) {
    c.bos_token_id = tokenizer.bos;
    c.eos_token_ids.clear();
    if (tokenizer.eos >= 0) c.eos_token_ids = {tokenizer.eos};
  }
  if (c.vocab_size < tokenizer.vocab_size) {
    throw Error(
        Code::kConfig,
        cat("the model's vocab_size is ", c.vocab_size, ", but the tokenizer has ",
            tokenizer.vocab_size,
            " tokens: raise model.vocab_size, set it to 0, or use the model's own tokenizer"));
  }
  c.torch_dtype = "float32";  // checkpoints of a run hold the master weights
  c.fp8 = {};
  c.packed = {};
  model::validate(c, m.has_inline_sizes() ? "the recipe's [model]" : "the model's config.json");
  if (recipe.data.seq_len > c.max_position_embeddings) {
    throw Error(Code::kConfig, cat("data.seq_len = ", recipe.data.seq_len,
                                   " is more than the model's max_position_embeddings = ",
                                   c.max_position_embeddings, ": lower data.seq_len"));
  }
  return c;
}

std::vector<std::int32_t> end_tokens(const Recipe& recipe, const model::Config& config) {
  if (keeps_tokenizer(recipe)) return model::end_tokens(config, recipe.model.init_from);
  return {config.eos_token_ids.begin(), config.eos_token_ids.end()};
}

void initialise(const Context& ctx, const Recipe& recipe, model::Parameters& parameters) {
  if (recipe.model.init_from.empty()) {
    parameters.initialise(ctx, recipe.model.init_std, static_cast<std::uint64_t>(recipe.run.seed),
                          recipe.model.init_embedding_mean);
    return;
  }
  const model::Config source = model::load_config(recipe.model.init_from);
  parameters.load(io::Safetensors::open(recipe.model.init_from), source);
}

}  // namespace cachalot::train
