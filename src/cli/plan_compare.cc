// cachalot plan compare: models side by side, and the published figures beside what follows from
// the sizes.
#include <fmt/format.h>

#include <cmath>

#include "base/error.h"
#include "cli/command.h"
#include "cli/output.h"
#include "cost/decoder.h"
#include "cost/pass.h"
#include "plan/published.h"

namespace cachalot::cli {

namespace {

struct Options {
  std::vector<std::string> models;
  std::int64_t sequence = 4096;
  bool published = true;
};

struct Row {
  cost::Decoder decoder;
  std::int64_t cache = 0;
  double forward = 0, training = 0, decode = 0;
  double moved = 0;  // bytes read for one token at batch 1, BF16
};

Row row_of(const std::string& model, std::int64_t sequence) {
  Row row{cost::load_decoder(model)};
  const cost::Decoder& d = row.decoder;
  row.cache = cost::cache_bytes_per_token(d);
  row.forward = cost::forward_flops_per_token(d, sequence);
  row.training = cost::training_flops_per_token(d, sequence);
  row.decode = cost::decode_flops_per_token(d, sequence);
  cost::PassShape one;
  one.context = static_cast<int>(sequence);
  one.cache_bytes_per_token = static_cast<double>(row.cache);
  row.moved = cost::pass_cost(d, cost::weight_bytes(d, model::WeightFormat::kBf16), one).bytes();
  return row;
}

Json to_json(const Row& r) {
  return {{"model", r.decoder.name},
          {"attention", cost::name(r.decoder.attention)},
          {"parameters", r.decoder.parameters.total},
          {"active", r.decoder.parameters.active},
          {"kv_bytes_per_token", r.cache},
          {"forward_flops_per_token", r.forward},
          {"training_flops_per_token", r.training},
          {"decode_flops_per_token", r.decode},
          {"decode_bytes_per_token", r.moved}};
}

Json to_json(const plan::Claim& c) {
  return {{"figure", c.what},       {"source", c.source},   {"printed", c.printed},
          {"computed", c.computed}, {"agrees", c.agrees()}, {"note", c.note}};
}

// As many decimals as are printed.
std::string digits(double x, double unit) {
  return fmt::format("{:.{}f}", x, unit < 1 ? static_cast<int>(std::round(-std::log10(unit))) : 0);
}

void print_models(const std::vector<Row>& rows, std::int64_t sequence) {
  print_line(fmt::format("{:<20} {:>9} {:>12} {:>12} {:>12} {:>7} {:>10} {:>10} {:>10} {:>10}",
                         "model", "attention", "parameters", "active", "cache, B", "over",
                         "forward", "training", "decoding", "read"));
  for (const Row& r : rows) {
    const cost::Parameters& p = r.decoder.parameters;
    print_line(fmt::format(
        "{:<20} {:>9} {:>12} {:>12} {:>12} {:>7.2f} {:>10.1f} {:>10.1f} {:>10.1f} {:>10.1f}",
        r.decoder.name, cost::name(r.decoder.attention), human_count(static_cast<double>(p.total)),
        human_count(static_cast<double>(p.active)), r.cache,
        static_cast<double>(r.cache) / static_cast<double>(rows.front().cache), r.forward / 1e9,
        r.training / 1e9, r.decode / 1e9, r.moved / 1e9));
  }
  print_line("");
  print_line("cache: bytes per token in BF16; over: that of the first model.");
  print_line(
      fmt::format("GFLOP per token: forward and training over {} tokens, causal; decoding "
                  "after {} tokens.",
                  sequence, sequence));
  print_line("read: GB of weights and cache for one decoded token at batch 1, BF16.");
}

void print_claims(const std::vector<plan::Claim>& claims) {
  print_line("");
  print_line(fmt::format("{:<46} {:<28} {:>9} {:>10}  {}", "published", "where", "printed",
                         "computed", "note"));
  for (const plan::Claim& c : claims) {
    const double unit = c.agrees() ? c.unit : std::min(c.unit, 0.1);
    const std::string mark = c.agrees() ? "" : "DIFFERS: ";
    print_line(fmt::format("{:<46} {:<28} {:>9} {:>10}  {}{}", c.what, c.source,
                           digits(c.printed, c.unit), digits(c.computed, unit), mark, c.note));
  }
}

void run(const Options& o, const Globals& globals) {
  std::vector<std::string> models = o.models;
  if (models.empty()) {
    for (const char* name : {"deepseek-v3", "deepseek-v2", "deepseek-v2-lite", "moonlight-16b-a3b",
                             "kimi-k2", "qwen2.5-72b", "llama-3.1-405b"}) {
      models.emplace_back(name);
    }
  }
  std::vector<Row> rows;
  for (const std::string& model : models) rows.push_back(row_of(model, o.sequence));
  const auto claims = o.published ? plan::published_claims() : std::vector<plan::Claim>{};
  if (globals.json) {
    Json list = Json::array(), figures = Json::array();
    for (const Row& r : rows) list.push_back(to_json(r));
    for (const plan::Claim& c : claims) figures.push_back(to_json(c));
    print_json({{"sequence", o.sequence}, {"models", list}, {"published", figures}});
    return;
  }
  print_models(rows, o.sequence);
  if (o.published) print_claims(claims);
}

}  // namespace

void add_plan_compare(CLI::App& plan, Globals& globals) {
  CLI::App* command = add_command(plan, globals, "compare",
                                  "Models side by side: cache bytes and FLOPs per token; published "
                                  "figures beside what follows from the sizes");
  auto o = std::make_shared<Options>();
  command
      ->add_option("models", o->models,
                   "Model folders, config.json files or known names; none: all known models")
      ->type_name("MODEL...");
  command->add_option("--sequence", o->sequence, "Tokens of a sequence, and in the cache")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 30))
      ->type_name("N");
  command->add_flag("--published,!--no-published", o->published,
                    "The published figures and where they differ");
  on_run(command, globals, o, run);
}

}  // namespace cachalot::cli
