#include "cli/network_simulate_report.h"

#include <fmt/format.h>

#include <string>
#include <utility>

#include "cli/network_options.h"

namespace cachalot::cli {

namespace {

Json trace_json(const network::JobSpec& job) {
  if (!job.trace || !job.exchange) return nullptr;
  return {{"layer", job.exchange->layer},
          {"pass", job.exchange->pass},
          {"tokens", job.exchange->tokens()},
          {"exchanges", job.trace->exchanges.size()}};
}

Json busiest_json(const network::SimulateResult& r) {
  Json busiest = Json::array();
  for (const network::Busy& b : r.busiest) {
    busiest.push_back({{"what", b.what}, {"seconds", b.seconds}});
  }
  return busiest;
}

Json rates_json(const network::Rates& rates) {
  return {{"nic_gbs", rates.nic_gbs},       {"link_gbs", rates.trunk_gbs},
          {"nvlink_gbs", rates.nvlink_gbs}, {"endpoint_us", rates.endpoint_us},
          {"switch_us", rates.switch_us},   {"nvlink_us", rates.nvlink_us}};
}

Json down_json(const network::Damage& damage) {
  return {{"switches", damage.switches},
          {"links", damage.links},
          {"nics", damage.nics},
          {"ports", damage.ports}};
}

void add(report::Facts& facts, const char* what, std::string value) {
  facts.items.emplace_back(what, std::move(value));
}

std::int64_t number(const Json& r, const char* key) { return r[key].get<std::int64_t>(); }

std::string digits(const Json& value, int decimals) {
  return value.is_null() ? "-" : fmt::format("{:.{}f}", value.get<double>(), decimals);
}

void add_traffic(report::Facts& facts, const Json& r) {
  add(facts, "traffic",
      fmt::format("{} in {} groups of {} GPUs, {}", r["traffic"].get<std::string>(),
                  number(r, "groups"), number(r, "group"), r["placement"].get<std::string>()));
  if (const Json& t = r["trace"]; !t.is_null()) {
    add(facts, "trace",
        fmt::format("pass {} of layer {}: {} tokens (of {} exchanges)", number(t, "pass"),
                    t["layer"].get<int>(), number(t, "tokens"), number(t, "exchanges")));
  }
}

void add_damage(report::Facts& facts, const Json& r) {
  const Json& down = r["down"];
  add(facts, "down",
      fmt::format("{} ({} switches, {} links, {} NICs{})", r["faults"].get<std::string>(),
                  down["switches"].dump(), down["links"].dump(), down["nics"].dump(),
                  number(r, "nic_ports") > 1 ? fmt::format(", {} ports", down["ports"].dump())
                                             : std::string()));
  if (number(r, "cut_off_gpus") > 0 || number(r, "stopped_groups") > 0) {
    add(facts, "cut off",
        fmt::format("{} GPUs; {} of {} groups cannot finish", number(r, "cut_off_gpus"),
                    number(r, "stopped_groups"), number(r, "groups")));
  }
}

void add_times(report::Facts& facts, const Json& r) {
  if (r["seconds"].is_null()) {
    add(facts, "time", "none: no group can finish");
    return;
  }
  add(facts, "time",
      fmt::format("{} (mean of groups {}; no schedule can beat {})", seconds_text(r["seconds"]),
                  seconds_text(r["mean_seconds"]), seconds_text(r["bound_seconds"])));
  if (r["bus_gbs"].get<double>() > 0) {
    add(facts, "bandwidth",
        fmt::format("{} GB/s algorithm, {} GB/s bus", digits(r["algorithm_gbs"], 2),
                    digits(r["bus_gbs"], 2)));
  } else {
    add(facts, "bandwidth",
        fmt::format("{} GB/s by (token, node), {} GB/s by (token, GPU)",
                    digits(r["algorithm_gbs"], 2), digits(r["nvlink_gbs"], 2)));
  }
}

void add_every_pass(report::Facts& facts, const Json& e) {
  const std::int64_t stopped = number(e, "stopped_exchanges");
  add(facts, "every pass",
      fmt::format(
          "{} for {} exchanges of {} tokens: {} on average, p50 {}, p99 {}, the longest {}{}",
          seconds_text(e["seconds"]), number(e, "exchanges"), number(e, "tokens"),
          seconds_text(e["mean_seconds"]), seconds_text(e["p50_seconds"]),
          seconds_text(e["p99_seconds"]), seconds_text(e["longest_seconds"]),
          stopped > 0 ? fmt::format("; in {} of them groups cannot finish", stopped)
                      : std::string()));
}

void add_eplb(report::Facts& facts, const Json& e) {
  add(facts, "experts",
      fmt::format("{} placement by EPLB in {} slots; busiest GPU over the mean {}, in order {}",
                  e["policy"].get<std::string>(), e["slots"].get<int>(), digits(e["imbalance"], 3),
                  digits(e["imbalance_before"], 3)));
  add(facts, "against in order",
      fmt::format("{} before, {} after: {} times as fast", seconds_text(e["seconds_before"]),
                  seconds_text(e["seconds"]), digits(e["speedup"], 3)));
}

}  // namespace

Json simulation_json(const network::Topology& topology, const network::SimulateSpec& spec,
                     const network::SimulateResult& r, double wall) {
  return {{"kind", network::name(topology.spec.kind)},
          {"endpoints", topology.endpoints()},
          {"switches", topology.switches.size()},
          {"links", topology.links.size()},
          {"planes", topology.planes},
          {"nic_ports", topology.spec.nic_ports},
          {"traffic", network::name(spec.job.traffic)},
          {"trace", trace_json(spec.job)},
          {"group", r.group},
          {"groups", r.groups},
          {"placement", network::name(spec.job.placement)},
          {"routing", network::name(spec.routing)},
          {"spray", r.spray},
          {"faults", network::to_string(spec.faults)},
          {"seconds", if_finished(r, r.seconds)},
          {"mean_seconds", if_finished(r, r.mean_seconds)},
          {"bound_seconds", if_finished(r, r.bound_seconds)},
          {"algorithm_gbs", if_finished(r, r.algorithm_gbs)},
          {"nvlink_gbs", if_finished(r, r.nvlink_gbs)},
          {"bus_gbs", if_finished(r, r.bus_gbs)},
          {"busiest", busiest_json(r)},
          {"down", down_json(r.damage)},
          {"cut_off_gpus", r.cut_off_gpus},
          {"stopped_groups", r.stopped_groups},
          {"rates", rates_json(r.rates)},
          {"flows", r.flows},
          {"parts", r.run.parts},
          {"distinct_parts", r.run.distinct_parts},
          {"distinct_flows", r.run.distinct_flows},
          {"wall_seconds", wall},
          {"peak_bytes", r.run.peak_bytes}};
}

Json eplb_json(const Balanced& balanced, const std::optional<network::SimulateResult>& before,
               const network::SimulateResult& after) {
  const bool both = before && before->finishes() && after.finishes() && after.seconds > 0;
  return {
      {"policy", balanced.by_node ? "hierarchical" : "global"},
      {"slots", balanced.placement.expert_of.size()},
      {"expert_of_slot", balanced.placement.expert_of},
      {"imbalance_before", balanced.imbalance_before ? Json(*balanced.imbalance_before) : Json()},
      {"imbalance", balanced.imbalance},
      {"seconds_before", before ? if_finished(*before, before->seconds) : Json()},
      {"seconds", if_finished(after, after.seconds)},
      {"speedup", both ? Json(before->seconds / after.seconds) : Json()}};
}

report::Facts simulation_facts(const Json& r) {
  report::Facts facts;
  add(facts, "network",
      fmt::format("{}, {} endpoints, {} switches, {} links", r["kind"].get<std::string>(),
                  number(r, "endpoints"), number(r, "switches"), number(r, "links")));
  add_traffic(facts, r);
  add(facts, "routing",
      fmt::format("{}{}", r["routing"].get<std::string>(),
                  number(r, "spray") > 1 ? fmt::format(", flows in {} parts", number(r, "spray"))
                                         : std::string()));
  add_damage(facts, r);
  add_times(facts, r);
  for (const Json& b : r["busiest"]) {
    add(facts, "busy",
        fmt::format("{:<10} {}", seconds_text(b["seconds"]), b["what"].get<std::string>()));
  }
  add(facts, "simulated",
      fmt::format("{} flows, {} of {} parts distinct ({} flows), in {:.1f} s and {}",
                  number(r, "flows"), number(r, "distinct_parts"), number(r, "parts"),
                  number(r, "distinct_flows"), r["wall_seconds"].get<double>(),
                  human_bytes(r["peak_bytes"].get<double>())));
  if (r.contains("every_pass")) add_every_pass(facts, r["every_pass"]);
  if (r.contains("eplb")) add_eplb(facts, r["eplb"]);
  return facts;
}

}  // namespace cachalot::cli
