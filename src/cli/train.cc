// cachalot train: a recipe carried out in a run folder, with a progress line.
#include <fmt/format.h>

#include <atomic>
#include <cmath>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <optional>

#include "base/error.h"
#include "cli/command.h"
#include "cli/output.h"
#include "cli/output_file.h"
#include "cli/progress.h"
#include "cli/remarks.h"
#include "cli/routing_writer.h"
#include "cli/started_ranks.h"
#include "cli/stop_time.h"
#include "model/config.h"
#include "model/weights.h"
#include "train/trainer.h"

namespace cachalot::cli {

namespace {

struct Options {
  std::string recipe, run_dir;
  std::vector<std::string> set;
  bool resume = false;
  RoutingOptions routing;
};

std::atomic<bool> stop_asked{false};
static_assert(std::atomic<bool>::is_always_lock_free, "set from a signal handler");

// The first Ctrl-C or SIGTERM asks; the second one ends the process the usual way.
void on_signal(int number) {
  stop_asked = true;
  std::signal(number, SIG_DFL);
}

std::string step_line(const train::StepReport& r) {
  double imbalance = 0;
  for (const double x : r.imbalance) imbalance = std::max(imbalance, x);
  return fmt::format(
      "{} step {}/{}  loss {:.4f}  mtp {:.4f}  grad {:.2f}{}  lr {:.2e}  {:.0f} tok/s  MFU {:.0f}% "
      " "
      "load {:.2f}  {} left",
      bar(static_cast<double>(r.step), static_cast<double>(r.steps), 16), r.step, r.steps, r.loss,
      r.mtp_loss, r.grad_norm, r.skipped ? " (skipped)" : "", r.lr, r.tokens_per_s, 100 * r.mfu,
      imbalance, clock_text(r.left_s));
}

std::string eval_line(const train::EvalReport& r) {
  return fmt::format(
      "step {}: held out{} {:.4f} nats per token, {:.4f} bits per byte, MTP loss {:.4f}, MTP "
      "acceptance {:.1f}%, first choice {:.1f}%",
      r.step, r.of_average ? " (mean of the weights)" : "", r.loss, r.bits_per_byte, r.mtp_loss,
      100 * r.mtp_acceptance, 100 * r.first_choice);
}

std::string_view name(train::Ended ended) {
  switch (ended) {
    case train::Ended::kDone:
      return "done";
    case train::Ended::kStopped:
      return "stopped";
    case train::Ended::kTimeUp:
      return "time up";
  }
  return "done";
}

Json to_json(const train::EvalReport& r) {
  if (r.tokens == 0) return nullptr;
  return {{"step", r.step},
          {"nats_per_token", r.loss},
          {"bits_per_byte", r.bits_per_byte},
          {"mtp_loss", r.mtp_loss},
          {"mtp_acceptance", r.mtp_acceptance},
          {"first_choice", r.first_choice},
          {"tokens", r.tokens}};
}

Json to_json(const train::TrainResult& r, const std::string& run_dir) {
  return {{"ended", name(r.ended)},
          {"step", r.step},
          {"tokens", r.tokens},
          {"skipped_steps", r.skipped_steps},
          {"seconds", r.seconds},
          {"tokens_per_s", r.tokens_per_s},
          {"mfu", r.mfu},
          {"loss", std::isfinite(r.loss) ? Json(r.loss) : Json(nullptr)},
          {"parameters", r.parameters},
          {"optimizer_bytes_per_parameter", r.optimizer_bytes_per_parameter},
          {"validation", to_json(r.validation)},
          {"validation_of_ema", to_json(r.average)},
          {"run", run_dir},
          {"checkpoint", r.checkpoint.string()}};
}

void print_text(const train::TrainResult& r, const std::string& run_dir) {
  const std::string speed =
      r.tokens_per_s > 0 ? fmt::format("{:.0f} tokens/s, MFU {:.1f}%", r.tokens_per_s, 100 * r.mfu)
                         : "no step was taken now";
  print_line(fmt::format("{}: {} steps, {} tokens in {}, {}", name(r.ended), r.step,
                         human_count(static_cast<double>(r.tokens)), clock_text(r.seconds), speed));
  print_line(fmt::format("parameters  {}", human_count(static_cast<double>(r.parameters))));
  print_line(fmt::format("optimizer   {:.2f} bytes per parameter: FP32 master weights and moments",
                         r.optimizer_bytes_per_parameter));
  if (!std::isnan(r.loss)) print_line(fmt::format("loss        {:.4f} nats per token", r.loss));
  if (r.validation.tokens > 0) print_line("held out    " + eval_line(r.validation));
  if (r.average.tokens > 0) print_line("            " + eval_line(r.average));
  if (r.skipped_steps > 0) print_line(fmt::format("skipped     {} steps", r.skipped_steps));
  print_line("model       " + r.checkpoint.string());
  if (r.ended == train::Ended::kStopped) {
    print_line(fmt::format("continue    cachalot train ... --run {} --resume", run_dir));
  }
}

// On the config.json, or the folder, that a new run's model comes from.
std::vector<std::string> remarks_on(const train::ModelRecipe& model) {
  std::vector<std::string> remarks;
  if (!model.init_from.empty()) {
    model::Config config = model::load_config(model.init_from, &remarks);
    model::drop_absent_mtp(config, io::Safetensors::open(model.init_from), &remarks);
  } else if (!model.config.empty()) {
    model::load_config(model.config, &remarks);
  }
  return remarks;
}

void train_on_ranks(const Options& o, const Globals& globals, const train::Recipe& recipe,
                    StartedRanks& started) {
  train::TrainOptions options;
  options.resume = o.resume;
  options.run_dir = o.run_dir.empty()
                        ? std::filesystem::path("runs") / std::filesystem::path(o.recipe).stem()
                        : std::filesystem::path(o.run_dir);
  // The flag goes before the recipe; results do not depend on it.
  const int threads = globals.threads != 0 ? globals.threads : recipe.run.threads;
  const runtime::Runtime rt({.threads = threads,
                             .cpu = {},
                             .pin = {},
                             .on_device = true,
                             .device = started.number_here()});
  const std::unique_ptr<comm::Collectives> ranks = started.collectives(rt.context().device);
  options.ranks = ranks.get();
  if (o.routing.asked() && ranks != nullptr && ranks->size() > 1) {
    throw Error(
        Code::kUnsupported,
        cat("--routing-trace writes all tokens of the last step, and each of ", ranks->size(),
            " ranks knows what its own chose: leave it out, or train on one rank"));
  }

  Progress progress;
  train::TrainHooks hooks;
  hooks.stop = &stop_asked;
  hooks.on_prepare = [&](const std::string& what, std::uint64_t done, std::uint64_t total) {
    progress.show(
        fmt::format(
            "{} {} {:.0f}%", bar(static_cast<double>(done), static_cast<double>(total), 16), what,
            total > 0 ? 100.0 * static_cast<double>(done) / static_cast<double>(total) : 100.0),
        done >= total);
  };
  StopTime stop_time(comm::kill_delay());
  const auto say = [&](const std::string& text) {
    if (!text.empty()) progress.message(text);
  };
  hooks.on_step = [&](const train::StepReport& r) {
    stop_time.step(r.seconds);
    progress.show(step_line(r), r.step == r.steps);
  };
  hooks.on_eval = [&](const train::EvalReport& r) { progress.message(eval_line(r)); };
  hooks.on_message = say;
  hooks.on_save = [&](double seconds) { say(stop_time.saved(seconds)); };

  std::optional<RoutingWriter> routing;
  if (o.routing.asked()) {
    if (started.first()) check_output_file("--routing-trace", o.routing.file);  // who writes it
    check_routing_tokens(o.routing, std::int64_t{recipe.schedule.batch} * recipe.data.seq_len);
    hooks.on_model = [&](const model::Config& config) {
      routing.emplace(o.routing, config.route.experts);
    };
    hooks.routing_layer = o.routing.layer;
    hooks.on_routing = [&](std::int64_t before, MatView<const std::int32_t> chosen) {
      if (before == 0) routing->clear();  // a new step's tokens
      routing->append(chosen);
    };
  }

  if (started.first()) {
    if (!o.resume) say_remarks(remarks_on(recipe.model));
    say(stop_time.advice());
  }
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
  const train::TrainResult result = train::train(recipe, options, rt, hooks);
  if (!started.first()) return;
  if (globals.json) {
    print_json(to_json(result, options.run_dir.string()));
  } else {
    print_text(result, options.run_dir.string());
  }
  if (!routing) return;
  if (routing->empty()) {
    progress.message("--routing-trace: no step was taken, so " + o.routing.file +
                     " was not written");
  } else {
    routing->write();
  }
}

void run(const Options& o, const Globals& globals) {
  const train::Recipe recipe = train::load_recipe(o.recipe, o.set);
  StartedRanks started;
  started.run([&] { train_on_ranks(o, globals, recipe, started); });
}

}  // namespace

void add_train(CLI::App& root, Globals& globals) {
  CLI::App* command = add_command(
      root, globals, "train",
      "Train a model by a recipe. Ctrl-C and SIGTERM save and stop; --resume goes on from there.");
  auto o = std::make_shared<Options>();
  command->add_option("recipe", o->recipe, "What to train, on what, and how (TOML)")
      ->required()
      ->type_name("RECIPE.toml");
  command
      ->add_option("--run", o->run_dir, "Folder of the run; default: runs/ and the recipe's name")
      ->type_name("DIR");
  command
      ->add_option("--set", o->set, "Override a value of the recipe; may be given more than once")
      ->allow_extra_args(false)
      ->type_name("section.key=value");
  add_routing_flags(*command, o->routing);
  command->add_flag("--resume", o->resume, "Continue from the newest whole checkpoint of the run");
  command->add_flag_callback(
      "--help-recipe",
      [] {
        print(train::recipe_help());
        flush_output();
        throw CLI::Success();
      },
      "Print every value a recipe may hold, with range and default, and exit");
  on_run(command, globals, o, run);
}

}  // namespace cachalot::cli
