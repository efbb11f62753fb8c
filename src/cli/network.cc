// cachalot network: the commands' group and what they share.
#include <fmt/format.h>

#include <algorithm>
#include <thread>
#include <utility>

#include "base/atomic_file.h"
#include "base/error.h"
#include "cli/finite.h"
#include "cli/network_options.h"

namespace cachalot::cli {

network::TopologySpec NetworkOptions::spec() const {
  network::TopologySpec spec;
  spec.kind = network::parse_kind(kind);
  spec.ports = ports;
  spec.planes = planes;
  spec.nic_ports = nic_ports;
  spec.endpoints = endpoints;
  spec.gpus_per_node = gpus_per_node;
  spec.groups = groups;
  spec.q = q;
  return spec;
}

void add_network_flags(CLI::App& command, NetworkOptions& options, bool with_kind) {
  if (with_kind) {
    command
        .add_option("--kind", options.kind,
                    "ft2 (two-layer fat tree), mpft (planes of them), mrft (leaves by rail), ft3, "
                    "dragonfly or slimfly")
        ->type_name("KIND");
    command.add_option("--groups", options.groups, "Dragonfly: groups; 0 takes as many as fit")
        ->type_name("N");
    command
        .add_option("--q", options.q,
                    "Slim Fly: the prime power it is made from; 0 takes the largest that fits")
        ->type_name("N");
  }
  command.add_option("--ports", options.ports, "Ports of a switch")->type_name("N");
  command.add_option("--planes", options.planes, "Planes of an mpft")->type_name("N");
  command
      .add_option("--nic-ports", options.nic_ports,
                  "Ports of a NIC of an mpft, each in a plane of its own; they share the NIC's "
                  "rate, and a flow may take them all")
      ->type_name("N");
  command
      .add_option("--endpoints", options.endpoints,
                  "GPUs, each with one NIC; 0 takes as many as fit")
      ->type_name("N");
  command.add_option("--gpus-per-node", options.gpus_per_node, "GPUs, and NICs, of a node")
      ->type_name("N");
}

namespace {

// What is not even a number passes a flag's own check of its range.
double rate_or(const char* flag, double gbs, double otherwise) {
  if (!(gbs >= 0 && gbs < 1e6)) {
    throw Error(Code::kUsage, cat(flag, " ", gbs,
                                  ": a rate is above 0 and below 1,000,000 GB/s, or 0 for the one "
                                  "that --help names."));
  }
  return gbs > 0 ? gbs : otherwise;
}

}  // namespace

network::Rates RateOptions::rates(int nic_ports) const {
  if (wire != "infiniband" && wire != "roce") {
    throw Error(Code::kUsage, cat("--wire ", wire, ": must be infiniband or roce."));
  }
  network::Rates rates = wire == "roce" ? network::roce_rates() : network::infiniband_rates();
  if (!(nic_gbs > 0 && nic_gbs < 1e6)) {
    throw Error(Code::kUsage,
                cat("--nic-gbs ", nic_gbs, ": a rate is above 0 and below 1,000,000 GB/s."));
  }
  rates.nic_gbs = nic_gbs;
  rates.trunk_gbs = rate_or("--link-gbs", link_gbs, rates.trunk_gbs / std::max(nic_ports, 1));
  rates.nvlink_gbs = rate_or("--nvlink-gbs", nvlink_gbs, rates.nvlink_gbs);
  return rates;
}

void add_rate_flags(CLI::App& command, RateOptions& options) {
  command.add_option("--wire", options.wire, "Latencies of infiniband or roce")
      ->type_name("infiniband|roce");
  command
      .add_option("--nic-gbs", options.nic_gbs,
                  "GB/s that a NIC achieves with all its ports (400G: 50 nominal)")
      ->type_name("GBS");
  command
      .add_option("--link-gbs", options.link_gbs,
                  "GB/s of a link between switches; 0 takes 50 (400G), divided by --nic-ports: a "
                  "switch has ports of one speed")
      ->check(finite_range(0, 1e6))
      ->type_name("GBS");
  command
      .add_option("--nvlink-gbs", options.nvlink_gbs,
                  "GB/s of a GPU's NVLink, one way; 0 takes 160, or for experts' traffic what "
                  "DeepEP reaches inside one node, 153 for dispatch and 158 for combine (with "
                  "--direct 98 and 127)")
      ->type_name("GBS");
}

double dispatch_bytes(int hidden) {
  const int tiles = (hidden + 127) / 128;
  return hidden + 4.0 * tiles;
}
double combine_bytes(int hidden) { return 2.0 * hidden; }

namespace {

// The traffic of a trace: one exchange where it has several, for only the tokens of a pass travel
// together.
void take_trace(const JobOptions& options, network::JobSpec& job) {
  network::RoutingTrace trace = network::load_routing_trace(options.trace);
  if (!trace.exchanges.empty() || options.trace_layer != -1) {
    trace = network::of_layer(trace, options.trace_layer);
  }
  if (!trace.exchanges.empty() || options.trace_pass != -1) {
    job.exchange = network::largest_exchange(trace, options.trace_pass);
  }
  job.trace = std::move(trace);
}

}  // namespace

network::JobSpec JobOptions::job() const {
  network::JobSpec job;
  job.traffic = network::parse_traffic(traffic);
  job.placement = network::parse_placement(placement);
  job.group = group;
  job.one_group = one_group;
  job.tokens = tokens;
  job.dispatch_bytes = dispatch_bytes(hidden);
  job.combine_bytes = combine_bytes(hidden);
  job.experts = experts;
  job.topk = topk;
  job.node_limit = node_limit;
  job.skew = skew;
  job.token_sets = token_sets;
  job.direct = direct;
  job.even = even;
  if (trace.empty() && (trace_layer != -1 || trace_pass != -1)) {
    throw Error(Code::kUsage,
                "--trace-layer and --trace-pass say what of a routing trace is sent. Give --trace "
                "too.");
  }
  if (!trace.empty()) take_trace(*this, job);
  if (!slots.empty()) job.slots = network::parse_expert_slots(read_file(slots, 1 << 24), slots);
  job.bytes = bytes;
  return job;
}

void add_job_flags(CLI::App& command, JobOptions& options) {
  command
      .add_option("--traffic", options.traffic,
                  "ep-dispatch, ep-combine, all-to-all, all-reduce, all-gather, reduce-scatter or "
                  "pipeline")
      ->type_name("KIND");
  command
      .add_option("--ep,--group", options.group,
                  "GPUs of one expert-parallel group, collective or pipeline stage; 0 takes all")
      ->check(CLI::Range(0, 65'535))
      ->type_name("N");
  command.add_flag("--one-group", options.one_group,
                   "Only one group has traffic, not all that fit");
  command
      .add_option("--placement", options.placement,
                  "Where a group's nodes are: contiguous (side by side) or strided (spread out)")
      ->type_name("WHERE");
  command.add_option("--tokens", options.tokens, "Tokens of each GPU")->type_name("N");
  command.add_option("--hidden", options.hidden, "Width of a token")
      ->check(CLI::Range(1, 1 << 20))
      ->type_name("N");
  command.add_option("--experts", options.experts, "Routed experts")->type_name("N");
  command.add_option("--topk", options.topk, "Experts of a token")->type_name("N");
  command.add_option("--node-limit", options.node_limit, "Nodes a token may go to")->type_name("N");
  command
      .add_option("--skew", options.skew,
                  "How uneven experts' popularity is: it falls as rank^-skew; 0: all alike")
      ->type_name("X");
  command
      .add_option("--token-sets", options.token_sets,
                  "Different sets of tokens that are drawn; groups take them in turn")
      ->check(CLI::Range(1, 4096))
      ->type_name("N");
  command.add_flag("--even,!--uneven", options.even,
                   "Experts' traffic by the means of the drawn tokens: every GPU sends alike, and "
                   "the simulation is fast");
  command.add_option("--trace", options.trace, "Routing trace to take tokens' experts from")
      ->type_name("FILE");
  command
      .add_option("--trace-layer", options.trace_layer,
                  "Layer of a trace of several; -1: the first that is in it")
      ->check(CLI::Range(-1, network::kMostLayers))
      ->type_name("N");
  command
      .add_option("--trace-pass", options.trace_pass,
                  "Pass of a trace of several, whose tokens travel together; -1: the one with the "
                  "most tokens")
      ->check(CLI::Range(std::int64_t{-1}, network::kMostPasses))
      ->type_name("N");
  command
      .add_option("--expert-slots", options.slots,
                  "The expert in each slot, the same number of slots on every GPU; may repeat "
                  "experts (EPLB's phy2log)")
      ->type_name("FILE");
  command.add_flag("--direct", options.direct,
                   "Experts' traffic straight to each GPU, without forwarding in the node");
  command.add_option("--bytes", options.bytes, "Bytes of each GPU, for collectives and pipeline")
      ->check(finite_range(1, 1e15))
      ->type_name("BYTES");
}

void add_route_flags(CLI::App& command, RouteOptions& options) {
  command
      .add_option(
          "--routing", options.routing,
          "ecmp (by hash), static (by destination), adaptive (least loaded shortest way), or on "
          "dragonfly and slimfly by way of other switches: valiant (a random one) or ugal "
          "(where that is less loaded)")
      ->type_name("HOW");
  command
      .add_option(
          "--spray", options.spray,
          "Parts of a flow that adaptive, valiant and ugal send separately; 0: 8, or fewer where "
          "flows are many")
      ->check(CLI::Range(0, 256))
      ->type_name("N");
  command
      .add_option("--cross-rail", options.cross_rail,
                  "How traffic gets to another rail: node (NVLink, as NCCL's PXN) or fabric")
      ->type_name("node|fabric");
  command.add_option("--seed", options.seed, "Of tokens, hashes and what fails")
      ->check(seed_range())
      ->type_name("N");
  command
      .add_option("--merge", options.merge,
                  "Flows that end within this share of the whole time end together: much "
                  "less work, for an error of about as much; 0: exact")
      ->check(finite_range(0, 0.1))
      ->type_name("X");
}

network::SimulateSpec simulate_spec(const NetworkOptions& network, const RateOptions& rates,
                                    const JobOptions& job, const RouteOptions& route, int threads) {
  network::SimulateSpec spec;
  spec.topology = network.spec();
  spec.rates = rates.rates(spec.topology.kind == network::Kind::kMpft ? network.nic_ports : 1);
  spec.nvlink_given = rates.nvlink_gbs > 0;
  spec.job = job.job();
  spec.routing = network::parse_routing(route.routing);
  spec.spray = route.spray;
  spec.seed = route.seed;
  if (route.cross_rail != "node" && route.cross_rail != "fabric") {
    throw Error(Code::kUsage, cat("--cross-rail ", route.cross_rail, ": must be node or fabric."));
  }
  spec.cross_rail_in_node = route.cross_rail == "node";
  spec.options.merge = route.merge;
  spec.options.processes =
      threads > 0 ? threads : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  return spec;
}

network::Prices prices_of(const std::string& file) {
  return file.empty() ? network::Prices{} : network::load_prices(file);
}

std::string human_seconds(double seconds) {
  if (seconds >= 1) return fmt::format("{:.3f} s", seconds);
  if (seconds >= 1e-3) return fmt::format("{:.3f} ms", seconds * 1e3);
  return fmt::format("{:.2f} us", seconds * 1e6);
}

std::string seconds_text(const Json& seconds) {
  return seconds.is_null() ? "-" : human_seconds(seconds.get<double>());
}

Json if_finished(const network::SimulateResult& result, double value) {
  return result.finishes() ? Json(value) : Json();
}

void add_network(CLI::App& root, Globals& globals) {
  CLI::App* group = root.add_subcommand(
      "network", "Networks of a cluster: what they cost, how they carry traffic, what faults do");
  group->require_subcommand(1);
  add_network_topology(*group, globals);
  add_network_compare(*group, globals);
  add_network_simulate(*group, globals);
  add_network_measured(*group, globals);
  add_network_faults(*group, globals);
}

}  // namespace cachalot::cli
