#include "cli/plan_infer_report.h"

#include <fmt/format.h>

#include "cli/report_parts.h"
#include "report/text.h"

namespace cachalot::cli {

namespace {

using plan::DecodeCase;
using plan::InferPlan;

std::string gb(double bytes) { return fmt::format("{:.1f} GB", bytes / 1e9); }
std::string money(double x, const InferReport& r) {
  return x > 0 ? fmt::format("{:.3f} {}", x, r.hardware.price.currency) : "-";
}
std::string too_much(const DecodeCase& c) {
  return fmt::format("does not fit: {} too much on each device", gb(c.over));
}
report::Mark mark_of(cost::Limit limit) { return static_cast<report::Mark>(limit); }

// What the plan is of.
std::vector<std::string> head_lines(const InferReport& r) {
  const InferPlan& p = r.plan;
  const plan::ServeLayout& l = p.layout;
  return {
      fmt::format("{}, weights {}, cache {}, products in {}; {} x {} ({} device{} in all)", p.model,
                  r.weights, r.cache, p.arithmetic, l.nodes, p.hardware, l.devices,
                  l.devices == 1 ? "" : "s"),
      fmt::format("each device: {} of experts ({} per layer), {} of everything else{}; {} are "
                  "free, {} tokens",
                  gb(p.memory.experts), l.experts_per_device, gb(p.memory.dense),
                  l.tensor > 1 ? fmt::format(" (shared by {})", l.tensor) : "", gb(p.memory.free()),
                  static_cast<std::int64_t>(p.memory.free() / p.memory.cache_per_token))};
}

report::Table decode_table(const InferReport& r) {
  const bool drafts = r.options.drafts > 0;
  report::Table table;
  table.columns = {{"batch"},    {"context"}, {"step, ms"}, {"TPOT, ms"},
                   {"tokens/s"}, {"each"},    {"per 1e6"},  {"limited by", false}};
  if (drafts) table.columns.push_back({"MTP gain"});
  for (const DecodeCase& c : r.plan.decode) {
    table.rows.push_back({fmt::format("{}", c.batch), fmt::format("{}", c.context)});
    auto& row = table.rows.back();
    if (!c.fits) {
      row.emplace_back(too_much(c));
      continue;
    }
    for (const double x : {1e3 * c.step, 1e3 * c.tpot}) row.emplace_back(fmt::format("{:.3f}", x));
    for (const double x : {c.tokens_per_s, 1 / c.tpot}) row.emplace_back(fmt::format("{:.1f}", x));
    row.emplace_back(money(c.per_million, r));
    row.emplace_back(std::string(cost::name(c.limit)), mark_of(c.limit));
    if (drafts) row.emplace_back(fmt::format("{:.2f}", c.mtp_gain));
  }
  return table;
}

std::string decode_words(const InferReport& r) {
  const plan::ServeLayout& l = r.plan.layout;
  return fmt::format(
      "batch: sequences of each {}; tokens/s: of {}; each: of one sequence.",
      l.tensor > 1 ? fmt::format("{} devices", l.tensor) : std::string("device"),
      l.devices > 1 ? fmt::format("all {} devices", l.devices) : std::string("the device"));
}

// One for each context, where there is a limit on the time per token.
std::vector<std::string> tpot_lines(const InferReport& r) {
  std::vector<std::string> lines;
  for (const plan::TpotChoice& choice : r.plan.tpot_choices) {
    const std::string limit = fmt::format(
        "at most {:g} ms per token, context {}: ", 1e3 * r.options.tpot, choice.context);
    if (!choice.decode) {
      lines.push_back(limit + "no batch of the table fits the memory");
      continue;
    }
    const DecodeCase& c = *choice.decode;
    const double under = 1e3 * (r.options.tpot - c.tpot);
    lines.push_back(
        limit +
        (choice.within
             ? fmt::format("batch {} gives the most, {:.1f} tokens/s at {:.3f} ms per token, "
                           "{:.3f} ms under the limit",
                           c.batch, c.tokens_per_s, 1e3 * c.tpot, under)
             : fmt::format("no batch of the table keeps to it; the least is {:.3f} ms with batch "
                           "{} ({:.1f} tokens/s), {:.3f} ms over the limit and limited by {}",
                           1e3 * c.tpot, c.batch, c.tokens_per_s, -under, cost::name(c.limit))));
  }
  return lines;
}

std::string bound_line(const plan::ExpertBound& b) {
  return fmt::format(
      "experts' communication alone: {:.2f} us per layer ({} tokens to {} experts each at {:.0f} "
      "GB/s), so at least {:.2f} ms per token{}",
      1e6 * b.stage, b.tokens, b.destinations, b.rate / 1e9, 1e3 * b.tpot,
      b.achieved_rate == b.rate ? ""
                                : fmt::format("; at the measured {:.0f} GB/s {:.2f} ms",
                                              b.achieved_rate / 1e9, 1e3 * b.achieved_tpot));
}

std::vector<std::string> rest_lines(const InferReport& r) {
  const InferPlan& p = r.plan;
  const plan::PrefillCase& f = p.prefill;
  std::vector<std::string> lines;
  lines.push_back(
      fmt::format("prefill of {}: first token after {:.3f} s (nothing waiting), {:.0f} "
                  "tokens/s in all, {} per 1e6, limited by {}",
                  f.prompt, f.ttft, f.tokens_per_s, money(f.per_million, r), cost::name(f.limit)));
  if (p.bound) lines.push_back(bound_line(*p.bound));
  if (p.split) {
    lines.push_back(fmt::format(
        "split for {} + {} tokens{}: {:.2f} nodes of prefill per node of decoding (batch {}, "
        "{:.0f} and {:.0f} tokens/s a node); {} per 1e6 new tokens, prompts included",
        r.options.prompt, r.options.output,
        r.options.hit_rate > 0
            ? fmt::format(", {:.0f}% of prompts cached", 100 * r.options.hit_rate)
            : "",
        p.split->prefill_per_decode, p.split->decode.batch, p.split->prefill_per_node,
        p.split->decode_per_node, money(p.split->per_million_request, r)));
    if (r.options.requests_per_s > 0) {
      lines.push_back(fmt::format("for {} requests/s: {} nodes of prefill, {} of decoding",
                                  r.options.requests_per_s, p.split->prefill_nodes,
                                  p.split->decode_nodes));
    }
  }
  for (const std::string& note : p.notes) lines.push_back("note: " + note);
  return lines;
}

// One line for each context.
report::Chart decode_chart(const InferReport& r, const std::string& title, const std::string& unit,
                           double (*figure)(const DecodeCase&)) {
  report::Chart chart;
  chart.title = title;
  chart.x_label = "batch";
  chart.y_label = unit;
  for (const int batch : r.options.batches) chart.categories.push_back(fmt::format("{}", batch));
  for (std::size_t c = 0; c < r.options.contexts.size(); ++c) {
    report::Series series{fmt::format("context {}", r.options.contexts[c]), {}, {}};
    for (std::size_t b = 0; b < r.options.batches.size(); ++b) {
      const DecodeCase& point = r.plan.decode[c * r.options.batches.size() + b];
      series.values.push_back(point.fits ? figure(point) : report::kNothing);
      series.marks.push_back(point.fits ? mark_of(point.limit) : -1);
    }
    chart.series.push_back(std::move(series));
  }
  return chart;
}

report::GridPoint grid_point(const InferReport& r, const DecodeCase& c) {
  report::GridPoint point;
  if (!c.fits) {
    point.texts.assign(11, "-");
    point.texts.back() = gb(c.cache);
    point.numbers.assign(3, report::kNothing);
    point.note = too_much(c);
    return point;
  }
  const auto ms = [](double seconds) { return fmt::format("{:.3f} ms", 1e3 * seconds); };
  point.mark = mark_of(c.limit);
  point.numbers = {1e3 * c.tpot, c.tokens_per_s,
                   c.per_million > 0 ? c.per_million : report::kNothing};
  point.texts = {ms(c.tpot),
                 fmt::format("{:.1f} tokens/s", 1 / c.tpot),
                 fmt::format("{:.0f} tokens/s", c.tokens_per_s),
                 c.per_million > 0 ? money(c.per_million, r) : std::string("no price"),
                 fmt::format("{:.2f}", c.mtp_gain),
                 ms(c.step),
                 ms(c.time.dense),
                 ms(c.time.experts),
                 ms(c.time.attention),
                 ms(c.communication),
                 gb(c.cache)};
  if (c.overlapped) point.note = "Two micro-batches: one communicates while the other computes.";
  return point;
}

report::WhatIf what_if(const InferReport& r, const plan::InferGrid& grid) {
  report::WhatIf w;
  w.title = "Other batches, contexts, acceptance";
  w.text =
      "On the layout above. Every place of the sliders was computed by the same functions as the "
      "table when this page was written.";
  const auto axis = [](const std::string& label, const auto& values, const auto& text, auto start) {
    report::Axis a{label, {}, 0};
    for (std::size_t i = 0; i < values.size(); ++i) {
      a.texts.push_back(text(values[i]));
      if (values[i] == start) a.start = i;
    }
    return a;
  };
  const auto whole = [](int x) { return fmt::format("{}", x); };
  // Where they begin: the case of the table with the most tokens per second (within the limit on
  // the time per token, where something is).
  const DecodeCase* best = &r.plan.decode.front();
  for (const DecodeCase& c : r.plan.decode) {
    if (c.fits && (!best->fits || c.tokens_per_s > best->tokens_per_s)) best = &c;
  }
  const DecodeCase* within = nullptr;
  for (const plan::TpotChoice& choice : r.plan.tpot_choices) {
    if (!choice.within) continue;
    if (!within || choice.decode->tokens_per_s > within->tokens_per_s) within = &*choice.decode;
  }
  if (within) best = within;
  w.axes = {axis("batch", grid.batches, whole, best->batch),
            axis("context", grid.contexts, whole, best->context)};
  if (grid.acceptances.size() > 1) {  // else the model has no MTP layer
    w.axes.push_back(axis(
        "acceptance of drafts", grid.acceptances,
        [](double x) { return x > 0 ? fmt::format("{:g}", x) : std::string("no drafts"); },
        r.options.drafts > 0 ? r.options.acceptance : 0.0));
  }
  w.readouts = {"time per token (TPOT)",
                "one sequence",
                r.plan.layout.devices > 1 ? fmt::format("all {} devices", r.plan.layout.devices)
                                          : std::string("the device"),
                "per 1e6 tokens",
                "speed over no drafts",
                "a step",
                "dense products",
                "experts",
                "attention",
                "communication",
                "cache of a device"};
  w.measures = {"time per token, ms", "tokens/s of all devices"};
  const bool priced = r.hardware.node_hour() > 0;
  if (priced) w.measures.push_back(r.hardware.price.currency + " per 1e6 tokens");
  for (std::size_t b = 0; b < grid.batches.size(); ++b) {
    for (std::size_t c = 0; c < grid.contexts.size(); ++c) {
      for (std::size_t a = 0; a < grid.acceptances.size(); ++a) {
        w.points.push_back(grid_point(r, grid.at(b, c, a)));
        w.points.back().numbers.resize(w.measures.size());
      }
    }
  }
  return w;
}

report::Section assumptions(const InferReport& r) {
  report::Section s{"Assumptions and sources", {}};
  s.items.emplace_back(report::Facts{
      {{"layout",
        "attention and all that is dense whole on each device (or shared by --tensor devices), "
        "routed experts spread over all devices"},
       {"time of a step",
        "products and attention each take the longer of reading and computing; experts' "
        "communication is added, or hidden behind a second micro-batch where that ends sooner"},
       {"limited by", "where most of a step's time goes"},
       {"reserve",
        fmt::format("{:.0f}% of the memory, for activations and buffers", 100 * r.options.reserve)},
       {"not counted",
        "requests that wait, uneven experts, devices that fail, text and sampling: a plan is what "
        "a well-fed, balanced service would do"}}});
  s.items.emplace_back(model_facts(r.decoder));
  s.items.emplace_back(hardware_table(r.hardware));
  return s;
}

}  // namespace

std::string to_text(const InferReport& r) {
  std::string out;
  for (const std::string& line : head_lines(r)) out += line + "\n";
  out += "\n" + report::text(decode_table(r)) + "\n" + decode_words(r) + "\n\n";
  for (const std::string& line : tpot_lines(r)) out += line + "\n";
  for (const std::string& line : rest_lines(r)) out += line + "\n";
  return out;
}

report::Page page_of(const InferReport& r, const plan::InferGrid& grid) {
  report::Page page;
  page.title = fmt::format("Serving {} on {}", r.plan.model, r.plan.hardware);
  page.summary = head_lines(r)[0];
  for (const cost::Limit limit : {cost::Limit::kMemory, cost::Limit::kCompute,
                                  cost::Limit::kCommunication, cost::Limit::kOverhead}) {
    page.marks.emplace_back(cost::name(limit));
  }
  report::Section decoding{"Decoding", {}};
  decoding.items = {report::Paragraph{head_lines(r)[1]}, decode_table(r),
                    report::Paragraph{decode_words(r)}};
  for (const std::string& line : tpot_lines(r)) {
    decoding.items.emplace_back(report::Paragraph{line});
  }
  decoding.items.emplace_back(
      decode_chart(r, "Time per token", "ms", [](const DecodeCase& c) { return 1e3 * c.tpot; }));
  decoding.items.emplace_back(decode_chart(r, "Throughput of all devices", "tokens/s",
                                           [](const DecodeCase& c) { return c.tokens_per_s; }));
  report::Section rest{"Prompts and what else follows", {}};
  for (const std::string& line : rest_lines(r)) rest.items.emplace_back(report::Paragraph{line});
  page.sections = {
      std::move(decoding), {"What if", {what_if(r, grid)}}, std::move(rest), assumptions(r)};
  page.result = to_json(r);
  return page;
}

}  // namespace cachalot::cli
