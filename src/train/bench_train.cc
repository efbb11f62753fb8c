#include "train/bench_train.h"

#include <sys/resource.h>

#include <algorithm>
#include <memory>

#include "base/rng.h"
#include "cost/cost.h"
#include "model/optimizer.h"
#include "model/train_graph.h"
#include "perf/peaks.h"
#include "train/memory_bound.h"
#include "train/run_model.h"
#include "train/schedule.h"

namespace cachalot::train {

namespace {

std::size_t peak_rss() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::size_t>(usage.ru_maxrss) * 1024;
}

// A model that takes one optimiser step at a time.
class Contestant {
 public:
  Contestant(const runtime::Runtime& runtime, const Recipe& recipe, const model::Config& config)
      : recipe_(recipe),
        ctx_(with_profile(runtime.context())),
        parameters_(config, ctx_.device),
        optimizer_(parameters_, {recipe.moment_type(), recipe.optimizer.ema_decay}),
        graph_(ctx_, config, recipe.resolved_numerics()) {
    initialise(ctx_, recipe_, parameters_);
    optimizer_.begin_average(parameters_);
    const Rng rng(static_cast<std::uint64_t>(recipe.run.seed));
    const int micro = micro_batch_size(recipe, recipe.schedule.steps - 1);
    tokens_.resize(micro, recipe.data.seq_len + 1);
    for (std::size_t i = 0; i < tokens_.size(); ++i) {
      tokens_.data()[i] =
          static_cast<std::int32_t>(rng.below(i, static_cast<std::uint64_t>(config.vocab_size)));
    }
  }
  Contestant(const Contestant&) = delete;
  Contestant& operator=(const Contestant&) = delete;

  void step() {
    profile_.switch_to(Part::kOther);  // from the pause since the last step
    std::span<const std::vector<std::int64_t>> load;
    const int batch = recipe_.schedule.batch;
    for (int done = 0; done < batch; done += tokens_.rows()) {
      const int n = std::min(tokens_.rows(), batch - done);
      model::LossOptions options;
      options.mtp_lambda = static_cast<float>(recipe_.loss.mtp_lambda);
      options.balance_alpha = static_cast<float>(recipe_.loss.balance_alpha);
      options.balance_over_batch = recipe_.loss.balance_over == BalanceOver::kBatch;
      options.share = model::LossShare::equal(static_cast<float>(n) / static_cast<float>(batch));
      options.dropout = recipe_.regularization.dropout;
      options.dropout_seed = static_cast<std::uint64_t>(recipe_.run.seed);
      options.first_sequence = done;
      options.fresh_gradients = done == 0;
      load =
          graph_.forward_backward(parameters_, tokens_.cview().sub_rows(0, n), options).expert_load;
    }
    profile_.switch_to(Part::kOptimizer);
    model::OptimizerStep options;
    options.adamw = {recipe_.optimizer.lr, recipe_.optimizer.beta1, recipe_.optimizer.beta2,
                     recipe_.optimizer.eps, recipe_.optimizer.weight_decay};
    options.clip_norm = recipe_.optimizer.clip_norm;
    options.bias_gamma = recipe_.loss.bias_gamma;
    optimizer_.step(ctx_, parameters_, load, options);
    if (ctx_.device != nullptr) ctx_.device->wait();
    profile_.switch_to(Part::kOther);
    profile_.pause();
    ++steps_;
  }
  // On a device: one more step whose parts wait for each other, to see what takes the time.
  void step_by_parts() {
    if (ctx_.device == nullptr) return;
    profile_.wait_for(ctx_.device);
    forget_times();
    step();
    profile_.wait_for(nullptr);
  }
  void forget_times() {
    profile_.reset();
    steps_ = 0;
  }
  std::vector<double> part_seconds() const {
    std::vector<double> seconds;
    for (std::size_t i = 0; i < kPartNames.size(); ++i) {
      seconds.push_back(profile_.seconds(static_cast<Part>(i)) / std::max(steps_, 1));
    }
    return seconds;
  }
  const model::Parameters& parameters() const { return parameters_; }
  const model::TrainGraph& graph() const { return graph_; }
  const Recipe& recipe() const { return recipe_; }

 private:
  Context with_profile(Context ctx) {
    ctx.profile = &profile_;
    return ctx;
  }

  Recipe recipe_;
  Profile profile_;
  Context ctx_;
  model::Parameters parameters_;
  model::Optimizer optimizer_;
  model::TrainGraph graph_;
  Mat<std::int32_t> tokens_;
  int steps_ = 0;
};

}  // namespace

std::string_view name(RecipePrecision precision) noexcept {
  switch (precision) {
    case RecipePrecision::kF32:
      return "f32";
    case RecipePrecision::kBf16:
      return "bf16";
    case RecipePrecision::kFp8:
      return "fp8";
  }
  return "";
}

std::vector<TrainBenchCase> bench_train(const runtime::Runtime& runtime, const Recipe& recipe,
                                        int vocab_size, const TrainBenchOptions& options,
                                        const std::function<void(const std::string&)>& progress) {
  const model::Config config = model_config(recipe, {.vocab_size = vocab_size});
  std::vector<Recipe> recipes;
  for (const RecipePrecision precision : options.precisions) {
    recipes.push_back(recipe);
    recipes.back().run.precision = precision;
  }
  check_memory_of_all(recipes, config, micro_batch_size(recipe, recipe.schedule.steps - 1),
                      memory_to_check(runtime.context()));
  std::vector<std::unique_ptr<Contestant>> all;
  for (const Recipe& own : recipes) {
    progress(cat(name(own.run.precision), ": first steps"));
    all.push_back(std::make_unique<Contestant>(runtime, own, config));
    Contestant* c = all.back().get();
    c->step();
    c->step();
    c->forget_times();
  }
  const double tokens = static_cast<double>(recipe.schedule.batch) * recipe.data.seq_len;
  const double work = 1e-9 * tokens * cost::training_flops_per_token(config, recipe.data.seq_len);
  progress("in turns");
  const Context& ctx = runtime.context();
  std::vector<perf::Contestant> contestants;
  for (const auto& c : all) contestants.push_back({"", [&c] { c->step(); }});
  const auto measured = perf::measure(
      contestants, work,
      [&ctx] {
        if (ctx.device != nullptr) {
          const double sold = 1e-9 * ctx.device->bf16_flops();
          return perf::Ceilings{sold, sold};
        }
        const double pairs = perf::bf16_gflops(ctx);
        return perf::Ceilings{std::max(perf::fma_gflops(ctx), pairs), pairs};
      },
      options.turns);

  std::vector<TrainBenchCase> cases;
  for (std::size_t i = 0; i < all.size(); ++i) {
    Contestant& c = *all[i];
    c.step_by_parts();
    TrainBenchCase one;
    one.precision = options.precisions[i];
    one.gflops = measured[i];
    one.step_seconds = measured[i].value > 0 ? work / measured[i].value : 0;
    one.tokens_per_s = one.step_seconds > 0 ? tokens / one.step_seconds : 0;
    one.part_seconds = c.part_seconds();
    one.kept = c.graph().kept_bytes();
    one.kept_tokens = c.graph().tokens();
    one.parameters = c.parameters().count();
    one.optimizer_bytes = model::Optimizer::state_bytes(c.parameters(), c.recipe().moment_type());
    one.code_bytes = c.parameters().code_bytes();
    one.peak_rss_bytes = peak_rss();
    cases.push_back(std::move(one));
  }
  return cases;
}

}  // namespace cachalot::train
