#include "train/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <numeric>
#include <set>
#include <utility>

#include "base/atomic_file.h"
#include "cost/cost.h"
#include "model/optimizer.h"
#include "model/train_graph.h"
#include "train/checkpoint.h"
#include "train/checkpoint_files.h"
#include "train/evaluate.h"
#include "train/memory_bound.h"
#include "train/metrics.h"
#include "train/ranks.h"
#include "train/run_data.h"
#include "train/run_model.h"
#include "train/run_state.h"
#include "train/schedule.h"
#include "train/step_data.h"

namespace cachalot::train {

namespace fs = std::filesystem;

namespace {

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// How long a token took, step by step. Room for the steps to come is got at once (of a very long
// run, for the first million).
class TokenTimes {
 public:
  explicit TokenTimes(std::int64_t steps) {
    constexpr std::int64_t kMost = 1 << 20;
    const auto room = static_cast<std::size_t>(std::clamp<std::int64_t>(steps, 0, kMost));
    seconds_.reserve(room);
    sorted_.reserve(room);
  }
  void add(double seconds) { seconds_.push_back(seconds); }
  std::size_t count() const noexcept { return seconds_.size(); }
  // Of the steps from `first` on, of those there are.
  double median(std::size_t first = 0) {
    if (seconds_.empty()) return 0;
    const std::size_t left_out = std::min(first, seconds_.size() - 1);
    sorted_.assign(seconds_.begin() + static_cast<std::ptrdiff_t>(left_out), seconds_.end());
    const auto middle = sorted_.begin() + static_cast<std::ptrdiff_t>(sorted_.size() / 2);
    std::nth_element(sorted_.begin(), middle, sorted_.end());
    return *middle;
  }

 private:
  std::vector<double> seconds_, sorted_;
};

double imbalance_of(const std::vector<std::int64_t>& load) {
  const std::int64_t total = std::accumulate(load.begin(), load.end(), std::int64_t{0});
  if (total == 0) return 0;
  return static_cast<double>(*std::max_element(load.begin(), load.end())) *
         static_cast<double>(load.size()) / static_cast<double>(total);
}

// One run from its beginning, or from a checkpoint, to its end.
class Run {
 public:
  Run(const Recipe& recipe, const TrainOptions& options, const runtime::Runtime& runtime,
      const TrainHooks& hooks)
      : recipe_(recipe),
        dir_(options.run_dir),
        ctx_(runtime.context()),
        ranks_(options.ranks),
        hooks_(heard(hooks)),
        lock_(ranks_.first() ? std::make_unique<RunLock>(options.run_dir) : nullptr),
        resumed_(ranks_.share(begin(options))),
        data_(ranks_.share(prepare())),
        config_(fitting(model_config(
            recipe, {data_.vocab_size, data_.bos, data_.eos, !data_.tokenizer.empty()}))),
        end_tokens_(end_tokens(recipe, config_)),
        parameters_(config_, ctx_.device),
        optimizer_(parameters_, {recipe.moment_type(), recipe.optimizer.ema_decay}),
        graph_(ctx_, config_, recipe.resolved_numerics()),
        train_set_(recipe_, data_, config_.num_nextn_predict_layers > 0),
        metrics_(ranks_.first() ? std::make_unique<MetricsFile>(dir_ / "metrics.jsonl",
                                                                resumed_.path ? resumed_.step : -1)
                                : nullptr) {
    ranks_.check(recipe_);
    if (hooks_.on_model) hooks_.on_model(config_);
    if (hooks_.on_routing) routing_layer_ = config_.moe_layer_or_first(hooks_.routing_layer);
    if (resumed_.path) {
      whole_checkpoints_.insert(resumed_.step);
      check_same_model(*resumed_.path, config_, data_.tokenizer);
      load_checked_state();
    } else {
      if (recipe_.schedule.epochs > 0) {
        state_.fitted_steps = steps_of_epochs(recipe_, train_set_.windows());
      }
      initialise(ctx_, recipe_, parameters_);
      ranks_.same_weights(parameters_);
      optimizer_.begin_average(parameters_);
    }
    if (state_.fitted_steps > 0) recipe_.schedule.steps = state_.fitted_steps;
    say_what_is_read();
    flops_per_token_ = cost::training_flops_per_token(
        config_, static_cast<int>(std::ceil(train_set_.rows_per_sequence())));
    peak_flops_ = measured_peak(ctx_, recipe.run.kernel_precision()) * ranks_.size();
  }

