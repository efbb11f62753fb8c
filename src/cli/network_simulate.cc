// cachalot network simulate: how long a job's traffic takes on a network, whole or damaged.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <optional>

#include "base/atomic_file.h"
#include "base/error.h"
#include "cli/html_page.h"
#include "cli/network_eplb.h"
#include "cli/network_options.h"
#include "cli/network_page.h"
#include "cli/network_passes.h"
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

Json trace_json(const network::JobSpec& job) {
  if (!job.trace || !job.exchange) return nullptr;
  return {{"layer", job.exchange->layer},
          {"pass", job.exchange->pass},
          {"tokens", job.exchange->tokens()},
          {"exchanges", job.trace->exchanges.size()}};
}

Json to_json(const network::Topology& topology, const network::SimulateSpec& spec,
             const network::SimulateResult& r, double wall) {
  Json busiest = Json::array();
  for (const network::Busy& b : r.busiest) {
    busiest.push_back({{"what", b.what}, {"seconds", b.seconds}});
  }
  return {{"kind", network::name(topology.spec.kind)},
          {"endpoints", topology.endpoints()},
          {"switches", topology.switches.size()},
          {"links", topology.links.size()},
          {"planes", topology.planes},
          {"nic_ports", topology.spec.nic_ports},
          {"traffic", network::name(spec.job.traffic)},
          {"trace", trace_json(spec.job)},
          {"group", spec.job.group},
          {"groups", r.groups},
          {"placement", network::name(spec.job.placement)},
          {"routing", network::name(spec.routing)},
          {"spray", r.spray},
          {"faults", network::to_string(spec.faults)},
          {"seconds", r.seconds},
          {"mean_seconds", r.mean_seconds},
          {"bound_seconds", r.bound_seconds},
          {"algorithm_gbs", r.algorithm_gbs},
          {"nvlink_gbs", r.nvlink_gbs},
          {"bus_gbs", r.bus_gbs},
          {"busiest", busiest},
          {"down",
           {{"switches", r.damage.switches},
            {"links", r.damage.links},
            {"nics", r.damage.nics},
            {"ports", r.damage.ports}}},
          {"cut_off_gpus", r.cut_off_gpus},
          {"stopped_groups", r.stopped_groups},
          {"rates",
           {{"nic_gbs", r.rates.nic_gbs},
            {"link_gbs", r.rates.trunk_gbs},
            {"nvlink_gbs", r.rates.nvlink_gbs},
            {"endpoint_us", r.rates.endpoint_us},
            {"switch_us", r.rates.switch_us},
            {"nvlink_us", r.rates.nvlink_us}}},
          {"flows", r.flows},
          {"parts", r.run.parts},
          {"distinct_parts", r.run.distinct_parts},
          {"distinct_flows", r.run.distinct_flows},
          {"wall_seconds", wall},
          {"peak_bytes", r.run.peak_bytes}};
}

report::Facts facts_of(const Json& r) {
  report::Facts facts;
  const auto line = [&](const char* what, const std::string& value) {
    facts.items.emplace_back(what, value);
  };
  const auto number = [&](const char* key) { return r[key].get<std::int64_t>(); };
  line("network",
       fmt::format("{}, {} endpoints, {} switches, {} links", r["kind"].get<std::string>(),
                   number("endpoints"), number("switches"), number("links")));
  line("traffic",
       fmt::format("{} in {} groups of {} GPUs, {}", r["traffic"].get<std::string>(),
                   number("groups"), number("group"), r["placement"].get<std::string>()));
  if (const Json& t = r["trace"]; !t.is_null()) {
    line("trace", fmt::format("pass {} of layer {}: {} tokens (of {} exchanges)",
                              t["pass"].get<std::int64_t>(), t["layer"].get<int>(),
                              t["tokens"].get<std::int64_t>(), t["exchanges"].get<std::int64_t>()));
  }
  line("routing",
       fmt::format("{}{}", r["routing"].get<std::string>(),
                   number("spray") > 1 ? fmt::format(", flows in {} parts", number("spray"))
                                       : std::string()));
  const Json& down = r["down"];
  line("down",
       fmt::format("{} ({} switches, {} links, {} NICs{})", r["faults"].get<std::string>(),
                   down["switches"].dump(), down["links"].dump(), down["nics"].dump(),
                   number("nic_ports") > 1 ? fmt::format(", {} ports", down["ports"].dump()) : ""));
  if (number("cut_off_gpus") > 0 || number("stopped_groups") > 0) {
    line("cut off", fmt::format("{} GPUs; {} of {} groups cannot finish", number("cut_off_gpus"),
                                number("stopped_groups"), number("groups")));
  }
  line("time", fmt::format("{} (mean of groups {}; no schedule can beat {})",
                           human_seconds(r["seconds"].get<double>()),
                           human_seconds(r["mean_seconds"].get<double>()),
                           human_seconds(r["bound_seconds"].get<double>())));
  if (r["bus_gbs"].get<double>() > 0) {
    line("bandwidth", fmt::format("{:.2f} GB/s algorithm, {:.2f} GB/s bus",
                                  r["algorithm_gbs"].get<double>(), r["bus_gbs"].get<double>()));
  } else {
    line("bandwidth", fmt::format("{:.2f} GB/s by (token, node), {:.2f} GB/s by (token, GPU)",
                                  r["algorithm_gbs"].get<double>(), r["nvlink_gbs"].get<double>()));
  }
  for (const Json& b : r["busiest"]) {
    line("busy", fmt::format("{:<10} {}", human_seconds(b["seconds"].get<double>()),
                             b["what"].get<std::string>()));
  }
  line("simulated", fmt::format("{} flows, {} of {} parts distinct ({} flows), in {:.1f} s and {}",
                                number("flows"), number("distinct_parts"), number("parts"),
                                number("distinct_flows"), r["wall_seconds"].get<double>(),
                                human_bytes(r["peak_bytes"].get<double>())));
  if (r.contains("every_pass")) {
    const Json& e = r["every_pass"];
    line(
        "every pass",
        fmt::format("{} for {} exchanges of {} tokens: {} on average, p50 {}, p99 {}, the longest "
                    "{}",
                    human_seconds(e["seconds"].get<double>()), e["exchanges"].get<std::int64_t>(),
                    e["tokens"].get<std::int64_t>(), human_seconds(e["mean_seconds"].get<double>()),
                    human_seconds(e["p50_seconds"].get<double>()),
                    human_seconds(e["p99_seconds"].get<double>()),
                    human_seconds(e["longest_seconds"].get<double>())));
  }
  if (!r.contains("eplb")) return facts;
  const Json& e = r["eplb"];
  line("experts",
       fmt::format("{} placement by EPLB in {} slots; busiest GPU over the mean {:.3f}, in order "
                   "{:.3f}",
                   e["policy"].get<std::string>(), e["slots"].get<int>(),
                   e["imbalance"].get<double>(), e["imbalance_before"].get<double>()));
  line("against in order",
       fmt::format("{} before, {} after: {:.3f} times as fast",
                   human_seconds(e["seconds_before"].get<double>()),
                   human_seconds(e["seconds"].get<double>()), e["speedup"].get<double>()));
  return facts;
}

