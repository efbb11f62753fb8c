// cachalot plan model: sizes, cache bytes and FLOPs of a model from its config.json alone.
#include <fmt/format.h>

#include "base/error.h"
#include "cli/command.h"
#include "cli/output.h"
#include "cost/cost.h"
#include "model/config.h"

namespace cachalot::cli {

namespace {

struct Options {
  std::string model;
  std::int64_t sequence = 4096;
};

Json part_json(const cost::Part& part) {
  return {{"layers", part.layers}, {"total", part.total}, {"active", part.active}};
}

Json to_json(const model::Config& config, const cost::Parameters& p, std::int64_t sequence) {
  Json parts = Json::object();
  for (const cost::Part& part : p.parts) parts[part.name] = part_json(part);
  const Json mtp = {{"layers", p.mtp.layers}, {"total", p.mtp.total}, {"active", p.mtp.active}};
  return {{"parameters",
           {{"total", p.total},
            {"active", p.active},
            {"active_matmul", p.matmul},
            {"parts", parts},
            {"mtp", mtp},
            {"total_with_mtp", p.total + p.mtp.total}}},
          {"kv_bytes_per_token", cost::kv_bytes_per_token(config)},
          {"mha_kv_bytes_per_token", cost::mha_kv_bytes_per_token(config)},
          {"training_flops_per_token", cost::training_flops_per_token(config, sequence)},
          {"training_flops_per_token_non_causal",
           cost::training_flops_per_token(config, sequence, false)},
          {"sequence", sequence}};
}

void print_table(const model::Config& config, const cost::Parameters& p, std::int64_t sequence) {
  const auto row = [](const std::string& name, int layers, std::int64_t total,
                      std::int64_t active) {
    print_line(fmt::format("{:<16} {:>6} {:>14} {:>14}", name, layers,
                           human_count(static_cast<double>(total)),
                           human_count(static_cast<double>(active))));
  };
  print_line(fmt::format("{:<16} {:>6} {:>14} {:>14}", "part", "layers", "total", "active"));
  for (const cost::Part& part : p.parts) row(part.name, part.layers, part.total, part.active);
  row("sum", config.num_hidden_layers, p.total, p.active);
  if (p.mtp.layers > 0) row("mtp (apart)", p.mtp.layers, p.mtp.total, p.mtp.active);
  print_line("");
  print_line(
      fmt::format("latent cache       {} bytes per token (BF16); plain multi-head attention: {}",
                  cost::kv_bytes_per_token(config), cost::mha_kv_bytes_per_token(config)));
  print_line(fmt::format("training           {:.3f} GFLOP per token at {} tokens, causal",
                         cost::training_flops_per_token(config, sequence) / 1e9, sequence));
  print_line(fmt::format("weights            BF16 {}, FP8 {}",
                         human_bytes(2.0 * static_cast<double>(p.total + p.mtp.total)),
                         human_bytes(static_cast<double>(p.total + p.mtp.total))));
}

void run(const Options& options, const Globals& globals) {
  const model::Config config = model::load_config(options.model);
  const cost::Parameters p = cost::parameters(config);
  if (globals.json) {
    print_json(to_json(config, p, options.sequence));
  } else {
    print_table(config, p, options.sequence);
  }
}

}  // namespace

void add_plan(CLI::App& root, Globals& globals) {
  CLI::App* plan = root.add_subcommand("plan", "Sizes and costs before anything is run");
  plan->require_subcommand(1);
  CLI::App* command =
      add_command(*plan, globals, "model",
                  "Parameters, cache bytes and FLOPs per token of a model, by part and in sum");
  auto options = std::make_shared<Options>();
  command->add_option("model", options->model, "Model folder, or a config.json")
      ->required()
      ->type_name("MODEL");
  command
      ->add_option("--sequence", options->sequence,
                   "Sequence length the attention work is counted for")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 30))
      ->type_name("N");
  on_run(command, globals, options, run);
  add_plan_train(*plan, globals);
  add_plan_design(*plan, globals);
  add_plan_experts(*plan, globals);
  add_plan_schedule(*plan, globals);
}

}  // namespace cachalot::cli
