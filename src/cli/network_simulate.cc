// cachalot network simulate: how long a job's traffic takes on a network, whole or damaged.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <string>

#include "base/atomic_file.h"
#include "base/error.h"
#include "cli/html_page.h"
#include "cli/network_eplb.h"
#include "cli/network_options.h"
#include "cli/network_page.h"
#include "cli/network_passes.h"
#include "cli/network_simulate_report.h"
#include "cli/output_file.h"
#include "network/drawing.h"
#include "report/text.h"

namespace cachalot::cli {

namespace {

struct Options {
  NetworkOptions network;
  RateOptions rates;
  JobOptions job;
  RouteOptions route;
  std::string fail, svg, html;
  std::vector<int> html_planes;
  bool balance = false, every_pass = false;
  int eplb_slots = 0;
};

// Link by link, the busier direction's time over the whole time.
std::vector<double> loads_of(const network::Topology& topology, const network::SimulateResult& r) {
  std::vector<double> loads(topology.links.size());
  const auto first = static_cast<std::size_t>(4 * topology.endpoints());
  for (std::size_t l = 0; l < loads.size(); ++l) {
    const double busy = std::max(r.link_seconds[first + 2 * l], r.link_seconds[first + 2 * l + 1]);
    loads[l] = r.seconds > 0 ? busy / r.seconds : 0;
  }
  return loads;
}

report::GridPoint point_of(const network::SimulateResult& r) {
  report::GridPoint point;
  if (!r.finishes()) {
    point.texts.assign(5, "-");
    point.numbers.assign(2, report::kNothing);
    point.note = "No group can finish: each has GPUs that nothing reaches.";
    return point;
  }
  point.mark = limit_mark(r);
  point.numbers = {1e3 * r.seconds, r.algorithm_gbs};
  point.texts = {human_seconds(r.seconds), human_seconds(r.bound_seconds),
                 fmt::format("{:.2f} GB/s", r.algorithm_gbs),
                 fmt::format("{:.2f} GB/s", r.bus_gbs > 0 ? r.bus_gbs : r.nvlink_gbs),
                 fmt::format("{} of {}", r.stopped_groups, r.groups)};
  if (r.damage.ports > 0) {
    point.note = fmt::format("{} switches, {} links, {} NICs and {} ports of NICs are down.",
                             r.damage.switches, r.damage.links, r.damage.nics, r.damage.ports);
  }
  return point;
}

// The same traffic over other numbers of planes: each is simulated. `known` is the command's own.
report::WhatIf what_if(network::SimulateSpec spec, const std::vector<int>& asked,
                       const network::SimulateResult& known) {
  const int own = spec.topology.planes;
  report::WhatIf w;
  w.title = "What if there were more or fewer planes";
  w.text = "The same GPUs, traffic and faults on an mpft of so many planes, each simulated.";
  w.axes = {planes_axis(asked, own)};
  w.readouts = {"time", "no schedule can beat", "algorithm bandwidth",
                network::is_moe(spec.job.traffic) ? "by (token, GPU)" : "bus bandwidth",
                "groups that cannot finish"};
  w.measures = {"time, ms", "algorithm bandwidth, GB/s"};
  for (const int planes : asked) {
    spec.topology.planes = planes;
    w.points.push_back(grid_point_or_why(w, [&] {
      if (planes == own) return point_of(known);
      return point_of(network::simulate(network::build(spec.topology), spec));
    }));
  }
  return w;
}

report::Page page_of(const network::Topology& topology, network::SimulateSpec spec,
                     const network::SimulateResult& result, const std::vector<double>& loads,
                     const Json& json, const std::vector<int>& planes) {
  report::Page page;
  page.title = fmt::format("{} over {} GPUs of a network {}", network::name(spec.job.traffic),
                           topology.endpoints(), network::name(topology.spec.kind));
  page.summary = fmt::format(
      "{}; simulated flow by flow (SimGrid).",
      result.finishes()
          ? fmt::format("{}, {:.2f} GB/s", human_seconds(result.seconds), result.algorithm_gbs)
          : std::string("No group can finish"));
  page.marks = limit_marks();
  report::Chart busy{report::Chart::Kind::kBars,
                     "The busiest of each kind beside the whole time",
                     "what",
                     "ms",
                     {},
                     {},
                     false,
                     true,
                     {{"busy", {}, {}}}};
  for (const network::Busy& b : result.busiest) {
    busy.categories.push_back(b.what);
    busy.series[0].values.push_back(1e3 * b.seconds);
    busy.series[0].marks.push_back(resource_mark(b.what));
  }
  busy.categories.emplace_back("whole time");
  busy.series[0].values.push_back(result.finishes() ? 1e3 * result.seconds : report::kNothing);
  busy.series[0].marks.push_back(-1);
  page.sections = {{"Result",
                    {simulation_facts(json), busy,
                     report::Drawing{"Links between switches by how long they are busy",
                                     network::draw_topology(topology, loads)}}}};
  if (topology.spec.kind == network::Kind::kMpft) {
    spec.topology = topology.spec;  // with as many endpoints as were built, however many fit
    page.sections.push_back({"What if", {what_if(spec, planes, result)}});
  }
  page.sections.push_back(simulation_assumptions(result.rates));
  page.result = json;
  return page;
}

void run(const Options& options, const Globals& globals) {
  check_output_file("--svg", options.svg);
  check_output_file("--html", options.html);
  network::SimulateSpec spec =
      simulate_spec(options.network, options.rates, options.job, options.route, globals.threads);
  spec.faults = network::parse_faults(options.fail);
  const auto begin = std::chrono::steady_clock::now();
  const network::Topology topology = network::build(spec.topology);
  if (options.eplb_slots > 0 && !options.balance) {
    throw Error(Code::kUsage, "--eplb-slots says how --eplb is to be done. Give --eplb too.");
  }
  std::optional<Balanced> balanced;
  std::optional<network::SimulateResult> before;  // with experts in order
  if (options.balance) {
    balanced = balance_experts(topology, spec, options.eplb_slots);
    if (balanced->imbalance_before) before = network::simulate(topology, spec);
    spec.job.slots = balanced->placement.expert_of;
  }
  const network::SimulateResult result = network::simulate(topology, spec);
  const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - begin;
  if (!options.svg.empty()) {
    write_file_atomically(options.svg,
                          network::draw_topology(topology, loads_of(topology, result)));
  }
  Json json = simulation_json(topology, spec, result, wall.count());
  if (balanced) json["eplb"] = eplb_json(*balanced, before, result);
  if (options.every_pass) json["every_pass"] = simulate_every_pass(topology, spec);
  if (!options.html.empty()) {
    write_html(options.html,
               page_of(topology, spec, result, loads_of(topology, result), json,
                       plane_positions(options.html_planes, topology.spec)),
               globals);
  }
  if (globals.json) {
    print_json(json);
  } else {
    print(report::text(simulation_facts(json)));
  }
}

}  // namespace

void add_network_simulate(CLI::App& group, Globals& globals) {
  CLI::App* command =
      add_command(group, globals, "simulate",
                  "Time and bandwidth of a job's traffic on a network, whole or damaged (SimGrid)");
  auto options = std::make_shared<Options>();
  options->network.endpoints = 2048;
  add_network_flags(*command, options->network);
  add_job_flags(*command, options->job);
  command->add_flag("--every-pass", options->every_pass,
                    "Simulate every pass of the trace as well, each by itself, and say what they "
                    "take together");
  command->add_flag("--eplb", options->balance,
                    "Simulate twice: experts in order, and where DeepSeek's balancer (EPLB) puts "
                    "them, by the loads of the trace, or of other tokens than the ones sent");
  command
      ->add_option("--eplb-slots", options->eplb_slots,
                   "Expert slots of all GPUs of a group together; 0: one more per GPU than the "
                   "experts need")
      ->check(CLI::Range(0, network::kMostExperts))
      ->type_name("N");
  add_route_flags(*command, options->route);
  add_rate_flags(*command, options->rates);
  command
      ->add_option(
          "--fail", options->fail,
          "What is down: plane, leaf, spine, core, links, nic or port, with a number or a share, "
          "as in plane:1 or leaf:1,links:1%")
      ->type_name("LIST");
  add_output_file(*command, "--svg", options->svg,
                  "Draw the network into this file, its links by load");
  add_html_flag(*command, options->html);
  add_html_planes_flag(*command, options->html_planes);
  on_run(command, globals, options, run);
}

}  // namespace cachalot::cli
