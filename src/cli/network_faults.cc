// cachalot network faults: what each kind of network loses when a part of it fails.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/processes.h"
#include "cli/network_options.h"
#include "network/drawing.h"

namespace cachalot::cli {

namespace {

struct FaultOptions {
  NetworkOptions network;
  RateOptions rates;
  JobOptions job;
  RouteOptions route;
  std::string kinds = "mpft,mrft,ft2,ft3,dragonfly,slimfly,dragonfly:ugal,slimfly:ugal";
  std::string faults = "plane:1 leaf:1 spine:1 links:1% nic:1";
  std::string svg;
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
  return {{"seconds", r.seconds},
          {"cut_off_gpus", r.cut_off_gpus},
          {"stopped_groups", r.stopped_groups},
          {"groups", r.groups},
          {"down",
           {{"switches", r.damage.switches}, {"links", r.damage.links}, {"nics", r.damage.nics}}}};
}

std::string text_of(const Json& cell) {
  if (cell.is_null()) return "-";
  const auto stopped = cell["stopped_groups"].get<std::int64_t>();
  if (cell["slowdown"].is_null()) return "all stop";
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
          {"seconds", r.seconds},
          {"algorithm_gbs", r.algorithm_gbs},
          {"faults", Json::object()}};
}

// All networks, whole and with each fault.
Json rows_of(const FaultOptions& options, const Globals& globals) {
  const std::vector<std::string> kinds = words_of(options.kinds, ',');
  std::vector<std::string> faults = words_of(options.faults, ' ');
  faults.insert(faults.begin(), "");
  if (kinds.empty()) throw Error(Code::kUsage, "--kinds names no kind of network.");
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
      if (!cell.is_null()) {
        const bool none_left = cell["stopped_groups"] == cell["groups"];
        cell["slowdown"] =
            none_left ? Json() : Json(cell["seconds"].get<double>() / row["seconds"].get<double>());
      }
      row["faults"][faults[f]] = std::move(cell);
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

void run_faults(const FaultOptions& options, const Globals& globals) {
  const Json rows = rows_of(options, globals);
  const std::vector<std::string> faults = words_of(options.faults, ' ');
  if (!options.svg.empty()) {
    network::BarChart chart;
    chart.title = fmt::format("Slowdown of {} (groups of {}, {}) by what is down",
                              options.job.traffic, options.job.group, options.job.placement);
    chart.y_label = "time over the whole network's time";
    chart.categories = faults;
    chart.reference = 1;
    for (const Json& row : rows) {
      chart.series.push_back(row["name"].get<std::string>());
      chart.bars.emplace_back();
      for (const std::string& fault : faults)
        chart.bars.back().push_back(bar_of(row["faults"][fault]));
    }
    write_file_atomically(options.svg, network::draw_bars(chart));
  }
  if (globals.json) {
    print_json({{"traffic", options.job.traffic}, {"networks", rows}});
    return;
  }
  std::string head = fmt::format("{:<14} {:>8} {:>12}", "", "switches", "whole");
  for (const std::string& fault : faults) head += fmt::format(" {:>17}", fault);
  print_line(head);
  for (const Json& row : rows) {
    std::string text = fmt::format("{:<14} {:>8} {:>12}", row["name"].get<std::string>(),
                                   row["switches"].get<std::int64_t>(),
                                   human_seconds(row["seconds"].get<double>()));
    for (const std::string& fault : faults)
      text += fmt::format(" {:>17}", text_of(row["faults"][fault]));
    print_line(text);
  }
  print_line(
      "Slowdown against the same network whole, over groups that can finish; `N stop`: groups "
      "with GPUs that nothing reaches.");
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
  command->add_option("--svg", options->svg, "Draw the table as bars into this file")
      ->type_name("FILE");
  on_run(command, globals, options, run_faults);
}

}  // namespace cachalot::cli