  TrainResult train();

 private:
  TrainHooks heard(const TrainHooks& hooks) const {
    if (ranks_.first()) return hooks;
    TrainHooks only;
    only.stop = hooks.stop;
    return only;
  }
  // Of rank 0, which has the folder.
  FoundCheckpoint begin(const TrainOptions& options) const {
    if (!ranks_.first()) return {};
    return begin_run_folder(recipe_, options, [&](const std::string& t) { message(t); });
  }
  RunData prepare() const {
    if (!ranks_.first()) return {};
    return prepare_data(recipe_, dir_, *ctx_.pool,
                        [&](const std::string& what, std::uint64_t done, std::uint64_t total) {
                          if (hooks_.on_prepare) hooks_.on_prepare(what, done, total);
                          if (stop_asked()) {
                            throw Error(
                                Code::kInterrupted,
                                "stopped while the data was prepared; nothing was trained yet");
                          }
                        });
  }
  // Before memory is taken for the model.
  model::Config fitting(model::Config config) const {
    check_memory(recipe_, config, ranks_.micro_batch(recipe_, recipe_.schedule.steps - 1),
                 memory_to_check(ctx_));
    return config;
  }
  void load_checked_state() {
    try {
      load_state(*resumed_.path, train_set_.hash(), parameters_, optimizer_, state_);
    } catch (const Error&) {
      data_.remove_encoded();
      throw;
    }
  }
  void message(const std::string& text) const {
    if (hooks_.on_message) hooks_.on_message(text);
  }
  bool stop_asked() const { return hooks_.stop != nullptr && hooks_.stop->load(); }
  void say_what_is_read() const {
    if (const std::string remark = train_set_.remark(); !remark.empty()) message(remark);
    if (recipe_.schedule.epochs > 0) {
      message(cat("schedule.steps is ", recipe_.schedule.steps, ": ", recipe_.schedule.epochs,
                  " times the data, ", train_set_.windows(), " windows"));
    }
  }

  void micro_batches(std::int64_t step, int batch);
  void one_step(std::int64_t step);
  void skip_or_stop(const StepReport& r, const fs::path& checkpoint) const;
  void evaluate(std::int64_t step, TrainResult& result);
  EvalReport evaluate_weights(std::int64_t step, bool of_average);
  fs::path save();
  void fit_steps(TokenTimes& times);
  void write_metrics(const StepReport& r);

