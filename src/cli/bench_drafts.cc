// cachalot bench drafts: what speculative decoding brings to one text.
#include "infer/bench_drafts.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include "base/error.h"
#include "cli/command.h"
#include "cli/engine_options.h"
#include "cli/inputs.h"
#include "cli/output.h"
#include "cli/prompt.h"
#include "cli/session.h"

namespace cachalot::cli {

namespace {

struct Options {
  std::string model;
  std::string precision = kAutoPrecision;
  PromptOptions prompt;
  EngineOptions engine;
  infer::DraftBenchOptions bench;
};

Json to_json(const infer::DraftBenchResult& r) {
  Json cases = Json::array();
  for (const infer::DraftBenchCase& c : r.cases) {
    Json json = {{"mtp", infer::name(c.mode)},
                 {"drafts", c.mode == infer::MtpMode::kAuto ? Json(nullptr) : Json(c.drafts)},
                 {"tokens_per_s", c.tokens_per_s},
                 {"cpu_seconds_per_token", c.cpu_seconds},
                 {"gain", c.gain},
                 {"cpu_gain", c.cpu_gain},
                 {"tokens_per_pass", c.tokens_per_pass},
                 {"pass_seconds", c.pass_seconds},
                 {"draft_seconds", c.draft_seconds},
                 {"right", c.right},
                 {"experts", c.experts},
                 {"predicted_gain", nullptr}};
    if (c.mode == infer::MtpMode::kOn) json["predicted_gain"] = c.predicted_gain;
    cases.push_back(std::move(json));
  }
  return {{"cases", std::move(cases)},
          {"new_tokens", r.tokens.size()},
          {"auto_of_best", r.auto_of_best},
          {"auto_of_best_cpu", r.auto_of_best_cpu}};
}

void print_table(const infer::DraftBenchResult& r) {
  print_line(fmt::format("{:<5} {:>7} {:>10} {:>6} {:>7} {:>10} {:>12} {:>9} {:>9} {:>8}  {}",
                         "mtp", "drafts", "tokens/s", "gain", "by CPU", "predicted", "tokens/pass",
                         "ms/pass", "drafting", "experts", "right"));
  for (const infer::DraftBenchCase& c : r.cases) {
    std::string right;
    for (const double share : c.right) {
      right += fmt::format("{}{:.0f}%", right.empty() ? "" : ", ", 100 * share);
    }
    const bool on = c.mode == infer::MtpMode::kOn;
    print_line(fmt::format(
        "{:<5} {:>7} {:>10.1f} {:>6.2f} {:>7.2f} {:>10} {:>12.2f} {:>9.3f} {:>9.3f} {:>8.2f}  {}",
        infer::name(c.mode), c.mode == infer::MtpMode::kAuto ? "" : std::to_string(c.drafts),
        c.tokens_per_s, c.gain, c.cpu_gain, on ? fmt::format("{:.2f}", c.predicted_gain) : "",
        c.tokens_per_pass, 1e3 * c.pass_seconds, 1e3 * c.draft_seconds, c.experts, right));
  }
  print_line("");
  print_line(
      fmt::format("auto beside the better of the others: {:.3f} of its tokens/s, {:.3f} by "
                  "processor time.",
                  r.auto_of_best, r.auto_of_best_cpu));
  print_line(
      "gain: tokens/s over those without drafts in the same turn, median; by CPU: processor time "
      "per token instead.");
  print_line(
      "ms/pass: of the main model; drafting: of the MTP layer behind it; experts: of a layer that "
      "a "
      "pass read.");
  print_line(
      "right: of a pass's first drafts, of its second ones where the first was right, and so on. "
      "predicted: from");
  print_line("these, from passes of such sizes by themselves, and from the experts.");
  print_line("Every answer was the same.");
}

void run(const Options& o, const Globals& globals) {
  if (o.prompt.given() > 1) require_prompt(o.prompt, "bench drafts");
  infer::validate(o.bench.request.sampling);
  const Session session(o.model, o.precision, globals.threads, ModelUse::kLong);
  infer::DraftBenchOptions bench = o.bench;
  bench.engine = engine_config(o.engine);
  bench.request.prompt =
      o.prompt.given() == 1 ? prompt_tokens(o.prompt, session) : any_prompt(session, 16);
  const auto result =
      infer::bench_drafts(session.context(), session.model, bench,
                          [](const std::string& what) { spdlog::info("{}", what); });
  if (globals.json) {
    print_json(to_json(result));
  } else {
    print_table(result);
  }
}

}  // namespace

void add_bench_drafts(CLI::App& bench, Globals& globals) {
  CLI::App* command = add_command(
      bench, globals, "drafts",
      "One text with and without drafts of the MTP layer, in turns: gain, acceptance, and the gain "
      "that acceptance and passes promise. Without a prompt, the ids 0 to 15 are continued");
  auto o = std::make_shared<Options>();
  o->bench.request.max_tokens = 512;
  add_model_folder(command, o->model);
  add_prompt(command, o->prompt);
  command->add_option("--max-tokens", o->bench.request.max_tokens, "New tokens of each answer")
      ->check(CLI::Range(2, 1 << 20))
      ->type_name("N");
  command->add_option("--draft-length", o->bench.lengths, "Drafts of a pass, for a case each")
      ->delimiter(',')
      ->check(CLI::Range(1, infer::kMaxDrafts))
      ->type_name("N,N,...");
  command->add_option("--turns", o->bench.turns, "Answers of each case; medians count")
      ->check(CLI::Range(1, 1000))
      ->type_name("N");
  add_precision_or_auto(command, o->precision);
  add_kv_cache(command, o->engine.cache);
  add_fast(command, o->engine.cache);
  add_sampling(command, o->bench.request.sampling);
  on_run(command, globals, o, run);
}

}  // namespace cachalot::cli
