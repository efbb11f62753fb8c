// cachalot network measured: simulated experts' traffic beside DeepEP's published figures.
#include <fmt/format.h>

#include "base/atomic_file.h"
#include "cli/network_options.h"
#include "network/drawing.h"
#include "network/published.h"

namespace cachalot::cli {

namespace {

// FP8 values, a float scale for every 128 of them, and 16 bytes that say whose they are.
constexpr double kLowLatencyDispatchBytes = 7408;

struct MeasuredOptions {
  RouteOptions route;
  RateOptions rates;
  std::string placement = "contiguous", svg;
  std::int64_t endpoints = 2048;
  int token_sets = 1;
};

Json measured_row(const MeasuredOptions& options, const Globals& globals, const char* traffic,
                  int gpus, double published) {
  Json row = {{"traffic", traffic}, {"ep", gpus}, {"measured_gbs", published}};
  for (const char* kind : {"mpft", "mrft"}) {
    NetworkOptions net;
    net.kind = kind;
    net.endpoints = options.endpoints;
    JobOptions job;
    job.traffic = traffic;
    job.group = gpus;
    job.placement = options.placement;
    job.token_sets = options.token_sets;
    const network::SimulateSpec spec =
        simulate_spec(net, options.rates, job, options.route, globals.threads);
    const network::SimulateResult r = network::simulate(network::build(spec.topology), spec);
    row[kind] = {{"gbs", r.algorithm_gbs}, {"seconds", r.seconds}};
  }
  row["difference"] = row["mpft"]["gbs"].get<double>() / published - 1;
  row["mpft_to_mrft"] =
      row["mpft"]["seconds"].get<double>() / row["mrft"]["seconds"].get<double>() - 1;
  return row;
}

// Microseconds of the low-latency kernels: 128 tokens, straight to their GPUs.
Json low_latency_row(const MeasuredOptions& options, const Globals& globals, const char* traffic,
                     int gpus, double published) {
  NetworkOptions net;
  net.endpoints = options.endpoints;
  JobOptions job;
  job.traffic = traffic;
  job.group = gpus;
  job.placement = options.placement;
  job.token_sets = options.token_sets;
  job.tokens = 128;
  job.node_limit = 1024;  // any node: these kernels know no limit
  job.direct = true;
  job.even = true;
  job.one_group = true;
  network::SimulateSpec spec =
      simulate_spec(net, options.rates, job, options.route, globals.threads);
  spec.job.dispatch_bytes = kLowLatencyDispatchBytes;
  const network::SimulateResult r = network::simulate(network::build(spec.topology), spec);
  return {{"traffic", traffic},
          {"ep", gpus},
          {"measured_us", published},
          {"mpft_us", r.mean_seconds * 1e6},
          {"difference", r.mean_seconds * 1e6 / published - 1}};
}

Json low_latency_rows(const MeasuredOptions& options, const Globals& globals) {
  Json rows = Json::array();
  for (const char* traffic : {"ep-dispatch", "ep-combine"}) {
    for (const network::PublishedLowLatency& figure : network::deepep_low_latency()) {
      const double published =
          std::string(traffic) == "ep-dispatch" ? figure.dispatch_us : figure.combine_us;
      rows.push_back(low_latency_row(options, globals, traffic, figure.gpus, published));
    }
  }
  return rows;
}

void print_low_latency(const Json& rows) {
  print_line("");
  print_line(
      fmt::format("{:<12} {:>4} {:>10} {:>10} {:>10}", "", "EP", "measured", "mpft", "difference"));
  for (const Json& r : rows) {
    print_line(fmt::format("{:<12} {:>4} {:>10.0f} {:>10.1f} {:>9.1f}%",
                           r["traffic"].get<std::string>(), r["ep"].get<int>(),
                           r["measured_us"].get<double>(), r["mpft_us"].get<double>(),
                           100 * r["difference"].get<double>()));
  }
  print_line("Microseconds of the low-latency kernels: 128 tokens per GPU, one copy per expert.");
}

// NCCL's all-to-all, one group on the network: bus bandwidth of planes beside rails.
Json all_to_all_rows(const MeasuredOptions& options, const Globals& globals) {
  Json rows = Json::array();
  for (const int gpus : {16, 32, 64, 128}) {
    for (const double bytes : {128.0 * (1 << 20), 16.0 * (1 << 30)}) {
      Json row = {{"gpus", gpus}, {"bytes", bytes}};
      for (const char* kind : {"mpft", "mrft"}) {
        NetworkOptions net;
        net.kind = kind;
        net.endpoints = options.endpoints;
        JobOptions job;
        job.traffic = "all-to-all";
        job.group = gpus;
        job.one_group = true;
        job.placement = options.placement;
        job.bytes = bytes;
        const network::SimulateSpec spec =
            simulate_spec(net, options.rates, job, options.route, globals.threads);
        const network::SimulateResult r = network::simulate(network::build(spec.topology), spec);
        row[kind] = {{"bus_gbs", r.bus_gbs}, {"seconds", r.seconds}};
      }
      row["mpft_to_mrft"] =
          row["mpft"]["seconds"].get<double>() / row["mrft"]["seconds"].get<double>() - 1;
      rows.push_back(row);
    }
  }
  return rows;
}

void print_all_to_all(const Json& rows) {
  print_line("");
  print_line(fmt::format("{:<12} {:>4} {:>10} {:>10} {:>10} {:>12}", "all-to-all", "GPUs", "bytes",
                         "mpft", "mrft", "mpft - mrft"));
  for (const Json& r : rows) {
    print_line(fmt::format("{:<12} {:>4} {:>10} {:>10.2f} {:>10.2f} {:>11.2f}%", "",
                           r["gpus"].get<int>(), human_bytes(r["bytes"].get<double>()),
                           r["mpft"]["bus_gbs"].get<double>(), r["mrft"]["bus_gbs"].get<double>(),
                           100 * r["mpft_to_mrft"].get<double>()));
  }
  print_line("Bus bandwidth in GB/s per GPU, as NCCL counts it.");
}

void run_measured(const MeasuredOptions& options, const Globals& globals) {
  Json rows = Json::array();
  network::BarChart chart;
  chart.title = "Experts' traffic on a multi-plane fat tree: simulated beside DeepEP on H800";
  chart.y_label = "GB/s per GPU, counted by (token, node)";
  chart.series = {"simulated", "measured"};
  chart.bars.resize(2);
  for (const char* traffic : {"ep-dispatch", "ep-combine"}) {
    for (const network::PublishedExchange& figure : network::deepep_normal()) {
      const double published =
          std::string(traffic) == "ep-dispatch" ? figure.dispatch_gbs : figure.combine_gbs;
      rows.push_back(measured_row(options, globals, traffic, figure.gpus, published));
      const double simulated = rows.back()["mpft"]["gbs"].get<double>();
      chart.categories.push_back(
          fmt::format("{} EP{}", std::string(traffic).substr(3), figure.gpus));
      chart.bars[0].push_back({simulated, fmt::format("{:.1f}", simulated)});
      chart.bars[1].push_back({published, fmt::format("{:.1f}", published)});
    }
  }
  if (!options.svg.empty()) write_file_atomically(options.svg, network::draw_bars(chart));
  const Json low_latency = low_latency_rows(options, globals);
  const Json all_to_all = all_to_all_rows(options, globals);
  if (globals.json) {
    print_json({{"endpoints", options.endpoints},
                {"placement", options.placement},
                {"cases", rows},
                {"low_latency", low_latency},
                {"all_to_all", all_to_all}});
    return;
  }
  print_line(fmt::format("{:<12} {:>4} {:>10} {:>10} {:>10} {:>10} {:>12}", "", "EP", "measured",
                         "mpft", "difference", "mrft", "mpft - mrft"));
  for (const Json& r : rows) {
    print_line(fmt::format("{:<12} {:>4} {:>10.2f} {:>10.2f} {:>9.1f}% {:>10.2f} {:>11.2f}%",
                           r["traffic"].get<std::string>(), r["ep"].get<int>(),
                           r["measured_gbs"].get<double>(), r["mpft"]["gbs"].get<double>(),
                           100 * r["difference"].get<double>(), r["mrft"]["gbs"].get<double>(),
                           100 * r["mpft_to_mrft"].get<double>()));
  }
  print_line(
      "GB/s per GPU as DeepEP counts them: bytes of tokens by (token, node), own node included, "
      "over time.");
  print_low_latency(low_latency);
  print_all_to_all(all_to_all);
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
  command->add_option("--svg", options->svg, "Draw the table as bars into this file")
      ->type_name("FILE");
  on_run(command, globals, options, run_measured);
}

}  // namespace cachalot::cli
