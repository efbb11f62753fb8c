#include "cli/plan_design_report.h"

#include <fmt/format.h>

#include <algorithm>

#include "cli/report_parts.h"
#include "plan/train_limit.h"
#include "report/text.h"

namespace cachalot::cli {

namespace {

std::string shape_text(const model::Config& c) {
  return fmt::format("{} x {}, {} heads, latent {}, {}", c.num_hidden_layers, c.hidden_size,
                     c.num_attention_heads, c.kv_lora_rank,
                     c.route.experts == 0 ? fmt::format("dense {}", c.intermediate_size)
                                          : fmt::format("{} of {} experts of {}", c.route.topk,
                                                        c.route.experts, c.moe_intermediate_size));
}

Json design_json(const plan::Design& d) {
  const model::Config& c = d.config;
  return {{"layers", c.num_hidden_layers},
          {"hidden_size", c.hidden_size},
          {"heads", c.num_attention_heads},
          {"kv_lora_rank", c.kv_lora_rank},
          {"q_lora_rank", c.q_lora_rank},
          {"experts", c.route.experts},
          {"topk", c.route.topk},
          {"expert_width", c.moe_intermediate_size},
          {"precision", cost::name(d.precision)},
          {"active_parameters", d.active},
          {"parameters", d.total},
          {"batch", d.batch},
          {"steps", d.steps},
          {"tokens", d.tokens},
          {"seconds", d.seconds},
          {"tokens_per_s", d.tokens / d.seconds},
          {"device_hours", d.device_hours},
          {"money", money_json(d.money)},
          {"loss", d.loss},
          {"bits_per_byte", plan::bits_per_byte(d.loss)},
          {"kv_bytes_per_token", d.kv_bytes},
          {"tpot_ms", d.tpot_ms},
          {"learning_rate", d.learning_rate}};
}

std::vector<std::string> best_lines(const DesignReport& report) {
  const plan::HardwareProfile& h = report.hardware;
  const plan::DesignRequest& r = report.request;
  const plan::Design& d = report.result.best;
  std::vector<std::string> lines;
  lines.push_back(fmt::format("best of {} shapes by {} ({} refused)", report.result.considered,
                              plan::name(r.law), report.result.refused));
  lines.push_back(
      fmt::format("  {}; {} in products", shape_text(d.config), cost::name(d.precision)));
  lines.push_back(
      fmt::format("  {} parameters, {} active", human_count(d.total), human_count(d.active)));
  lines.push_back(
      fmt::format("  {:.4g} tokens in {:.0f} steps of {} x {}; {:.2f} h on {} devices{}", d.tokens,
                  d.steps, d.batch, r.sequence, d.seconds / 3600, r.nodes * h.device.per_node,
                  d.money > 0 ? fmt::format(", {:.0f} {}", d.money, h.price.currency) : ""));
  if (r.unique_tokens > 0) {
    lines.push_back(fmt::format("  the corpus of {:.4g} tokens is read {:.1f} times",
                                r.unique_tokens, d.tokens / r.unique_tokens));
  }
  lines.push_back(
      fmt::format("  predicted loss {:.4f} ({:.3f} bits per byte); cache {:.0f} bytes per token; "
                  "{:.3g} ms per token of one stream",
                  d.loss, plan::bits_per_byte(d.loss), d.kv_bytes, d.tpot_ms));
  return lines;
}

report::Table by_hand_table(const DesignReport& report) {
  report::Table table{"recipes made by hand, by the same law",
                      {{"recipe", false},
                       {"loss"},
                       {"bits/byte"},
                       {"tokens/s"},
                       {"tokens"},
                       {"times read"},
                       {"shape", false}},
                      {}};
  const auto add = [&](const std::string& name, const plan::Design& d, double unique) {
    table.rows.push_back(
        {name, fmt::format("{:.4f}", d.loss), fmt::format("{:.3f}", plan::bits_per_byte(d.loss)),
         fmt::format("{:.0f}", d.tokens / d.seconds), fmt::format("{:.4g}", d.tokens),
         fmt::format("{:.1f}", d.tokens / unique), shape_text(d.config)});
  };
  add("(design)", report.result.best, report.request.unique_tokens);
  for (const HandMade& hand : report.by_hand) {
    add(hand.name, hand.timed.design, hand.request.unique_tokens);
  }
  return table;
}

report::Table front_table(const DesignReport& report, std::size_t most) {
  const std::vector<plan::Design>& front = report.result.front;
  report::Table table{"no other is better in loss, cost and cache at once",
                      {{"loss"}, {"device hours"}, {"cache"}, {"shape", false}},
                      {}};
  for (std::size_t i = 0; i < front.size() && i < most; ++i) {
    table.rows.push_back({fmt::format("{:.4f}", front[i].loss),
                          fmt::format("{:.4g}", front[i].device_hours),
                          fmt::format("{:.0f}", front[i].kv_bytes), shape_text(front[i].config)});
  }
  return table;
}

// Loss over one of the costs, the front as points.
report::Chart front_chart(const DesignReport& report, const std::string& title,
                          const std::string& x_label, double plan::Design::*cost) {
  std::vector<plan::Design> front = report.result.front;
  std::stable_sort(front.begin(), front.end(),
                   [&](const plan::Design& a, const plan::Design& b) { return a.*cost < b.*cost; });
  report::Chart chart;
  chart.kind = report::Chart::Kind::kPoints;
  chart.title = title;
  chart.x_label = x_label;
  chart.y_label = "predicted loss";
  chart.zero = false;
  chart.log_x =
      !front.empty() && front.front().*cost > 0 && front.back().*cost > 10 * front.front().*cost;
  chart.series = {{"front", {}, {}}};
  for (const plan::Design& d : front) {
    chart.x.push_back(d.*cost);
    chart.series[0].values.push_back(d.loss);
  }
  return chart;
}

// Where the best design's training step spends its time.
std::vector<report::Item> step_items(const DesignReport& report) {
  const plan::TrainPlan& p = *report.result.plan;
  const plan::TrainSpending s = plan::spending_of(report.result.best.config, report.hardware, p);
  const auto mark = static_cast<report::Mark>(s.limit());
  report::Chart chart;
  chart.kind = report::Chart::Kind::kBars;
  chart.title = "Where a step of the best design spends its time";
  chart.x_label = "what";
  chart.y_label = "s";
  chart.series = {{"step", {s.compute, s.memory, s.communication, s.bubble}, {0, 1, 2, 3}}};
  for (const plan::TrainLimit limit : plan::kTrainLimits) {
    chart.categories.emplace_back(plan::name(limit));
  }
  return {report::Table{"",
                        {{"step, s"}, {"tokens/s"}, {"limited by", false}, {"layout", false}},
                        {{fmt::format("{:.4g}", p.seconds),
                          fmt::format("{:.4g}", p.tokens_per_second()),
                          {std::string(plan::name(s.limit())), mark},
                          fmt::format("{} devices, pp={} ep={} tp={}, {}", p.layout.devices,
                                      p.layout.pipeline, p.layout.expert, p.layout.tensor,
                                      cost::name(p.layout.schedule))}}},
          std::move(chart)};
}

}  // namespace

Json to_json(const DesignReport& report) {
  const plan::DesignRequest& r = report.request;
  Json front = Json::array();
  for (const plan::Design& d : report.result.front) front.push_back(design_json(d));
  Json by_hand = Json::array();
  for (const HandMade& hand : report.by_hand) {
    Json one = {{"name", hand.name}, {"unique_tokens", hand.request.unique_tokens}};
    one.update(design_json(hand.timed.design));
    by_hand.push_back(std::move(one));
  }
  return {{"hardware", report.hardware.name},
          {"law", plan::name(r.law)},
          {"law_source", plan::source(r.law)},
          {"considered", report.result.considered},
          {"refused", report.result.refused},
          {"unique_tokens", r.unique_tokens},
          {"best", design_json(report.result.best)},
          {"front", front},
          {"by_hand", by_hand}};
}

std::string to_text(const DesignReport& report) {
  constexpr std::size_t kMost = 24;
  std::string out;
  for (const std::string& line : best_lines(report)) out += line + "\n";
  if (!report.by_hand.empty()) {
    const report::Table table = by_hand_table(report);
    out += "\n" + table.title + "\n" + report::text(table);
  }
  const report::Table front = front_table(report, kMost);
  out += "\n" + front.title + "\n" + report::text(front);
  if (report.result.front.size() > kMost) {
    out += fmt::format("... {} more (--json has all)\n", report.result.front.size() - kMost);
  }
  return out + fmt::format("\nlaw: {}\n", plan::source(report.request.law));
}

report::Page page_of(const DesignReport& report) {
  const plan::DesignRequest& r = report.request;
  report::Page page;
  page.title = fmt::format("A model to train on {}", report.hardware.name);
  page.summary = fmt::format("{:.4g} device hours on {} nodes, by {}.", r.device_hours, r.nodes,
                             plan::name(r.law));
  for (const plan::TrainLimit limit : plan::kTrainLimits)
    page.marks.emplace_back(plan::name(limit));
  report::Section best{"The best", {}};
  for (const std::string& line : best_lines(report)) {
    best.items.emplace_back(report::Paragraph{line});
  }
  if (report.result.plan) {
    for (report::Item& item : step_items(report)) best.items.push_back(std::move(item));
  }
  if (!report.by_hand.empty()) best.items.emplace_back(by_hand_table(report));
  constexpr std::size_t kMost = 200;
  page.sections = {
      std::move(best),
      {"The front",
       {front_chart(report, "Loss over cost", "device hours", &plan::Design::device_hours),
        front_chart(report, "Loss over cache", "cache, bytes per token", &plan::Design::kv_bytes),
        front_table(report, kMost)}},
      {"Assumptions and sources",
       {report::Facts{
            {{"scaling law", std::string(plan::source(r.law))},
             {"time of a step", "as plan train predicts it, layouts searched"},
             {"limited by",
              "computing, memory, communication or waiting, whichever takes most of "
              "the best design's step"},
             {"losses",
              "of the law, in nats per token of its own vocabulary, and bits per byte by the "
              "bytes of such a token: they order designs, they are not what this text will give"},
             {"sequence", fmt::format("{} tokens, vocabulary {}", r.sequence, r.vocabulary)}}},
        hardware_table(report.hardware)}}};
  page.result = to_json(report);
  return page;
}

}  // namespace cachalot::cli
