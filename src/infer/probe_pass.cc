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

// Neither a small model nor a large one; the head is next to nothing.
model::Config middling(bool experts) {
  model::Config c = tiny(experts ? 4 : 6);
  c.vocab_size = 512;
  c.hidden_size = 1280;
  c.intermediate_size = 3840;
  c.moe_intermediate_size = 512;
  c.num_attention_heads = 10;
  c.q_lora_rank = 512;
  c.kv_lora_rank = 320;
  c.qk_nope_head_dim = 64;
  c.qk_rope_head_dim = 32;
  c.v_head_dim = 64;
  c.rope.dim = 32;
  c.route.experts = experts ? 32 : 0;
  c.route.topk = experts ? 4 : 0;
  c.n_shared_experts = experts ? 1 : 0;
  c.first_k_dense_replace = experts ? 0 : c.num_hidden_layers;
  c.max_position_embeddings = 2048;
  return c;
}

model::Model made(const Context& ctx, const fs::path& target, const model::Config& config,
                  model::WeightFormat format) {
  model::InitOptions init;
  init.format = format;
  model::init_model(ctx, config, model::to_json(config), target, init);
  model::LoadOptions load;
  load.precision = Precision::kBF16;
  load.keep_codes = true;
  load.placement = model::LoadOptions::Placement::kPacked;  // what long commands choose
  load.context = &ctx;
  return model::Model::load(target, load);
}

// All cases three times over, each with the median of its three: what slows a machine down for a
// second then spoils one of them. A virtual machine whose cores share a physical one for a minute
// computes at half its peak, which shows in the peak beside a case: passes that arithmetic binds
// are counted at the best peak of all.
std::vector<InferBenchCase> passes(const Context& ctx, const model::Model& model,
                                   const std::vector<int>& rows, int turns) {
  constexpr std::size_t kRounds = 3;
  constexpr int kBoundByArithmetic = 64;  // rows
  InferBenchOptions o;
  o.turns = {.turns = turns, .limit_seconds = 0.5, .turn_seconds = 0.02};
  o.contexts = {0};
  o.prompts = rows;
  std::vector<std::vector<InferBenchCase>> rounds;
  for (std::size_t r = 0; r < kRounds; ++r) {
    rounds.push_back(bench_prefill(ctx, model, o, [](const std::string&) {}));
  }
  double best = 0;
  for (const auto& round : rounds) {
    for (const InferBenchCase& c : round) best = std::max(best, c.ceiling);
  }
  for (auto& round : rounds) {
    for (InferBenchCase& c : round) {
      if (c.prompt >= kBoundByArithmetic) c.seconds *= c.ceiling / best;
    }
  }
  std::vector<InferBenchCase> cases;
  for (std::size_t i = 0; i < rounds.front().size(); ++i) {
    std::vector<InferBenchCase> same;
    for (const auto& round : rounds) same.push_back(round.at(i));
    std::ranges::sort(same, {}, &InferBenchCase::seconds);
    cases.push_back(same.at(kRounds / 2));
  }
  return cases;
}

double pass_seconds(const Context& ctx, const fs::path& target, int layers, int turns) {
  const model::Model model = made(ctx, target, tiny(layers), model::WeightFormat::kBf16);
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

PassRates measure_pass_rates(const Context& ctx, const fs::path& folder, model::WeightFormat format,
                             const std::vector<int>& rows, const PassOverhead& overhead,
                             const cost::RateCurve& attention, int turns) {
  const Scratch scratch(folder / cat(".cachalot-probe-", getpid()));
  PassRates rates;
  // Seconds that are left for products: without overhead and attention.
  const auto rest = [&](const InferBenchCase& c, int layers) {
    return c.seconds - overhead.pass_seconds - layers * overhead.layer_seconds -
           c.cost.attention_flops / attention.at(c.cost.attention_rows);
  };
  {
    const model::Config config = middling(false);
    const model::Model model = made(ctx, scratch.path() / "dense", config, format);
    for (const InferBenchCase& c : passes(ctx, model, rows, turns)) {
      rates.rows.push_back(c.prompt);
      rates.dense_gflops.push_back(1e-9 * c.cost.product_flops / rest(c, config.num_hidden_layers));
    }
  }
  const model::Config config = middling(true);
  const model::Model model = made(ctx, scratch.path() / "experts", config, format);
  const cost::RateCurve dense{rates.rows, rates.dense_gflops};
  for (const InferBenchCase& c : passes(ctx, model, rows, turns)) {
    const double others = 1e-9 * (c.cost.dense.flops + c.cost.head.flops) / dense.at(c.prompt);
    const double left = rest(c, config.num_hidden_layers) - others;
    const double each = c.prompt * config.route.topk / c.experts;
    // A turn that was disturbed may leave nothing, or come out of order: no figure then.
    if (left <= 0 || (!rates.expert_rows.empty() && each <= rates.expert_rows.back())) continue;
    rates.expert_rows.push_back(each);
    rates.expert_gflops.push_back(1e-9 * c.cost.expert.flops / left);
  }
  return rates;
}

}  // namespace cachalot::infer
