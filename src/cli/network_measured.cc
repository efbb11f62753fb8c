// cachalot network measured: simulated experts' traffic beside DeepEP's published figures.
#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <string_view>
#include <utility>

#include "base/atomic_file.h"
#include "cli/finite.h"
#include "cli/html_page.h"
#include "cli/network_measured_report.h"
#include "cli/network_options.h"
#include "cli/network_page.h"
#include "cli/output_file.h"
#include "cli/progress.h"
#include "network/published.h"
#include "report/text.h"

namespace cachalot::cli {

namespace {

// FP8 values, a float scale for every 128 of them, and 16 bytes that say whose they are.
constexpr double kLowLatencyDispatchBytes = 7408;

struct MeasuredOptions {
  RouteOptions route;
  RateOptions rates;
  std::string placement = "contiguous", svg, html;
  std::vector<double> html_nic_gbs = {36, 38, 40, 42, 44, 46, 48, 50};
  std::int64_t endpoints = 2048;
  int token_sets = 1;
};

constexpr std::string_view kDispatch = "ep-dispatch", kCombine = "ep-combine";

JobOptions job_of(const MeasuredOptions& options, std::string_view traffic, int gpus) {
  JobOptions job;
  job.traffic = traffic;
  job.group = gpus;
  job.placement = options.placement;
  job.token_sets = options.token_sets;
  return job;
}

network::SimulateSpec spec_of(const MeasuredOptions& options, const Globals& globals,
                              const char* kind, const JobOptions& job) {
  NetworkOptions net;
  net.kind = kind;
  net.endpoints = options.endpoints;
  return simulate_spec(net, options.rates, job, options.route, globals.threads);
}

network::SimulateResult simulate(const network::SimulateSpec& spec) {
  return network::simulate(network::build(spec.topology), spec);
}

double measured_gbs(const network::PublishedExchange& figure, std::string_view traffic) {
  return traffic == kDispatch ? figure.dispatch_gbs : figure.combine_gbs;
}

Json simulate_job(const MeasuredOptions& options, const Globals& globals, const char* kind,
                  const JobOptions& job) {
  const network::SimulateResult r = simulate(spec_of(options, globals, kind, job));
  Json cell = {{"seconds", r.seconds}, {"limited_by", limit_name(r)}};
  if (r.bus_gbs > 0) {
    cell["bus_gbs"] = r.bus_gbs;
  } else {
    cell["gbs"] = r.algorithm_gbs;
  }
  return cell;
}

// On planes and on rails, and how much longer planes take.
void add_both(Json& row, const MeasuredOptions& options, const Globals& globals,
              const JobOptions& job) {
  for (const char* kind : {"mpft", "mrft"}) row[kind] = simulate_job(options, globals, kind, job);
  row["mpft_to_mrft"] =
      row["mpft"]["seconds"].get<double>() / row["mrft"]["seconds"].get<double>() - 1;
}

// The normal kernels: 4096 tokens by way of the node.
Json normal_rows(const MeasuredOptions& options, const Globals& globals) {
  Json rows = Json::array();
  for (const std::string_view traffic : {kDispatch, kCombine}) {
    for (const network::PublishedExchange& figure : network::deepep_normal()) {
      const double measured = measured_gbs(figure, traffic);
      Json row = {{"traffic", traffic}, {"ep", figure.gpus}, {"measured_gbs", measured}};
      add_both(row, options, globals, job_of(options, traffic, figure.gpus));
      row["difference"] = row["mpft"]["gbs"].get<double>() / measured - 1;
      rows.push_back(std::move(row));
    }
  }
  return rows;
}

// The low-latency kernels: 128 tokens, straight to their GPUs; microseconds.
Json low_latency_row(const MeasuredOptions& options, const Globals& globals,
                     std::string_view traffic, int gpus, double measured) {
  JobOptions job = job_of(options, traffic, gpus);
  job.tokens = 128;
  job.node_limit = 1024;  // any node: these kernels know no limit
  job.direct = true;
  job.even = true;
  job.one_group = true;
  network::SimulateSpec spec = spec_of(options, globals, "mpft", job);
  spec.job.dispatch_bytes = kLowLatencyDispatchBytes;
  const network::SimulateResult r = simulate(spec);
  return {{"traffic", traffic},          {"ep", gpus},
          {"measured_us", measured},     {"mpft_us", r.mean_seconds * 1e6},
          {"limited_by", limit_name(r)}, {"difference", r.mean_seconds * 1e6 / measured - 1}};
}

Json low_latency_rows(const MeasuredOptions& options, const Globals& globals) {
  Json rows = Json::array();
  for (const std::string_view traffic : {kDispatch, kCombine}) {
    for (const network::PublishedLowLatency& figure : network::deepep_low_latency()) {
      rows.push_back(
          low_latency_row(options, globals, traffic, figure.gpus,
                          traffic == kDispatch ? figure.dispatch_us : figure.combine_us));
    }
  }
  return rows;
}

// NCCL's all-to-all, one group on the network: bus bandwidth of planes beside rails.
Json all_to_all_rows(const MeasuredOptions& options, const Globals& globals) {
  Json rows = Json::array();
  for (const int gpus : {16, 32, 64, 128}) {
    for (const double bytes : {128.0 * (1 << 20), 16.0 * (1 << 30)}) {
      JobOptions job = job_of(options, "all-to-all", gpus);
      job.one_group = true;
      job.bytes = bytes;
      Json row = {{"gpus", gpus}, {"bytes", bytes}};
      add_both(row, options, globals, job);
      rows.push_back(std::move(row));
    }
  }
  return rows;
}

// One place of the sliders: dispatch and combine of groups of one size.
report::GridPoint point_of(const Json& dispatch, const Json& combine,
                           const network::PublishedExchange& figure) {
  report::GridPoint point;
  point.mark = limit_mark(dispatch["limited_by"]);
  for (const auto& [cell, measured] :
       {std::pair<const Json&, double>(dispatch, figure.dispatch_gbs),
        {combine, figure.combine_gbs}}) {
    const double gbs = cell["gbs"].get<double>();
    point.numbers.push_back(gbs);
    point.texts.push_back(fmt::format("{:.2f} GB/s", gbs));
    point.texts.push_back(fmt::format("{:+.1f}% ({:.2f})", 100 * (gbs / measured - 1), measured));
    point.texts.push_back(cell["limited_by"].get<std::string>());
  }
  return point;
}

// What a NIC really reaches is the one figure that the comparison hangs on (the paper: 40 GB/s).
// `cases` has the command's own rate.
report::WhatIf what_if(MeasuredOptions options, const Globals& globals, const Json& cases) {
  const double own = options.rates.nic_gbs;
  std::vector<double> rates = options.html_nic_gbs;
  rates.push_back(own);
  std::sort(rates.begin(), rates.end());
  rates.erase(std::unique(rates.begin(), rates.end()), rates.end());
  const std::span<const network::PublishedExchange> figures = network::deepep_normal();
  report::WhatIf w;
  w.title = "What if a NIC reached more or less";
  w.text = "The normal kernels on the multi-plane fat tree, each place of the sliders simulated.";
  w.axes = {{"GB/s of a NIC", {}, 0}, {"GPUs of a group", {}, 0}};
  w.readouts = {"dispatch", "dispatch against measured", "dispatch limited by",
                "combine",  "combine against measured",  "combine limited by"};
  w.measures = {"dispatch, GB/s", "combine, GB/s"};
  for (const network::PublishedExchange& figure : figures) {
    w.axes[1].texts.push_back(fmt::format("{}", figure.gpus));
  }
  Progress progress;
  for (std::size_t i = 0; i < rates.size(); ++i) {
    if (rates[i] == own) w.axes[0].start = i;
    w.axes[0].texts.push_back(fmt::format("{:g}", rates[i]));
    progress.show(
        fmt::format("what if a NIC reached {:g} GB/s: {} of {}", rates[i], i + 1, rates.size()));
    options.rates.nic_gbs = rates[i];
    const auto cell = [&](std::string_view traffic, std::size_t figure) {
      const std::size_t row = figure + (traffic == kDispatch ? 0 : figures.size());
      if (rates[i] == own) return cases[row]["mpft"];
      return simulate_job(options, globals, "mpft", job_of(options, traffic, figures[figure].gpus));
    };
    for (std::size_t f = 0; f < figures.size(); ++f) {
      w.points.push_back(grid_point_or_why(
          w, [&] { return point_of(cell(kDispatch, f), cell(kCombine, f), figures[f]); }));
    }
  }
  return w;
}

void run_measured(const MeasuredOptions& options, const Globals& globals) {
  check_output_file("--svg", options.svg);
  check_output_file("--html", options.html);
  const Json result = {{"endpoints", options.endpoints},
                       {"placement", options.placement},
                       {"cases", normal_rows(options, globals)},
                       {"low_latency", low_latency_rows(options, globals)},
                       {"all_to_all", all_to_all_rows(options, globals)}};
  if (!options.svg.empty()) {
    write_file_atomically(options.svg, network::draw_bars(measured_bars(result)));
  }
  if (!options.html.empty()) {
    write_html(
        options.html,
        measured_page(result, what_if(options, globals, result["cases"]), options.rates.rates()),
        globals);
  }
  if (globals.json) {
    print_json(result);
    return;
  }
  const char* between = "";
  for (const MeasuredTable& t : measured_tables(result)) {
    print(std::exchange(between, "\n") + report::text(t.table));
    print_line(t.words);
  }
}

}  // namespace

void add_network_measured(CLI::App& group, Globals& globals) {
  CLI::App* command =
      add_command(group, globals, "measured",
                  "Simulated expert dispatch and combine beside DeepEP's measured bandwidths");
  auto options = std::make_shared<MeasuredOptions>();
  command->add_option("--endpoints", options->endpoints, "GPUs of the network")->type_name("N");
  command
      ->add_option("--placement", options->placement,
                   "Where a group's nodes are: contiguous (side by side) or strided (spread out)")
      ->type_name("WHERE");
  command
      ->add_option("--token-sets", options->token_sets,
                   "Different sets of tokens that are drawn; groups take them in turn")
      ->check(CLI::Range(1, 4096))
      ->type_name("N");
  add_route_flags(*command, options->route);
  add_rate_flags(*command, options->rates);
  add_output_file(*command, "--svg", options->svg, "Draw the table as bars into this file");
  add_html_flag(*command, options->html);
  command
      ->add_option("--html-nic-gbs", options->html_nic_gbs,
                   "GB/s of a NIC that the slider of --html offers, each simulated")
      ->delimiter(',')
      ->check(finite_range(0.1, 10'000))
      ->type_name("GBS,GBS,...");
  on_run(command, globals, options, run_measured);
}

}  // namespace cachalot::cli
