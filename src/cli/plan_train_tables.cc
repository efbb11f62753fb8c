// The text and the page of a training plan: both from the same tables.
#include <fmt/format.h>

#include "cli/plan_train_rows.h"
#include "cli/report_parts.h"
#include "plan/train_limit.h"
#include "report/text.h"

namespace cachalot::cli {

namespace {

std::string layout_text(const cost::Layout& l) {
  return fmt::format("pp={},ep={},tp={},micro_batch={},schedule={},recompute={}", l.pipeline,
                     l.expert, l.tensor, l.micro_batch, cost::name(l.schedule),
                     cost::name(l.recompute));
}

std::vector<std::string> head_lines(const TrainReport& r) {
  const cost::Layout& l = r.plans.front().layout;
  std::vector<std::string> lines = {
      fmt::format("{} devices of {}, {} sequences of {} tokens per step, {}", l.devices,
                  r.hardware.name, l.batch, l.sequence, cost::name(l.precision)),
      fmt::format("layout {}; {} data-parallel copies, {} micro-batches", layout_text(l), l.data(),
                  l.micro_batches())};
  if (!r.batch_reason.empty()) {
    lines.push_back(fmt::format("batch {} sequences: chosen because {}; --batch N sets another",
                                l.batch, r.batch_reason));
  }
  return lines;
}

report::Table parts_table(const TrainReport& r) {
  const plan::TrainPlan& p = r.plans.front();
  const bool several = p.simulation.ranks.size() > 1;
  report::Table table{"", {{"part", false}, {"predicted"}}, {}};
  if (several) table.columns.push_back({"rank 0"});
  table.columns.push_back({"unit", false});
  if (r.beside) {
    table.columns.push_back({"measured"});
    table.columns.push_back({"off by, %"});
  }
  for (const TrainRow& row : rows(r, p)) {
    std::vector<report::Cell> cells{row.name, fmt::format("{:.3f}", row.predicted)};
    if (several) cells.emplace_back(fmt::format("{:.3f}", row.first));
    cells.emplace_back(row.unit);
    if (r.beside) {
      const auto off = [&](double x) {
        return fmt::format("{:+.1f}", 100 * (x / row.measured - 1));
      };
      const bool known = row.measured > 0;
      cells.emplace_back(known ? fmt::format("{:.2f}", row.measured) : "");
      cells.emplace_back(!known                       ? ""
                         : row.first != row.predicted ? off(row.predicted) + ", " + off(row.first)
                                                      : off(row.predicted));
    }
    table.rows.push_back(std::move(cells));
  }
  return table;
}

std::vector<std::string> parts_words(const TrainReport& r) {
  const plan::TrainPlan& p = r.plans.front();
  std::vector<std::string> lines;
  if (r.beside && r.beside->step_seconds > 0 && r.beside->peak_tflops > 0) {
    lines.push_back(
        fmt::format("MFU of the measured step by this count against {} TFLOPS: {:.2f} % "
                    "causal, {:.2f} % not causal",
                    r.beside->peak_tflops, 100 * measured_mfu(p, *r.beside, true),
                    100 * measured_mfu(p, *r.beside, false)));
  }
  if (p.simulation.ranks.size() > 1) {
    lines.push_back(
        fmt::format("Predicted parts are means over {} ranks. Equal stages would have a bubble "
                    "of {:.3f} s by the published formula.",
                    p.simulation.ranks.size(), p.formula_bubble));
  }
  return lines;
}

report::Table memory_table(const TrainReport& r) {
  const plan::TrainPlan& p = r.plans.front();
  const int rank = p.fullest_rank();
  const cost::TrainMemory& m = p.memory[static_cast<std::size_t>(rank)];
  report::Table table{fmt::format("memory of a device of rank {}, the fullest", rank),
                      {{"what", false}, {"GB"}},
                      {}};
  const auto line = [&](const char* name, double bytes) {
    table.rows.push_back({name, fmt::format("{:.2f}", bytes / 1e9)});
  };
  line("weights", m.weights);
  line("gradients", m.gradients);
  line("optimizer", m.optimizer);
  line("activations", m.activations);
  line("working memory", m.working);
  line("sum", m.sum());
  const double room = plan::usable_memory(r.hardware);
  if (room > 0) line("room", room);
  return table;
}

report::Table traffic_table(const plan::TrainPlan& p) {
  report::Table table{"sent by a device in a step", {{"what", false}, {"over", false}, {"GB"}}, {}};
  for (const cost::Traffic& t : p.traffic) {
    table.rows.push_back({t.purpose, t.link == cost::Link::kNetwork ? "network" : "node",
                          fmt::format("{:.2f}", t.bytes / 1e9)});
  }
  return table;
}

report::Mark mark_of(const plan::TrainSpending& s) { return static_cast<report::Mark>(s.limit()); }

std::string bill_line(const TrainReport& r) {
  const plan::Bill b = bill(r, r.plans.front());
  return fmt::format("{:.4g} tokens: {:.0f} steps, {:.2f} days, {:.0f} device hours{}", b.tokens,
                     b.steps, b.seconds / 86400, b.device_hours,
                     b.money > 0 ? fmt::format(", {:.0f} {}", b.money, r.hardware.price.currency)
                                 : std::string(" (no price in the profile)"));
}

bool has_bill(const TrainReport& r) { return r.tokens > 0 || r.device_hours > 0; }

// From the second layout on, as text has it, or all of them.
report::Table layouts_table(const TrainReport& r, bool all) {
  report::Table table{all ? "layouts that fit, fastest first" : "next best layouts",
                      {{"step, s"}, {"memory, GB"}, {"most of its time", false}, {"layout", false}},
                      {}};
  for (std::size_t i = all ? 0 : 1; i < r.plans.size(); ++i) {
    const plan::TrainSpending s = plan::spending_of(r.config, r.hardware, r.plans[i]);
    table.rows.push_back({fmt::format("{:.3f}", r.plans[i].seconds),
                          fmt::format("{:.1f}", r.plans[i].memory_bytes() / 1e9),
                          {std::string(plan::name(s.limit())), mark_of(s)},
                          layout_text(r.plans[i].layout)});
  }
  return table;
}

// Charts of the page.

report::Chart parts_chart(const TrainReport& r) {
  const plan::TrainPlan& p = r.plans.front();
  report::Series predicted{"predicted, mean of ranks", {}, {}}, first{"rank 0", {}, {}};
  report::Series measured{"measured", {}, {}};
  report::Chart chart;
  chart.kind = report::Chart::Kind::kBars;
  chart.title = "Where a step's time goes";
  chart.x_label = "part";
  chart.y_label = "s";
  for (const TrainRow& row : rows(r, p)) {
    if (std::string(row.unit) != "s" || std::string(row.name) == "step") continue;
    chart.categories.emplace_back(row.name);
    predicted.values.push_back(row.predicted);
    first.values.push_back(row.first);
    measured.values.push_back(row.measured > 0 ? row.measured : report::kNothing);
  }
  chart.series = {std::move(predicted)};
  if (p.simulation.ranks.size() > 1) chart.series.push_back(std::move(first));
  if (r.beside) chart.series.push_back(std::move(measured));
  return chart;
}

report::Table stages_table(const TrainReport& r) {
  const plan::TrainPlan& p = r.plans.front();
  const plan::TrainClock clock(r.config, p.layout, r.hardware);
  report::Table table{"stages, one micro-batch, ms",
                      {{"stage"},
                       {"layers", false},
                       {"F"},
                       {"b"},
                       {"W"},
                       {"computing"},
                       {"memory"},
                       {"communication"},
                       {"limited by", false}},
                      {}};
  for (std::size_t i = 0; i < p.stages.size(); ++i) {
    const cost::Stage& stage = p.stages[i];
    const cost::StageTimes& t = p.times[i];
    const plan::TrainSpending s = plan::spending_of(clock.stage(stage), p.layout.schedule);
    const auto ms = [](double seconds) { return fmt::format("{:.2f}", 1e3 * seconds); };
    table.rows.push_back(
        {fmt::format("{}", i),
         fmt::format("{} dense, {} MoE{}{}", stage.dense_layers, stage.moe_layers,
                     stage.embedding ? ", embedding" : "", stage.head ? ", head" : ""),
         ms(t.forward),
         ms(t.input_grad),
         ms(t.weight_grad),
         ms(s.compute),
         ms(s.memory),
         ms(s.communication),
         {std::string(plan::name(s.limit())), mark_of(s)}});
  }
  return table;
}

report::Chart layouts_chart(const TrainReport& r) {
  report::Chart chart{report::Chart::Kind::kBars,
                      "Step time of the layouts that fit",
                      "layout",
                      "s",
                      {},
                      {},
                      false,
                      true,
                      {{"step", {}, {}}}};
  for (std::size_t i = 0; i < r.plans.size(); ++i) {
    const cost::Layout& l = r.plans[i].layout;
    chart.categories.push_back(fmt::format("{}: {} pp{} ep{} tp{}", i + 1, cost::name(l.schedule),
                                           l.pipeline, l.expert, l.tensor));
    chart.series[0].values.push_back(r.plans[i].seconds);
    chart.series[0].marks.push_back(mark_of(plan::spending_of(r.config, r.hardware, r.plans[i])));
  }
  return chart;
}

report::Section assumptions(const TrainReport& r) {
  const model::Config& c = r.config;
  return {"Assumptions and sources",
          {report::Facts{
               {{"model",
                 fmt::format("{} layers of {}, {} heads, {}", c.num_hidden_layers, c.hidden_size,
                             c.num_attention_heads,
                             c.route.experts == 0
                                 ? std::string("dense")
                                 : fmt::format("{} of {} experts", c.route.topk, c.route.experts))},
                {"stages", "whole layers, so that no rank takes longer than it must"},
                {"schedule", "simulated with each stage's own times"},
                {"products", "operations over the rate of the profile for so many rows"},
                {"everything else", "bytes over what reading memory reaches"},
                {"limited by",
                 "computing, memory, communication or waiting, whichever takes most of the time; "
                 "communication that a schedule hides counts by what it exceeds computing by"},
                {"not counted", "failures, checkpoints, reading data, evaluation"}}},
           hardware_table(r.hardware)}};
}

}  // namespace

std::string to_text(const TrainReport& r) {
  const plan::TrainPlan& p = r.plans.front();
  std::string out;
  const auto titled = [&](const report::Table& table) {
    out += "\n" + table.title + "\n" + report::text(table);
  };
  for (const std::string& line : head_lines(r)) out += line + "\n";
  out += "\n" + report::text(parts_table(r));
  for (const std::string& line : parts_words(r)) out += line + "\n";
  titled(memory_table(r));
  if (!p.traffic.empty()) titled(traffic_table(p));
  if (has_bill(r)) out += "\n" + bill_line(r) + "\n";
  if (r.plans.size() > 1) titled(layouts_table(r, false));
  return out;
}

report::Page page_of(const TrainReport& r) {
  const plan::TrainPlan& p = r.plans.front();
  report::Page page;
  page.title = fmt::format("Training on {} devices of {}", p.layout.devices, r.hardware.name);
  page.summary = head_lines(r)[0];
  for (const plan::TrainLimit limit : plan::kTrainLimits)
    page.marks.emplace_back(plan::name(limit));
  report::Section step{"A step", {}};
  const std::vector<std::string> head = head_lines(r);
  for (std::size_t i = 1; i < head.size(); ++i) {
    step.items.emplace_back(report::Paragraph{head[i]});
  }
  step.items.emplace_back(parts_table(r));
  for (const std::string& line : parts_words(r)) step.items.emplace_back(report::Paragraph{line});
  if (has_bill(r)) step.items.emplace_back(report::Paragraph{bill_line(r)});
  step.items.emplace_back(parts_chart(r));
  report::Section memory{"Memory and traffic", {memory_table(r)}};
  if (!p.traffic.empty()) memory.items.emplace_back(traffic_table(p));
  page.sections = {std::move(step),
                   {"Stages", {stages_table(r)}},
                   std::move(memory),
                   {"Layouts", {layouts_table(r, true), layouts_chart(r)}},
                   assumptions(r)};
  page.result = to_json(r);
  return page;
}

}  // namespace cachalot::cli
