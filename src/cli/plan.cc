// cachalot plan model: sizes, cache bytes and FLOPs of a model from its config.json alone.
#include <fmt/format.h>

#include "base/error.h"
#include "cli/command.h"
#include "cli/output.h"
#include "cli/remarks.h"
#include "cost/decoder.h"
#include "cost/weight_bytes.h"

namespace cachalot::cli {

namespace {

struct Options {
  std::string model;
  std::int64_t sequence = 4096;
};

// What plain multi-head attention of the same heads would keep, BF16: a key and a value for each.
std::int64_t full_cache_bytes(const cost::Decoder& d) {
  return static_cast<std::int64_t>(d.pair_flops / 2) * d.layers * 2;
}

Json part_json(const cost::Part& part) {
  return {{"layers", part.layers}, {"total", part.total}, {"active", part.active}};
}

Json to_json(const cost::Decoder& d, std::int64_t sequence) {
  const cost::Parameters& p = d.parameters;
  Json parts = Json::object();
  for (const cost::Part& part : p.parts) parts[part.name] = part_json(part);
  const Json mtp = {{"layers", p.mtp.layers}, {"total", p.mtp.total}, {"active", p.mtp.active}};
  return {
      {"model", d.name},
      {"attention", cost::name(d.attention)},
      {"parameters",
       {{"total", p.total},
        {"active", p.active},
        {"active_matmul", p.matmul},
        {"parts", parts},
        {"mtp", mtp},
        {"total_with_mtp", p.total + p.mtp.total}}},
      {"kv_bytes_per_token", cost::cache_bytes_per_token(d)},
      {"mha_kv_bytes_per_token", full_cache_bytes(d)},
      {"forward_flops_per_token", cost::forward_flops_per_token(d, sequence)},
      {"training_flops_per_token", cost::training_flops_per_token(d, sequence)},
      {"training_flops_per_token_non_causal", cost::training_flops_per_token(d, sequence, false)},
      {"decode_flops_per_token", cost::decode_flops_per_token(d, sequence)},
      {"sequence", sequence}};
}

void print_table(const cost::Decoder& d, std::int64_t sequence) {
  const cost::Parameters& p = d.parameters;
  const auto row = [](const std::string& name, int layers, std::int64_t total,
                      std::int64_t active) {
    print_line(fmt::format("{:<16} {:>6} {:>14} {:>14}", name, layers,
                           human_count(static_cast<double>(total)),
                           human_count(static_cast<double>(active))));
  };
  print_line(fmt::format("{:<16} {:>6} {:>14} {:>14}", "part", "layers", "total", "active"));
  for (const cost::Part& part : p.parts) row(part.name, part.layers, part.total, part.active);
  row("sum", d.layers, p.total, p.active);
  if (p.mtp.layers > 0) row("mtp (apart)", p.mtp.layers, p.mtp.total, p.mtp.active);
  print_line("");
  print_line(fmt::format("{:<18} {} bytes per token (BF16); plain multi-head attention: {}",
                         d.attention == cost::Attention::kLatent
                             ? "latent cache"
                             : fmt::format("{} cache", cost::name(d.attention)),
                         cost::cache_bytes_per_token(d), full_cache_bytes(d)));
  print_line(fmt::format("training           {:.3f} GFLOP per token at {} tokens, causal",
                         cost::training_flops_per_token(d, sequence) / 1e9, sequence));
  print_line(fmt::format("forward            {:.3f} GFLOP per token; decoding after {}: {:.3f}",
                         cost::forward_flops_per_token(d, sequence) / 1e9, sequence,
                         cost::decode_flops_per_token(d, sequence) / 1e9));
  print_line(fmt::format("weights held       BF16 {}, FP8 {}",
                         human_bytes(cost::held_bytes(d, model::WeightFormat::kBf16)),
                         human_bytes(cost::held_bytes(d, model::WeightFormat::kFp8))));
}

void run(const Options& options, const Globals& globals) {
  std::vector<std::string> remarks;
  const cost::Decoder d = cost::load_decoder(options.model, &remarks);
  say_remarks(remarks);
  if (globals.json) {
    print_json(to_json(d, options.sequence));
  } else {
    print_table(d, options.sequence);
  }
}

void add_plan_model(CLI::App& plan, Globals& globals) {
  CLI::App* command =
      add_command(plan, globals, "model",
                  "Parameters, cache bytes and FLOPs per token of a model, by part and in sum");
  auto options = std::make_shared<Options>();
  command
      ->add_option("model", options->model,
                   "Model folder, a config.json, or the name of a known model (deepseek-v3)")
      ->required()
      ->type_name("MODEL");
  command
      ->add_option("--sequence", options->sequence,
                   "Sequence length the attention work is counted for")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 30))
      ->type_name("N");
  on_run(command, globals, options, run);
}

}  // namespace

void add_plan(CLI::App& root, Globals& globals) {
  CLI::App* plan = root.add_subcommand("plan", "Sizes, costs and speeds before anything is run");
  plan->require_subcommand(1);
  add_plan_model(*plan, globals);
  add_plan_compare(*plan, globals);
  add_plan_hardware(*plan, globals);
  add_plan_infer(*plan, globals);
  add_plan_probe(*plan, globals);
  add_plan_train(*plan, globals);
  add_plan_design(*plan, globals);
  add_plan_experts(*plan, globals);
  add_plan_schedule(*plan, globals);
}

}  // namespace cachalot::cli