  Recipe recipe_;  // its schedule.steps as epochs or fit_minutes made them
  fs::path dir_;
  const Context& ctx_;
  Ranks ranks_;
  const TrainHooks hooks_;
  std::unique_ptr<RunLock> lock_;  // rank 0's, as all that is written
  FoundCheckpoint resumed_;
  RunData data_;
  model::Config config_;
  std::vector<std::int32_t> end_tokens_;
  model::Parameters parameters_;
  model::Optimizer optimizer_;
  model::TrainGraph graph_;
  StepData train_set_;
  std::unique_ptr<MetricsFile> metrics_;
  RunState state_;
  std::set<std::int64_t> whole_checkpoints_;  // the step resumed from, and those written
  // Of the last step, in the memory of the steps before.
  model::Losses losses_;
  StepReport report_;
  std::int64_t step_rows_ = 0;  // of all ranks
  double flops_per_token_ = 0;
  double peak_flops_ = 0;
  int routing_layer_ = 0;
};

// Those of a micro-batch to the means over its step.
void add_losses(const model::Losses& part, const model::LossRows& own, const model::LossRows& all,
                const model::LossOptions& options, model::Losses& sum) {
  const auto share = [](std::int64_t rows, std::int64_t of) {
    return of > 0 ? static_cast<double>(rows) / static_cast<double>(of) : 0.0;
  };
  const double main = share(own.main, all.main) * part.main;
  const double mtp = share(own.mtp, all.mtp) * part.mtp;
  const double balance = share(own.all, all.all) * part.balance;
  sum.main += main;
  sum.mtp += mtp;
  sum.balance += balance;
  sum.total += main + static_cast<double>(options.mtp_lambda) * mtp +
               static_cast<double>(options.balance_alpha) * balance;
  sum.expert_load.resize(part.expert_load.size());
  for (std::size_t l = 0; l < part.expert_load.size(); ++l) {
    sum.expert_load[l].resize(part.expert_load[l].size());
    for (std::size_t e = 0; e < part.expert_load[l].size(); ++e) {
      sum.expert_load[l][e] += part.expert_load[l][e];
    }
  }
}

// Gradients and losses of one step, in as many passes as the recipe's micro_batch asks for, of
// which each rank takes its own.
void Run::micro_batches(std::int64_t step, int batch) {
  model::Losses& sum = losses_;
  sum.main = sum.mtp = sum.balance = sum.total = 0;
  for (std::vector<std::int64_t>& load : sum.expert_load) std::fill(load.begin(), load.end(), 0);
  const std::int64_t first = sequences_before(recipe_, step);
  const int micro = ranks_.micro_batch(recipe_, step);
  const model::LossRows all = train_set_.rows(first, batch);
  step_rows_ = all.all;
  bool fresh = true;
  for (int done = 0; done < batch; done += micro) {
    if (!ranks_.own(done / micro)) continue;
    const int n = std::min(micro, batch - done);
    const model::LossRows own = train_set_.rows(first + done, n);
    model::LossOptions options;
    options.mtp_lambda = static_cast<float>(mtp_lambda(recipe_, step));
    options.balance_alpha = static_cast<float>(recipe_.loss.balance_alpha);
    options.balance_over_batch = recipe_.loss.balance_over == BalanceOver::kBatch;
    options.share = model::LossShare::of(own, all);
    options.dropout = recipe_.regularization.dropout;
    options.dropout_seed = static_cast<std::uint64_t>(recipe_.run.seed);
    options.first_sequence = first + done;
    options.rows_per_sequence = recipe_.data.seq_len;
    options.fresh_gradients = std::exchange(fresh, false);
    const model::Losses& part =
        graph_.forward_backward(parameters_, train_set_.read(first + done, n), options);
    if (hooks_.on_routing) {
      const std::int64_t before = done > 0 ? train_set_.rows(first, done).all : 0;
      hooks_.on_routing(before, graph_.chosen_experts(routing_layer_).cview());
    }
    add_losses(part, own, all, options, sum);
  }
  ranks_.add(parameters_);
  ranks_.add(sum);
}

void Run::one_step(std::int64_t step) {
  const double start = now_s();
  StepReport& r = report_;
  r.step = step + 1;
  r.steps = recipe_.schedule.steps;
  r.batch = batch_size(recipe_, step);
  r.lr = learning_rate(recipe_, step);
  micro_batches(step, r.batch);
  const model::Losses& losses = losses_;
  model::OptimizerStep options;
  options.adamw = {r.lr, recipe_.optimizer.beta1, recipe_.optimizer.beta2, recipe_.optimizer.eps,
                   recipe_.optimizer.weight_decay};
  options.clip_norm = recipe_.optimizer.clip_norm;
  options.bias_gamma = bias_gamma(recipe_, step);
  model::OptimizerReport done;
  if (std::isfinite(losses.total)) {
    done = optimizer_.step(ctx_, parameters_, losses.expert_load, options);
  } else {
    done.skipped = true;
    done.grad_norm = std::numeric_limits<double>::quiet_NaN();
  }
  r.loss = losses.main;
  r.mtp_loss = losses.mtp;
  r.balance_loss = losses.balance;
  r.total_loss = losses.total;
  r.grad_norm = done.grad_norm;
  r.skipped = done.skipped;
  r.imbalance.clear();
  for (const auto& load : losses.expert_load) r.imbalance.push_back(imbalance_of(load));

  const auto tokens = static_cast<double>(step_rows_);
  r.seconds = now_s() - start;
  r.tokens_per_s = tokens / r.seconds;
  r.mfu = peak_flops_ > 0 ? flops_per_token_ * r.tokens_per_s / peak_flops_ : 0;
  state_.step = step + 1;
  state_.sequences += r.batch;
  state_.seconds += r.seconds;
  state_.skipped += done.skipped ? 1 : 0;
  state_.skipped_in_a_row = done.skipped ? state_.skipped_in_a_row + 1 : 0;
  r.elapsed_s = state_.seconds;
}

// Shortens the schedule once, when the speed is known, so that warm-up and decay fit the time. The
// warm-up does not depend on the number of steps, so the steps taken so far are what they would
// have been, but for up to five of a shorter warm-up.
void Run::fit_steps(TokenTimes& times) {
  constexpr std::size_t kCold = 2;  // touch their memory for the first time
  constexpr std::size_t kFewest = 3, kEnough = 30;
  const std::size_t enough = state_.step < recipe_.schedule.warmup_steps ? kEnough : kFewest;
  if (recipe_.run.fit_minutes <= 0 || state_.fitted_steps > 0 || times.count() < kCold + enough) {
    return;
  }
  const double tokens_per_step =
      static_cast<double>(recipe_.schedule.batch) * train_set_.rows_per_window();
  const double left = 60 * recipe_.run.fit_minutes - state_.seconds;
  const auto more = static_cast<std::int64_t>(left / (tokens_per_step * times.median(kCold)));
  const std::int64_t least =
      std::max(state_.step, recipe_.schedule.warmup_steps + recipe_.schedule.constant_steps) + 1;
  state_.fitted_steps = std::min(std::max(state_.step + more, least), recipe_.schedule.steps);
  recipe_.schedule.steps = state_.fitted_steps;
  const bool fits = state_.fitted_steps <= state_.step + more;
  message(fits ? cat("schedule.steps is ", state_.fitted_steps, " to end within ",
                     recipe_.run.fit_minutes, " minutes")
               : cat("schedule.steps is ", state_.fitted_steps, ", the fewest behind ",
                     recipe_.schedule.warmup_steps, " of warm-up and ",
                     recipe_.schedule.constant_steps, " at the full rate: run.fit_minutes = ",
                     recipe_.run.fit_minutes, " is too short for them"));
}

void Run::write_metrics(const StepReport& r) {
  MetricsLine line(r.step);
  line.add("loss", r.loss)
      .add("mtp_loss", r.mtp_loss)
      .add("balance_loss", r.balance_loss)
      .add("total_loss", r.total_loss)
      .add("grad_norm", r.grad_norm)
      .add("lr", r.lr)
      .add("batch", r.batch)
      .add("tokens_per_s", r.tokens_per_s)
      .add("mfu", r.mfu)
      .add("expert_imbalance", std::span<const double>(r.imbalance))
      .add("skipped", r.skipped ? 1 : 0)
      .add("elapsed_s", r.elapsed_s);
  metrics_->append(line);
}

// Says that a step was skipped; throws after too many in a row.
void Run::skip_or_stop(const StepReport& r, const fs::path& checkpoint) const {
  if (!r.skipped) return;
  const int row = state_.skipped_in_a_row;
  message(cat("step ", r.step, " skipped: its loss is ", r.total_loss, ", its gradient norm ",
              r.grad_norm, " (", row, " in a row, run.max_skips = ", recipe_.run.max_skips, ")"));
  if (row < recipe_.run.max_skips) return;
  const std::string stands = checkpoint.empty()
                                 ? "no checkpoint was written yet"
                                 : cat("the newest good checkpoint is ", checkpoint.string());
  throw Error(Code::kNumeric, cat("step ", r.step, ": loss or gradient was not finite ", row,
                                  " steps in a row; none of them changed the weights, and ", stands,
                                  ". Lower optimizer.lr",
                                  recipe_.run.precision == RecipePrecision::kF32
                                      ? ""
                                      : ", or use run.precision = \"f32\" to find the cause"));
}

EvalReport Run::evaluate_weights(std::int64_t step, bool of_average) {
  const int in_a_pass = ranks_.micro_batch(recipe_, recipe_.schedule.steps - 1);
  EvalReport e = train::evaluate(graph_, parameters_, recipe_, data_, step, in_a_pass);
  e.of_average = of_average;
  const std::string prefix = of_average ? "ema_" : "";
  MetricsLine line(step);
  line.add(prefix + "validation_loss", e.loss)
      .add(prefix + "validation_bits_per_byte", e.bits_per_byte)
      .add(prefix + "validation_mtp_loss", e.mtp_loss)
      .add(prefix + "mtp_acceptance", e.mtp_acceptance)
      .add(prefix + "first_choice", e.first_choice)
      .add(prefix + "validation_tokens", e.tokens);
  // A run that is resumed at its end may have this line already.
  if (!metrics_->kept(step, prefix + "validation_loss")) metrics_->append(line);
  if (hooks_.on_eval) hooks_.on_eval(e);
  return e;
}

void Run::evaluate(std::int64_t step, TrainResult& result) {
  if (data_.validation.empty() || !ranks_.first()) return;
  result.validation = evaluate_weights(step, false);
  if (!optimizer_.has_average()) return;
  optimizer_.swap_average(parameters_);
  try {
    result.average = evaluate_weights(step, true);
  } catch (...) {
    optimizer_.swap_average(parameters_);
    throw;
  }
  optimizer_.swap_average(parameters_);
}

fs::path Run::save() {
  if (!ranks_.first()) return dir_ / kCheckpointsFolder / step_folder(state_.step);
  const double begin = now_s();
  const fs::path saved =
      save_state({dir_, recipe_, config_, parameters_, optimizer_, state_, train_set_.hash(),
                  data_.tokenizer_files(), end_tokens_, whole_checkpoints_});
  message("saved " + saved.string());
  if (hooks_.on_save) hooks_.on_save(now_s() - begin);
  return saved;
}

TrainResult Run::train() {
  TrainResult result;
  result.parameters = parameters_.count();
  result.optimizer_bytes_per_parameter =
      static_cast<double>(model::Optimizer::state_bytes(parameters_, recipe_.moment_type())) /
      static_cast<double>(std::max<std::int64_t>(result.parameters, 1));
  result.step = state_.step;
  TokenTimes times(recipe_.schedule.steps - state_.step);
  std::int64_t saved_at = resumed_.path ? resumed_.step : -1;
  if (resumed_.path) result.checkpoint = *resumed_.path;
  std::int64_t evaluated_at = -1;
  const double started = now_s();
  const auto out_of_time = [&] {
    return recipe_.run.max_minutes > 0 && now_s() - started > 60 * recipe_.run.max_minutes;
  };
  std::int64_t step = state_.step;
  for (; step < recipe_.schedule.steps; ++step) {
    const Ranks::Ends ends = ranks_.agree({stop_asked(), out_of_time()}, recipe_.schedule.steps);
    if (ends.stop) result.ended = Ended::kStopped;
    if (ends.time_up) result.ended = Ended::kTimeUp;
    if (result.ended != Ended::kDone) break;
    one_step(step);
    StepReport& r = report_;
    times.add(1 / r.tokens_per_s);
    const double left_tokens =
        static_cast<double>(sequences_before(recipe_, recipe_.schedule.steps) -
                            sequences_before(recipe_, step + 1)) *
        train_set_.rows_per_window();
    r.left_s = left_tokens * times.median();
    result.loss = r.loss;
    if (ranks_.first()) {
      if (r.step % recipe_.run.log_every == 0) write_metrics(r);
      fit_steps(times);
    }
    if (hooks_.on_step) hooks_.on_step(r);
    skip_or_stop(r, result.checkpoint);
    const std::int64_t done = step + 1;
    if (recipe_.run.eval_every > 0 && done % recipe_.run.eval_every == 0) {
      evaluate(done, result);
      evaluated_at = done;
    }
    if (recipe_.run.checkpoint_every > 0 && done % recipe_.run.checkpoint_every == 0 &&
        state_.skipped_in_a_row == 0) {
      result.checkpoint = save();
      saved_at = done;
    }
  }
  result.step = state_.step;
  // What was trained is kept before anything else is done with it.
  if (saved_at != state_.step) result.checkpoint = save();
  if (evaluated_at != state_.step && result.ended != Ended::kStopped) {
    evaluate(state_.step, result);
  }
  result.tokens = train_set_.rows_before(state_.sequences);
  result.skipped_steps = state_.skipped;
  result.seconds = state_.seconds;
  if (times.count() > 0) {
    result.tokens_per_s = 1 / times.median();
    if (peak_flops_ > 0) result.mfu = flops_per_token_ * result.tokens_per_s / peak_flops_;
  }
  return result;
}

}  // namespace

TrainResult train(const Recipe& recipe, const TrainOptions& options,
                  const runtime::Runtime& runtime, const TrainHooks& hooks) {
  return Run(recipe, options, runtime, hooks).train();
}

}  // namespace cachalot::train