// Before and after: the same tokens with experts in order, and where the balancer puts them.
Json eplb_to_json(const Balanced& balanced, const network::SimulateResult& before,
                  const network::SimulateResult& after) {
  return {{"policy", balanced.by_node ? "hierarchical" : "global"},
          {"slots", balanced.placement.expert_of.size()},
          {"expert_of_slot", balanced.placement.expert_of},
          {"imbalance_before", balanced.imbalance_before},
          {"imbalance", balanced.imbalance},
          {"seconds_before", before.seconds},
          {"seconds", after.seconds},
          {"speedup", before.seconds / after.seconds}};
}

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
  if (r.stopped_groups == r.groups) {
    point.texts.assign(5, "-");
    point.numbers.assign(2, report::kNothing);
    point.note = "No group can finish: each has GPUs that nothing reaches.";
    return point;
  }
  point.mark = limit_mark(r);
  const bool bus = r.bus_gbs > 0;
  point.numbers = {1e3 * r.seconds, r.algorithm_gbs};
  point.texts = {human_seconds(r.seconds), human_seconds(r.bound_seconds),
                 fmt::format("{:.2f} GB/s", r.algorithm_gbs),
                 fmt::format("{:.2f} GB/s", bus ? r.bus_gbs : r.nvlink_gbs),
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
                known.bus_gbs > 0 ? "bus bandwidth" : "by (token, GPU)",
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
  page.summary = fmt::format("{}, {:.2f} GB/s; simulated flow by flow (SimGrid).",
                             human_seconds(result.seconds), result.algorithm_gbs);
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
  busy.series[0].values.push_back(1e3 * result.seconds);
  busy.series[0].marks.push_back(-1);
  page.sections = {{"Result",
                    {facts_of(json), busy,
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
  check_html(options.html);
  network::SimulateSpec spec =
      simulate_spec(options.network, options.rates, options.job, options.route, globals.threads);
  spec.faults = network::parse_faults(options.fail);
  const auto begin = std::chrono::steady_clock::now();
  const network::Topology topology = network::build(spec.topology);
  if (options.eplb_slots > 0 && !options.balance) {
    throw Error(Code::kUsage, "--eplb-slots says how --eplb is to be done. Give --eplb too.");
  }
  std::optional<Balanced> balanced;
  network::SimulateResult before;
  if (options.balance) {
    balanced = balance_experts(topology, spec, options.eplb_slots);
    before = network::simulate(topology, spec);
    spec.job.slots = balanced->placement.expert_of;
  }
  const network::SimulateResult result = network::simulate(topology, spec);
  const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - begin;
  if (!options.svg.empty()) {
    write_file_atomically(options.svg,
                          network::draw_topology(topology, loads_of(topology, result)));
  }
  Json json = to_json(topology, spec, result, wall.count());
  if (balanced) json["eplb"] = eplb_to_json(*balanced, before, result);
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
    print(report::text(facts_of(json)));
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
  command->add_option("--svg", options->svg, "Draw the network into this file, its links by load")
      ->type_name("FILE");
  add_html_flag(*command, options->html);
  add_html_planes_flag(*command, options->html_planes);
  on_run(command, globals, options, run);
}

}  // namespace cachalot::cli
