// cachalot bench train: steps of a recipe's model in each precision, in turns.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/command.h"
#include "cli/finite.h"
#include "cli/output.h"
#include "runtime/describe.h"
#include "runtime/runtime.h"
#include "train/bench_train.h"

namespace cachalot::cli {

namespace {

using train::RecipePrecision;
using train::TrainBenchCase;

struct Options {
  std::string recipe;
  std::vector<std::string> set;
  std::vector<std::string> precisions;  // empty: all
  train::TrainBenchOptions bench;
  bool memory = true;
};

RecipePrecision precision_named(std::string_view name) {
  for (const RecipePrecision p :
       {RecipePrecision::kF32, RecipePrecision::kBf16, RecipePrecision::kFp8}) {
    if (train::name(p) == name) return p;
  }
  throw Error(Code::kUsage, cat("--precision is `", name, "`, but must be f32, bf16 or fp8"));
}

double per_token(std::size_t bytes, const TrainBenchCase& c) {
  return static_cast<double>(bytes) / static_cast<double>(std::max<std::int64_t>(c.kept_tokens, 1));
}

double part_sum(const TrainBenchCase& c) {
  double sum = 0;
  for (const double s : c.part_seconds) sum += s;
  return sum;
}

// Peak memory of a process that trains in one precision alone: 0 where it could not be told.
std::size_t rss_alone(const Options& options, const Globals& globals, RecipePrecision precision) {
  std::string command = fmt::format(
      "{} bench train --json --no-memory --turns 1 --limit 1 --threads {} "
      "--precision {} '{}'",
      std::filesystem::read_symlink("/proc/self/exe").string(), globals.threads,
      train::name(precision), options.recipe);
  for (const std::string& s : options.set) command += fmt::format(" --set '{}'", s);
  command += " 2>/dev/null";
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return 0;
  std::string text;
  char piece[4096];
  for (std::size_t n = 0; (n = fread(piece, 1, sizeof piece, pipe)) > 0;) text.append(piece, n);
  if (pclose(pipe) != 0) return 0;
  const auto json = nlohmann::json::parse(text, nullptr, false);
  if (json.is_discarded()) return 0;
  return json["cases"][0].value("peak_rss_bytes", std::size_t{0});
}

Json to_json(const runtime::Description& d, const std::vector<TrainBenchCase>& cases) {
  Json list = Json::array();
  for (const TrainBenchCase& c : cases) {
    Json parts, kept;
    for (std::size_t i = 0; i < c.part_seconds.size(); ++i) {
      parts[std::string(kPartNames[i])] = c.part_seconds[i];
    }
    for (std::size_t i = 0; i < c.kept.bytes.size(); ++i) {
      kept[std::string(nn::KeptBytes::kNames[i])] = per_token(c.kept.bytes[i], c);
    }
    list.push_back({{"name", "train"},
                    {"precision", train::name(c.precision)},
                    {"tokens_per_s", c.tokens_per_s},
                    {"gflops", c.gflops.value},
                    {"ceiling", c.gflops.ceiling},
                    {"fraction", c.gflops.fraction},
                    {"step_seconds", c.step_seconds},
                    {"valid_turns", c.gflops.valid},
                    {"turns", c.gflops.turns},
                    {"part_seconds", parts},
                    {"kept_bytes_per_token", kept},
                    {"kept_bytes_per_token_total", per_token(c.kept.total(), c)},
                    {"optimizer_bytes_per_parameter",
                     static_cast<double>(c.optimizer_bytes) / static_cast<double>(c.parameters)},
                    {"parameters", c.parameters},
                    {"weight_code_bytes", c.code_bytes},
                    {"peak_rss_bytes", c.peak_rss_bytes}});
  }
  return {{"machine", {{"cpu", d.cpu}, {"level", d.level}, {"threads", d.threads}}},
          {"cases", list}};
}

void print_table(const runtime::Description& d, const std::vector<TrainBenchCase>& cases) {
  print_line(fmt::format("{}, level {}, {} threads", d.cpu, d.level, d.threads));
  const auto row = [&](std::string_view label, auto&& value) {
    std::string line = fmt::format("{:<32}", label);
    for (const TrainBenchCase& c : cases) line += fmt::format(" {:>14}", value(c));
    print_line(line);
  };
  row("", [](const auto& c) { return std::string(train::name(c.precision)); });
  row("tokens/s", [](const auto& c) { return fmt::format("{:.0f}", c.tokens_per_s); });
  row("step, ms", [](const auto& c) { return fmt::format("{:.0f}", 1e3 * c.step_seconds); });
  row("model GFLOP/s", [](const auto& c) { return fmt::format("{:.0f}", c.gflops.value); });
  row("peak of the same turns, GFLOP/s",
      [](const auto& c) { return fmt::format("{:.0f}", c.gflops.ceiling); });
  row("MFU", [](const auto& c) { return fmt::format("{:.1f}%", 100 * c.gflops.fraction); });
  row("turns that count / taken",
      [](const auto& c) { return fmt::format("{} / {}", c.gflops.valid, c.gflops.turns); });
  print_line("");
  print_line("time of a step, ms (share)");
  for (std::size_t i = 0; i < kPartNames.size(); ++i) {
    row(fmt::format("  {}", kPartNames[i]), [&](const auto& c) {
      return fmt::format("{:.1f} ({:.0f}%)", 1e3 * c.part_seconds[i],
                         100 * c.part_seconds[i] / part_sum(c));
    });
  }
  print_line("");
  print_line("kept for the backward, bytes per token");
  for (std::size_t i = 0; i < nn::KeptBytes::kNames.size(); ++i) {
    row(fmt::format("  {}", nn::KeptBytes::kNames[i]),
        [&](const auto& c) { return fmt::format("{:.0f}", per_token(c.kept.bytes[i], c)); });
  }
  row("  all", [](const auto& c) { return fmt::format("{:.0f}", per_token(c.kept.total(), c)); });
  row("optimiser, bytes per parameter", [](const auto& c) {
    return fmt::format("{:.2f}",
                       static_cast<double>(c.optimizer_bytes) / static_cast<double>(c.parameters));
  });
  row("peak memory alone, MB", [](const auto& c) {
    return fmt::format("{:.0f}", 1e-6 * static_cast<double>(c.peak_rss_bytes));
  });
}

void run(const Options& options, const Globals& globals) {
  const train::Recipe recipe = train::load_recipe(options.recipe, options.set);
  int vocab = recipe.model.vocab_size > 0 ? recipe.model.vocab_size : recipe.data.train_bpe;
  if (recipe.model.has_inline_sizes() && vocab == 0) {
    throw Error(Code::kUsage, cat(options.recipe,
                                  ": the vocabulary is the tokenizer's; say its size with --set "
                                  "model.vocab_size=N"));
  }
  train::TrainBenchOptions bench = options.bench;
  if (!options.precisions.empty()) bench.precisions.clear();
  for (const std::string& name : options.precisions) {
    bench.precisions.push_back(precision_named(name));
  }
  const runtime::Runtime rt({.threads = globals.threads, .cpu = {}, .on_device = true});
  const runtime::Description d = runtime::describe(rt);
  auto cases = train::bench_train(rt, recipe, vocab, bench,
                                  [](const std::string& what) { spdlog::info("{}", what); });
  if (options.memory) {
    for (TrainBenchCase& c : cases) {
      spdlog::info("{}: memory, in a process of its own", train::name(c.precision));
      c.peak_rss_bytes = rss_alone(options, globals, c.precision);
    }
  }
  if (globals.json) {
    print_json(to_json(d, cases));
  } else {
    print_table(d, cases);
  }
}

}  // namespace

void add_bench_train(CLI::App& bench, Globals& globals) {
  CLI::App* command = add_command(bench, globals, "train",
                                  "Training steps of a recipe's model on random tokens, precisions "
                                  "in turns: speed, parts, memory");
  auto options = std::make_shared<Options>();
  command->add_option("recipe", options->recipe, "Recipe, as for train")
      ->required()
      ->check(CLI::ExistingFile)
      ->type_name("RECIPE");
  command->add_option("--set", options->set, "Overrides one field: section.key=value")
      ->type_name("A.B=V");
  command->add_option("--precision", options->precisions, "Only these; all by default")
      ->check(CLI::IsMember({"f32", "bf16", "fp8"}))
      ->type_name("f32|bf16|fp8");
  command
      ->add_option("--turns", options->bench.turns.turns,
                   "Steps of each precision beside ceilings that agree; their median counts")
      ->check(CLI::Range(1, 1000))
      ->type_name("N");
  command
      ->add_option("--limit", options->bench.turns.limit_seconds,
                   "Seconds after which it ends with the turns it has")
      ->check(finite_range(0.1, 36000))
      ->type_name("SECONDS");
  command->add_flag("--memory,!--no-memory", options->memory,
                    "Measure the peak memory of each precision in a process of its own");
  on_run(command, globals, options, run);
}

}  // namespace cachalot::cli
