// cachalot plan compare: models side by side, and the published figures beside what follows from
// the sizes.
#include <fmt/format.h>

#include <cmath>

#include "base/error.h"
#include "cli/command.h"
#include "cli/html_page.h"
#include "cli/output.h"
#include "cli/output_file.h"
#include "cli/remarks.h"
#include "cost/decoder.h"
#include "cost/pass.h"
#include "plan/published.h"
#include "report/text.h"

namespace cachalot::cli {

namespace {

struct Options {
  std::vector<std::string> models;
  std::int64_t sequence = 4096;
  bool published = true;
  std::string html;
};

struct Row {
  cost::Decoder decoder;
  std::int64_t cache = 0;
  double forward = 0, training = 0, decode = 0;
  double moved = 0;  // bytes read for one token at batch 1, BF16
};

Row row_of(const std::string& model, std::int64_t sequence) {
  std::vector<std::string> remarks;
  Row row{cost::load_decoder(model, &remarks)};
  say_remarks(remarks);
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

report::Table models_table(const std::vector<Row>& rows) {
  report::Table table{"",
                      {{"model", false},
                       {"attention", false},
                       {"parameters"},
                       {"active"},
                       {"cache, B"},
                       {"over"},
                       {"forward"},
                       {"training"},
                       {"decoding"},
                       {"read"}},
                      {}};
  for (const Row& r : rows) {
    const cost::Parameters& p = r.decoder.parameters;
    table.rows.push_back({r.decoder.name, std::string(cost::name(r.decoder.attention)),
                          human_count(static_cast<double>(p.total)),
                          human_count(static_cast<double>(p.active)), fmt::format("{}", r.cache),
                          fmt::format("{:.2f}", static_cast<double>(r.cache) /
                                                    static_cast<double>(rows.front().cache))});
    for (const double x : {r.forward, r.training, r.decode, r.moved}) {
      table.rows.back().emplace_back(fmt::format("{:.1f}", x / 1e9));
    }
  }
  return table;
}

std::vector<std::string> models_words(std::int64_t sequence) {
  return {"cache: bytes per token in BF16; over: that of the first model.",
          fmt::format("GFLOP per token: forward and training over {} tokens, causal; decoding "
                      "after {} tokens.",
                      sequence, sequence),
          "read: GB of weights and cache for one decoded token at batch 1, BF16."};
}

report::Table claims_table(const std::vector<plan::Claim>& claims) {
  report::Table table{
      "", {{"published", false}, {"where", false}, {"printed"}, {"computed"}, {"note", false}}, {}};
  for (const plan::Claim& c : claims) {
    const double unit = c.agrees() ? c.unit : std::min(c.unit, 0.1);
    table.rows.push_back({c.what, c.source, digits(c.printed, c.unit), digits(c.computed, unit),
                          (c.agrees() ? "" : "DIFFERS: ") + c.note});
  }
  return table;
}

report::Chart bars(const std::vector<Row>& rows, const std::string& title, const std::string& unit,
                   const std::vector<std::pair<std::string, double Row::*>>& figures) {
  report::Chart chart;
  chart.kind = report::Chart::Kind::kBars;
  chart.title = title;
  chart.x_label = "model";
  chart.y_label = unit;
  for (const auto& [label, figure] : figures) {
    chart.series.push_back({label, {}, {}});
    for (const Row& r : rows) chart.series.back().values.push_back(r.*figure / 1e9);
  }
  for (const Row& r : rows) chart.categories.push_back(r.decoder.name);
  return chart;
}

report::Page page_of(const std::vector<Row>& rows, const std::vector<plan::Claim>& claims,
                     std::int64_t sequence) {
  report::Chart cache;
  cache.kind = report::Chart::Kind::kBars;
  cache.title = "Cache of a token, BF16";
  cache.x_label = "model";
  cache.y_label = "bytes";
  cache.series = {{"cache", {}, {}}};
  for (const Row& r : rows) {
    cache.categories.push_back(r.decoder.name);
    cache.series[0].values.push_back(static_cast<double>(r.cache));
  }
  report::Page page;
  page.title = "Models side by side";
  page.summary =
      fmt::format("Cache bytes, operations and bytes read per token, at {} tokens.", sequence);
  report::Section models{"Models", {models_table(rows)}};
  for (const std::string& line : models_words(sequence)) {
    models.items.emplace_back(report::Paragraph{line});
  }
  models.items.emplace_back(std::move(cache));
  models.items.emplace_back(
      bars(rows, "Work of a token", "GFLOP",
           {{"forward", &Row::forward}, {"training", &Row::training}, {"decoding", &Row::decode}}));
  models.items.emplace_back(
      bars(rows, "Read for one decoded token at batch 1", "GB", {{"read", &Row::moved}}));
  page.sections = {std::move(models)};
  if (!claims.empty()) {
    page.sections.push_back(
        {"Published figures beside what follows from the sizes", {claims_table(claims)}});
  }
  page.sections.push_back(
      {"Assumptions and sources",
       {report::Facts{
           {{"hardware",
             "none: everything follows from the sizes in each config.json, so no "
             "resource limits a figure here (plan infer and plan train say which does)"},
            {"training",
             "6 times the active weights that are factors of a product, and 3 times "
             "attention's scores and sums, causal"},
            {"decoding", "2 times those weights, and attention over the cache itself"},
            {"read", "weights once, of the experts those that one token uses, and the cached rows"},
            {"published",
             "each with its source in the table; docs/planning.md has the formulas"}}}}});
  return page;
}

void run(const Options& o, const Globals& globals) {
  check_output_file("--html", o.html);
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
  Json list = Json::array(), figures = Json::array();
  for (const Row& r : rows) list.push_back(to_json(r));
  for (const plan::Claim& c : claims) figures.push_back(to_json(c));
  const Json result = {{"sequence", o.sequence}, {"models", list}, {"published", figures}};
  if (!o.html.empty()) {
    report::Page page = page_of(rows, claims, o.sequence);
    page.result = result;
    write_html(o.html, std::move(page), globals);
  }
  if (globals.json) {
    print_json(result);
    return;
  }
  print(report::text(models_table(rows)) + "\n");
  for (const std::string& line : models_words(o.sequence)) print_line(line);
  if (o.published) print("\n" + report::text(claims_table(claims)));
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
  add_html_flag(*command, o->html);
  on_run(command, globals, o, run);
}

}  // namespace cachalot::cli
