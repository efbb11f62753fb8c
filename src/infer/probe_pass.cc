#include "infer/probe_pass.h"

#include <unistd.h>

#include <algorithm>

#include "base/error.h"
#include "infer/bench_infer.h"
#include "model/init.h"
#include "model/weights.h"

namespace cachalot::infer {

namespace {

namespace fs = std::filesystem;

// Removed with all that is in it.
class Scratch {
 public:
  explicit Scratch(fs::path path) : path_(std::move(path)) {}
  ~Scratch() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  const fs::path& path() const noexcept { return path_; }

 private:
  fs::path path_;
};

model::Config tiny(int layers) {
  model::Config c;
  c.vocab_size = 64;
  c.hidden_size = 64;
  c.intermediate_size = 64;
  c.moe_intermediate_size = 32;
  c.num_hidden_layers = layers;
  c.first_k_dense_replace = 0;
  c.num_attention_heads = 2;
  c.q_lora_rank = 32;
  c.kv_lora_rank = 32;
  c.qk_nope_head_dim = 16;
  c.qk_rope_head_dim = 16;
  c.v_head_dim = 16;
  c.rope.dim = 16;
  c.n_shared_experts = 1;
  c.route.experts = 8;
  c.route.topk = 2;
  c.route.groups = 1;
  c.route.topk_groups = 1;
  c.max_position_embeddings = 256;
  return c;
}

double pass_seconds(const Context& ctx, const fs::path& target, int layers, int turns) {
  const model::Config config = tiny(layers);
  model::InitOptions init;
  init.format = model::WeightFormat::kBf16;
  model::init_model(ctx, config, model::to_json(config), target, init);
  const model::Model model = model::Model::load(target, Precision::kBF16);
  InferBenchOptions o;
  o.turns = {.turns = turns, .limit_seconds = 3, .turn_seconds = 0.02};
  o.batches = {1};
  o.contexts = {0};
  return bench_decode(ctx, model, o, [](const std::string&) {}).front().seconds;
}

}  // namespace

PassOverhead measure_pass_overhead(const Context& ctx, const fs::path& folder, int turns) {
  constexpr int kFew = 2, kMany = 22;
  const Scratch scratch(folder / cat(".cachalot-probe-", getpid()));
  const double few = pass_seconds(ctx, scratch.path() / "few", kFew, turns);
  const double many = pass_seconds(ctx, scratch.path() / "many", kMany, turns);
  PassOverhead o;
  o.layer_seconds = std::max(0.0, (many - few) / (kMany - kFew));
  o.pass_seconds = std::max(0.0, few - kFew * o.layer_seconds);
  return o;
}

}  // namespace cachalot::infer
