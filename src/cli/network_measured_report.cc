#include "cli/network_measured_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "cli/network_page.h"

namespace cachalot::cli {

namespace {

std::string percent(const Json& share, int digits) {
  return fmt::format("{:.{}f}%", 100 * share.get<double>(), digits);
}
std::string number(const Json& value, int digits) {
  return fmt::format("{:.{}f}", value.get<double>(), digits);
}

MeasuredTable normal_table(const Json& rows) {
  MeasuredTable t{{"Normal kernels",
                   {{"normal kernels", false},
                    {"EP"},
                    {"measured"},
                    {"mpft"},
                    {"difference"},
                    {"mrft"},
                    {"mpft - mrft"}},
                   {}},
                  "GB/s per GPU as DeepEP counts them: bytes of tokens by (token, node), own node "
                  "included, over time."};
  for (const Json& r : rows) {
    const Json& mpft = r["mpft"];
    t.table.rows.push_back({r["traffic"].get<std::string>(),
                            r["ep"].dump(),
                            number(r["measured_gbs"], 2),
                            {number(mpft["gbs"], 2), limit_mark(mpft["limited_by"])},
                            percent(r["difference"], 1),
                            number(r["mrft"]["gbs"], 2),
                            percent(r["mpft_to_mrft"], 2)});
  }
  return t;
}

MeasuredTable low_latency_table(const Json& rows) {
  MeasuredTable t{
      {"Low-latency kernels",
       {{"low-latency kernels", false}, {"EP"}, {"measured"}, {"mpft"}, {"difference"}},
       {}},
      "Microseconds of the low-latency kernels: 128 tokens per GPU, one copy per expert."};
  for (const Json& r : rows) {
    t.table.rows.push_back({r["traffic"].get<std::string>(),
                            r["ep"].dump(),
                            number(r["measured_us"], 0),
                            {number(r["mpft_us"], 1), limit_mark(r["limited_by"])},
                            percent(r["difference"], 1)});
  }
  return t;
}

MeasuredTable all_to_all_table(const Json& rows) {
  MeasuredTable t{
      {"All to all",
       {{"all-to-all", false}, {"GPUs"}, {"bytes"}, {"mpft"}, {"mrft"}, {"mpft - mrft"}},
       {}},
      "Bus bandwidth in GB/s per GPU, as NCCL counts it."};
  for (const Json& r : rows) {
    const Json& mpft = r["mpft"];
    t.table.rows.push_back({"one group",
                            r["gpus"].dump(),
                            human_bytes(r["bytes"].get<double>()),
                            {number(mpft["bus_gbs"], 2), limit_mark(mpft["limited_by"])},
                            number(r["mrft"]["bus_gbs"], 2),
                            percent(r["mpft_to_mrft"], 2)});
  }
  return t;
}

std::string label_of(const Json& row) {
  return fmt::format("{} EP{}", row["traffic"].get<std::string>().substr(3), row["ep"].dump());
}

report::Chart bars(std::string title, std::string unit) {
  report::Chart chart;
  chart.kind = report::Chart::Kind::kBars;
  chart.title = std::move(title);
  chart.x_label = "traffic and GPUs";
  chart.y_label = std::move(unit);
  chart.series = {{"simulated", {}, {}}, {"measured", {}, {}}};
  return chart;
}
void add_bar(report::Chart& chart, const Json& row, double simulated, const Json& limited,
             double measured) {
  chart.categories.push_back(label_of(row));
  chart.series[0].values.push_back(simulated);
  chart.series[0].marks.push_back(limit_mark(limited));
  chart.series[1].values.push_back(measured);
  chart.series[1].marks.push_back(-1);
}

report::Chart normal_chart(const Json& rows) {
  report::Chart chart =
      bars("Normal kernels: simulated beside measured", "GB/s per GPU, by (token, node)");
  for (const Json& r : rows) {
    add_bar(chart, r, r["mpft"]["gbs"].get<double>(), r["mpft"]["limited_by"],
            r["measured_gbs"].get<double>());
  }
  return chart;
}
report::Chart low_latency_chart(const Json& rows) {
  report::Chart chart = bars("Low-latency kernels: simulated beside measured", "us");
  for (const Json& r : rows) {
    add_bar(chart, r, r["mpft_us"].get<double>(), r["limited_by"], r["measured_us"].get<double>());
  }
  return chart;
}

// The largest of `rows`, either way.
double worst(const Json& rows, const char* key) {
  double most = 0;
  for (const Json& r : rows) most = std::max(most, std::abs(r[key].get<double>()));
  return most;
}

}  // namespace

std::vector<MeasuredTable> measured_tables(const Json& result) {
  return {normal_table(result["cases"]), low_latency_table(result["low_latency"]),
          all_to_all_table(result["all_to_all"])};
}

network::BarChart measured_bars(const Json& result) {
  network::BarChart chart;
  chart.title = "Experts' traffic on a multi-plane fat tree: simulated beside DeepEP on H800";
  chart.y_label = "GB/s per GPU, counted by (token, node)";
  chart.series = {"simulated", "measured"};
  chart.bars.resize(2);
  for (const Json& r : result["cases"]) {
    chart.categories.push_back(label_of(r));
    for (const auto& [series, value] :
         {std::pair<std::size_t, Json>{0, r["mpft"]["gbs"]}, {1, r["measured_gbs"]}}) {
      chart.bars[series].push_back({value.get<double>(), number(value, 1)});
    }
  }
  return chart;
}

report::Page measured_page(const Json& result, report::WhatIf what_if,
                           const network::Rates& rates) {
  std::vector<MeasuredTable> tables = measured_tables(result);
  const Json& cases = result["cases"];
  report::Page page;
  page.title = "Experts' traffic: simulated beside what DeepEP measured";
  page.summary = fmt::format(
      "{} GPUs in nodes of 8, {} groups. At most {:.1f} % off the normal kernels; planes and rails "
      "differ by {:.2f} % at most.",
      result["endpoints"].dump(), result["placement"].get<std::string>(),
      100 * worst(cases, "difference"),
      100 * std::max(worst(cases, "mpft_to_mrft"), worst(result["all_to_all"], "mpft_to_mrft")));
  page.marks = limit_marks();
  const std::vector<report::Chart> charts = {normal_chart(cases),
                                             low_latency_chart(result["low_latency"])};
  for (std::size_t t = 0; t < tables.size(); ++t) {
    report::Section section{std::exchange(tables[t].table.title, ""),
                            {tables[t].table, report::Paragraph{tables[t].words}}};
    if (t < charts.size()) section.items.emplace_back(charts[t]);
    page.sections.push_back(std::move(section));
  }
  page.sections.push_back({"What if", {std::move(what_if)}});
  page.sections.push_back(simulation_assumptions(rates));
  page.sections.back().items.emplace_back(report::Facts{
      {{"measured",
        "DeepEP's README and docs/legacy.md: H800 nodes with eight 400G InfiniBand cards"},
       {"normal kernels",
        "4,096 tokens per GPU, hidden 7,168, 8 of 256 experts in at most 4 nodes, FP8 dispatch, "
        "BF16 combine; every group at once"},
       {"low-latency kernels",
        "128 tokens per GPU straight to their experts, one group at work"}}});
  page.result = result;
  return page;
}

}  // namespace cachalot::cli
