// cachalot network faults: what each kind of network loses when a part of it fails.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/processes.h"
#include "cli/html_page.h"
#include "cli/network_options.h"
#include "cli/network_page.h"
#include "cli/output_file.h"
#include "network/drawing.h"
#include "report/text.h"

namespace cachalot::cli {

namespace {

struct FaultOptions {
  NetworkOptions network;
  RateOptions rates;
  JobOptions job;
  RouteOptions route;
  std::string kinds = "mpft,mrft,ft2,ft3,dragonfly,slimfly,dragonfly:ugal,slimfly:ugal";
  std::string faults = "plane:1 leaf:1 spine:1 links:1% nic:1";
  std::string svg, html;
  std::vector<int> html_planes;
};

std::vector<std::string> words_of(const std::string& text, char separator) {
  std::vector<std::string> words;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find(separator, at), text.size());
    if (end > at) words.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return words;
}

// One network under one fault.
Json cell_of(const network::SimulateResult& r) {
  return {{"seconds", if_finished(r, r.seconds)},
          {"cut_off_gpus", r.cut_off_gpus},
          {"stopped_groups", r.stopped_groups},
          {"groups", r.groups},
          {"limited_by", limit_name(r)},
          {"down",
           {{"switches", r.damage.switches},
            {"links", r.damage.links},
            {"nics", r.damage.nics},
            {"ports", r.damage.ports}}}};
}

std::string text_of(const Json& cell) {
  if (cell.is_null()) return "-";
  const auto stopped = cell["stopped_groups"].get<std::int64_t>();
  if (cell["seconds"].is_null()) return "all stop";
  if (cell["slowdown"].is_null()) return "-";
  const std::string slowdown = fmt::format("{:.3f}", cell["slowdown"].get<double>());
  return stopped == 0 ? slowdown : fmt::format("{}, {} stop", slowdown, stopped);
}

network::Bar bar_of(const Json& cell) {
  network::Bar bar{std::numeric_limits<double>::quiet_NaN(), text_of(cell)};
  if (!cell.is_null() && !cell["slowdown"].is_null()) bar.value = cell["slowdown"].get<double>();
  return bar;
}

// A fault that this kind has no part for (a spine of a dragonfly) leaves the cell empty.
bool applies(const network::Topology& topology, const std::vector<network::Fault>& faults) {
  for (const network::Fault& fault : faults) {
    if (fault.part == network::Part::kSpine && topology.count(network::Tier::kSpine) == 0)
      return false;
    if (fault.part == network::Part::kCore && topology.count(network::Tier::kCore) == 0)
      return false;
  }
  return true;
}

// `kind` as in --kinds: a kind of network, or that and a routing of its own.
network::SimulateSpec spec_of(const std::string& kind, const FaultOptions& options,
                              const Globals& globals) {
  NetworkOptions network = options.network;
  RouteOptions route = options.route;
  network.kind = kind.substr(0, kind.find(':'));
  if (network.kind.size() < kind.size()) route.routing = kind.substr(network.kind.size() + 1);
  return simulate_spec(network, options.rates, options.job, route, globals.threads);
}

// One simulation; `fault` is empty for the whole network. Empty where the fault does not apply.
Json simulate_one(const std::string& kind, const std::string& fault, const FaultOptions& options,
                  const Globals& globals) {
  network::SimulateSpec spec = spec_of(kind, options, globals);
  spec.options.processes = 1;  // simulations run side by side instead
  spec.faults = network::parse_faults(fault);
  const network::Topology topology = network::build(spec.topology);
  if (!applies(topology, spec.faults)) return {};
  const network::SimulateResult r = network::simulate(topology, spec);
  if (!fault.empty()) return cell_of(r);
  return {{"name", kind},
          {"kind", network::name(spec.topology.kind)},
          {"routing", network::name(spec.routing)},
          {"spray", r.spray},
          {"endpoints", topology.endpoints()},
          {"switches", topology.switches.size()},
          {"links", topology.links.size()},
          {"group", r.group},
          {"seconds", if_finished(r, r.seconds)},
          {"algorithm_gbs", if_finished(r, r.algorithm_gbs)},
          {"limited_by", limit_name(r)},
          {"faults", Json::object()}};
}

// Null where one of them cannot finish, or where there is nothing to send that could be slower.
Json slowdown_of(const Json& damaged, const Json& whole) {
  if (damaged.is_null() || whole.is_null() || whole.get<double>() <= 0) return nullptr;
  return damaged.get<double>() / whole.get<double>();
}

// Before anything is simulated, so that messages name the flags of this command.
void check_words(const std::vector<std::string>& kinds, const std::vector<std::string>& faults) {
  if (kinds.empty()) throw Error(Code::kUsage, "--kinds names no kind of network.");
  for (const std::string& kind : kinds) {
    const std::size_t colon = kind.find(':');
    network::parse_kind(kind.substr(0, colon), "--kinds");
    if (colon != std::string::npos) network::parse_routing(kind.substr(colon + 1), "--kinds");
  }
  for (const std::string& fault : faults) network::parse_faults(fault, "--faults");
}

// All networks, whole and with each fault.
Json rows_of(const FaultOptions& options, const Globals& globals) {
  const std::vector<std::string> kinds = words_of(options.kinds, ',');
  std::vector<std::string> faults = words_of(options.faults, ' ');
  check_words(kinds, faults);
  faults.insert(faults.begin(), "");
  const int processes = spec_of(kinds[0], options, globals).options.processes;
  const std::vector<std::string> texts =
      in_processes(kinds.size() * faults.size(), processes, [&](std::size_t task) {
        return simulate_one(kinds[task / faults.size()], faults[task % faults.size()], options,
                            globals)
            .dump();
      });
  Json rows = Json::array();
  for (std::size_t k = 0; k < kinds.size(); ++k) {
    Json row = Json::parse(texts[k * faults.size()]);
    for (std::size_t f = 1; f < faults.size(); ++f) {
      Json cell = Json::parse(texts[k * faults.size() + f]);
      if (!cell.is_null()) cell["slowdown"] = slowdown_of(cell["seconds"], row["seconds"]);
      row["faults"][faults[f]] = std::move(cell);
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

std::string groups_of(const JobOptions& job) {
  return job.group > 0 ? fmt::format("groups of {}", job.group) : "one group of all GPUs";
}

network::BarChart bars_of(const FaultOptions& options, const Json& rows) {
  network::BarChart chart;
  chart.title = fmt::format("Slowdown of {} ({}, {}) by what is down", options.job.traffic,
                            groups_of(options.job), options.job.placement);
  chart.y_label = "time over the whole network's time";
  chart.categories = words_of(options.faults, ' ');
  chart.reference = 1;
  for (const Json& row : rows) {
    chart.series.push_back(row["name"].get<std::string>());
    chart.bars.emplace_back();
    for (const std::string& fault : chart.categories)
      chart.bars.back().push_back(bar_of(row["faults"][fault]));
  }
  return chart;
}

report::Table table_of(const FaultOptions& options, const Json& rows) {
  report::Table table{"", {{"network", false}, {"switches"}, {"whole"}}, {}};
  const std::vector<std::string> faults = words_of(options.faults, ' ');
  for (const std::string& fault : faults) table.columns.push_back({fault});
  for (const Json& row : rows) {
    table.rows.push_back(
        {row["name"].get<std::string>(), row["switches"].dump(), seconds_text(row["seconds"])});
    for (const std::string& fault : faults)
      table.rows.back().emplace_back(text_of(row["faults"][fault]));
  }
  return table;
}

constexpr const char* kWords =
    "Slowdown against the same network whole, over groups that can finish; `N stop`: groups "
    "with GPUs that nothing reaches.";

report::GridPoint point_of(const Json& row, const std::string& fault) {
  report::GridPoint point;
  if (fault.empty()) {
    point.mark = limit_mark(row["limited_by"]);
    const Json& whole = row["seconds"];
    point.numbers = {1, whole.is_null() ? report::kNothing : 1e3 * whole.get<double>()};
    point.texts = {"1.000", seconds_text(whole), "0", row["switches"].dump()};
    return point;
  }
  const Json& cell = row["faults"][fault];
  point.numbers.assign(2, report::kNothing);
  point.texts = {text_of(cell), "-", "-", row["switches"].dump()};
  if (cell.is_null() || cell["slowdown"].is_null()) {
    point.note = cell.is_null()              ? "This network has no such part."
                 : cell["seconds"].is_null() ? "No group can finish."
                                             : "There is nothing to send.";
    return point;
  }
  point.mark = limit_mark(cell["limited_by"]);
  point.numbers = {cell["slowdown"].get<double>(), 1e3 * cell["seconds"].get<double>()};
  point.texts[1] = seconds_text(cell["seconds"]);
  point.texts[2] = fmt::format("{} of {}", cell["stopped_groups"].get<std::int64_t>(),
                               cell["groups"].get<std::int64_t>());
  return point;
}

// mpft with other numbers of planes under the same faults, each simulated but for the row that is
// already there.
report::WhatIf what_if(const FaultOptions& options, const Globals& globals, const Json& rows) {
  const std::vector<std::string> faults = words_of(options.faults, ' ');
  const std::vector<int> planes = plane_positions(options.html_planes, options.network.spec());
  // As many GPUs for each number of planes, however many fit.
  const std::int64_t endpoints = network::build(options.network.spec()).endpoints();
  report::WhatIf w;
  w.title = "What if an mpft had more or fewer planes";
  w.text = "The same GPUs, traffic and faults; each place of the sliders simulated.";
  w.axes = {planes_axis(planes, options.network.planes), {"what is down", {"nothing"}, 0}};
  w.axes[1].texts.insert(w.axes[1].texts.end(), faults.begin(), faults.end());
  w.readouts = {"time over the whole network's", "time", "groups that cannot finish", "switches"};
  w.measures = {"time over the whole network's", "time, ms"};
  for (const int p : planes) {
    Json row;
    std::string why;
    for (const Json& known : rows) {
      if (p == options.network.planes && known["name"] == "mpft") row = known;
    }
    FaultOptions own = options;
    own.network.planes = p;
    own.network.endpoints = endpoints;
    try {
      own.kinds = "mpft";
      if (row.is_null()) row = rows_of(own, globals)[0];
    } catch (const Error& e) {
      why = e.what();
    }
    for (std::size_t f = 0; f <= faults.size(); ++f) {
      w.points.push_back(grid_point_or_why(w, [&] {
        if (row.is_null()) throw Error(Code::kUsage, why);
        return point_of(row, f == 0 ? "" : faults[f - 1]);
      }));
    }
  }
  return w;
}

report::Page page_of(const FaultOptions& options, const Globals& globals, const Json& rows) {
  const network::BarChart bars = bars_of(options, rows);
  report::Chart chart{report::Chart::Kind::kBars,
                      bars.title,
                      "down",
                      bars.y_label,
                      bars.categories,
                      {},
                      false,
                      true,
                      {}};
  for (std::size_t s = 0; s < bars.series.size(); ++s) {
    chart.series.push_back({bars.series[s], {}, {}});
    report::Series& series = chart.series.back();
    for (const network::Bar& bar : bars.bars[s]) series.values.push_back(bar.value);
    for (const std::string& fault : bars.categories) {
      const Json& cell = rows[s]["faults"][fault];
      series.marks.push_back(cell.is_null() ? -1 : limit_mark(cell["limited_by"]));
    }
  }
  report::Page page;
  page.title = "What networks lose when a part of them fails";
  page.summary =
      fmt::format("{} over {} GPUs in {}, {}.", options.job.traffic, options.network.endpoints,
                  groups_of(options.job), options.job.placement);
  page.marks = limit_marks();
  page.sections = {{"Faults", {table_of(options, rows), report::Paragraph{kWords}, chart}}};
  const std::vector<std::string> kinds = words_of(options.kinds, ',');
  if (std::ranges::find(kinds, "mpft") != kinds.end()) {
    page.sections.push_back({"What if", {what_if(options, globals, rows)}});
  }
  page.sections.push_back(simulation_assumptions(options.rates.rates()));
  if (const int ports = options.network.nic_ports; ports > 1 && options.rates.link_gbs == 0) {
    page.sections.back().items.emplace_back(
        report::Facts{{{"link between switches of an mpft",
                        fmt::format("{:g} GB/s, as a port of its NICs is one of {}",
                                    options.rates.rates(ports).trunk_gbs, ports)}}});
  }
  return page;
}

void run_faults(const FaultOptions& options, const Globals& globals) {
  check_output_file("--svg", options.svg);
  check_output_file("--html", options.html);
  const Json rows = rows_of(options, globals);
  if (!options.svg.empty()) {
    write_file_atomically(options.svg, network::draw_bars(bars_of(options, rows)));
  }
  const Json result = {{"traffic", options.job.traffic}, {"networks", rows}};
  if (!options.html.empty()) {
    report::Page page = page_of(options, globals, rows);
    page.result = result;
    write_html(options.html, std::move(page), globals);
  }
  if (globals.json) {
    print_json(result);
    return;
  }
  print(report::text(table_of(options, rows)));
  print_line(kWords);
}

}  // namespace

void add_network_faults(CLI::App& group, Globals& globals) {
  CLI::App* command = add_command(group, globals, "faults",
                                  "Slowdown of each kind of network when a part of it is down");
  auto options = std::make_shared<FaultOptions>();
  options->network.endpoints = 2048;
  options->job.placement = "strided";
  options->job.token_sets = 1;
  options->job.even = true;
  options->route.spray = 4;
  options->route.merge = 0.003;
  command
      ->add_option("--kinds", options->kinds,
                   "Kinds to compare, with commas between; each may name its own routing, as in "
                   "slimfly:ugal")
      ->type_name("LIST");
  command
      ->add_option("--faults", options->faults,
                   "Faults to compare, with blanks between; each as for --fail of simulate")
      ->type_name("LIST");
  add_network_flags(*command, options->network, /*with_kind=*/false);
  add_job_flags(*command, options->job);
  add_route_flags(*command, options->route);
  add_rate_flags(*command, options->rates);
  add_output_file(*command, "--svg", options->svg, "Draw the table as bars into this file");
  add_html_flag(*command, options->html);
  add_html_planes_flag(*command, options->html_planes);
  on_run(command, globals, options, run_faults);
}

}  // namespace cachalot::cli
