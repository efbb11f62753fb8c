#include "network/simulate.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "network/collectives.h"
#include "network/simulate_parts.h"

namespace cachalot::network {

namespace {

// What DeepEP's kernels reach inside one node (EP8, H800), copies to oneself counted as its
// figures count them: the engines that copy are what is short, and they copy those too.
constexpr double kDispatchNvlinkGbs = 153, kCombineNvlinkGbs = 158;
// And the low-latency ones, which send 128 tokens straight to each GPU.
constexpr double kDirectDispatchNvlinkGbs = 98, kDirectCombineNvlinkGbs = 127;
constexpr std::int64_t kMostFlows = 2'000'000;
constexpr std::int64_t kSprayedFlows =
    150'000;  // an automatic spray makes no more than about these
constexpr int kSpray = 8;

double bytes_of(const JobSpec& job) {
  return job.traffic == Traffic::kEpCombine ? job.combine_bytes : job.dispatch_bytes;
}

// Flows of all groups; returns what to add to each group's time.
double make_flows(const SimulateSpec& spec, const Fabric& fabric, Carrier& carrier,
                  const std::vector<Group>& groups, const std::vector<MoeCounts>& counts) {
  const JobSpec& job = spec.job;
  const int gpus = fabric.topology().spec.gpus_per_node;
  double extra = 0;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const int number = static_cast<int>(g);
    switch (job.traffic) {
      case Traffic::kEpDispatch:
      case Traffic::kEpCombine: {
        const MoeCounts& tokens = counts[g % counts.size()];
        const bool back = job.traffic == Traffic::kEpCombine;
        if (job.direct) {
          direct(carrier, tokens, groups[g], bytes_of(job), number, back);
        } else if (back) {
          combine(carrier, tokens, groups[g], bytes_of(job), number);
        } else {
          dispatch(carrier, tokens, groups[g], bytes_of(job), number);
        }
        break;
      }
      case Traffic::kAllToAll:
        all_to_all(carrier, groups[g], gpus, job.bytes, spec.cross_rail_in_node, 2 * number);
        break;
      case Traffic::kAllReduce:
      case Traffic::kAllGather:
      case Traffic::kReduceScatter: {
        const int passes = job.traffic == Traffic::kAllReduce ? 2 : 1;
        extra =
            std::max(extra, ring(carrier, fabric, groups[g], gpus, job.bytes, passes, 2 * number));
        break;
      }
      case Traffic::kPipeline:
        if (g + 1 < groups.size()) {
          pipeline_step(carrier, groups[g], groups[g + 1], job.bytes, 2 * number);
        }
        break;
    }
    if (carrier.count() > kMostFlows) {
      throw Error(Code::kUsage,
                  cat("this traffic makes more than ", kMostFlows, " flows (", g + 1, " of ",
                      groups.size(), " groups alone make ", carrier.count(),
                      "). Use a smaller --group, --one-group, fewer --endpoints, or --spray 1."));
    }
  }
  return extra;
}

// With so many flows that spraying each one would be too much, each is in fewer parts.
int choose_spray(const SimulateSpec& spec, const Topology& topology,
                 const std::vector<Group>& groups) {
  if (!is_sprayed(spec.routing)) return 1;
  if (spec.spray > 0) return spec.spray;
  const int gpus = topology.spec.gpus_per_node;
  std::int64_t wide = 0;  // flows between nodes under different leaves, about
  for (const Group& group : groups) {
    const bool pairs = is_moe(spec.job.traffic) || spec.job.traffic == Traffic::kAllToAll;
    for (std::size_t a = 0; a < group.size(); ++a) {
      for (std::size_t b = a % static_cast<std::size_t>(gpus); b < group.size();
           b += static_cast<std::size_t>(gpus)) {
        const bool neighbour = b == (a + static_cast<std::size_t>(gpus)) % group.size();
        if (!pairs && !neighbour) continue;
        wide += topology.attach[topology.port(group[a], 0)] !=
                topology.attach[topology.port(group[b], 0)];
      }
    }
  }
  return static_cast<int>(
      std::clamp<std::int64_t>(kSprayedFlows / std::max<std::int64_t>(wide, 1), 1, kSpray));
}

void find_busiest(const Fabric& fabric, const std::vector<Flow>& flows, SimulateResult& result) {
  std::vector<double>& seconds = result.link_seconds;
  seconds.assign(fabric.capacity().size(), 0);
  for (const Flow& flow : flows) {
    for (const int r : flow.path) {
      seconds[static_cast<std::size_t>(r)] +=
          flow.bytes / fabric.capacity()[static_cast<std::size_t>(r)];
    }
  }
  const auto first_trunk = static_cast<std::size_t>(4 * fabric.topology().endpoints());
  const auto first_port = first_trunk + 2 * fabric.topology().links.size();
  std::array<int, 3> best{-1, -1, -1};  // NVLink, NICs and their ports, trunks
  for (std::size_t r = 0; r < seconds.size(); ++r) {
    const bool nic = r < first_trunk ? r % 4 >= 2 : r >= first_port;
    int& at = best[nic ? 1 : r < first_trunk ? 0 : 2];
    if (at < 0 || seconds[r] > seconds[static_cast<std::size_t>(at)]) at = static_cast<int>(r);
  }
  for (const int r : best) {
    if (r < 0 || seconds[static_cast<std::size_t>(r)] <= 0) continue;
    result.busiest.push_back({fabric.name(r), seconds[static_cast<std::size_t>(r)]});
    result.bound_seconds = std::max(result.bound_seconds, seconds[static_cast<std::size_t>(r)]);
  }
  std::stable_sort(result.busiest.begin(), result.busiest.end(),
                   [](const Busy& a, const Busy& b) { return a.seconds > b.seconds; });
}

// When each group is done. In dispatch, what arrived last is still handed on; in combine, what
// was summed up last still crosses.
std::vector<double> group_ends(const SimulateSpec& spec, const Fabric& fabric,
                               const std::vector<Flow>& flows, const std::vector<double>& finish,
                               std::size_t groups) {
  std::vector<double> wire(groups), nvlink(groups), end(groups);
  for (std::size_t f = 0; f < flows.size(); ++f) {
    const auto g = static_cast<std::size_t>(flows[f].tag / 2);
    double& at = flows[f].tag % 2 == 0 ? wire[g] : nvlink[g];
    at = std::max(at, finish[f]);
  }
  const bool forwarded = is_moe(spec.job.traffic) && !spec.job.direct;
  for (std::size_t g = 0; g < groups; ++g) {
    if (forwarded && wire[g] > 0) {
      if (spec.job.traffic == Traffic::kEpDispatch) wire[g] += fabric.nvlink_latency();
      if (spec.job.traffic == Traffic::kEpCombine) nvlink[g] += fabric.wire_latency(1);
    }
    end[g] = std::max(wire[g], nvlink[g]);
  }
  return end;
}

void moe_bandwidth(const SimulateSpec& spec, const std::vector<MoeCounts>& counts,
                   const std::vector<double>& ends, const std::vector<char>& stopped,
                   SimulateResult& result) {
  double algorithm = 0, nvlink = 0, alive = 0;
  for (std::size_t g = 0; g < ends.size(); ++g) {
    if (stopped[g] || ends[g] <= 0) continue;
    const MoeCounts& tokens = counts[g % counts.size()];
    double by_node = 0, by_rank = 0;
    for (const std::int64_t n : tokens.to_node) by_node += static_cast<double>(n);
    for (const std::int64_t n : spec.job.direct ? tokens.pairs : tokens.to_rank) {
      by_rank += static_cast<double>(n);
    }
    const double scale = bytes_of(spec.job) / tokens.ranks / ends[g] / 1e9;
    algorithm += (spec.job.direct ? by_rank : by_node) * scale;
    nvlink += by_rank * scale;
    alive += 1;
  }
  if (alive == 0) return;
  result.algorithm_gbs = algorithm / alive;
  result.nvlink_gbs = nvlink / alive;
}

void collective_bandwidth(const JobSpec& job, std::size_t group, SimulateResult& result) {
  if (result.seconds <= 0) return;
  const auto n = static_cast<double>(group);
  result.algorithm_gbs = job.bytes / result.seconds / 1e9;
  const double passes = job.traffic == Traffic::kAllReduce ? 2 : 1;
  result.bus_gbs = job.traffic == Traffic::kPipeline ? result.algorithm_gbs
                                                     : result.algorithm_gbs * passes * (n - 1) / n;
}

// The slowest group and the mean of those that have something to send (the last stage of a pipeline
// has not) and can finish. Adds `extra` to the time of each.
void time_groups(std::vector<double>& ends, const std::vector<char>& stopped, double extra,
                 SimulateResult& result) {
  for (std::size_t g = 0; g < ends.size(); ++g) {
    if (stopped[g]) {
      ++result.stopped_groups;
    } else if (ends[g] > 0) {
      ends[g] += extra;
      result.seconds = std::max(result.seconds, ends[g]);
      result.mean_seconds += ends[g];
      ++result.timed_groups;
    }
  }
  if (result.timed_groups > 0) result.mean_seconds /= static_cast<double>(result.timed_groups);
}

// NVLink as experts' kernels reach it, unless a rate was given.
Rates rates_of(const SimulateSpec& spec) {
  Rates rates = spec.rates;
  if (spec.nvlink_given || !is_moe(spec.job.traffic)) return rates;
  const bool dispatch = spec.job.traffic == Traffic::kEpDispatch;
  if (spec.job.direct) {
    rates.nvlink_gbs = dispatch ? kDirectDispatchNvlinkGbs : kDirectCombineNvlinkGbs;
  } else {
    rates.nvlink_gbs = dispatch ? kDispatchNvlinkGbs : kCombineNvlinkGbs;
  }
  return rates;
}

}  // namespace

SimulateResult simulate(const Topology& topology, const SimulateSpec& spec) {
  if (!spec.cross_rail_in_node && topology.planes_apart()) {
    throw Error(
        Code::kUsage,
        "--cross-rail fabric: the planes of an mpft have no link between them; traffic for "
        "another plane must cross inside the node. Use --cross-rail node, --kind mrft, or NICs "
        "with a port in every plane (--nic-ports).");
  }
  SimulateResult result;
  result.damage = apply(topology, spec.faults, spec.seed);
  result.rates = rates_of(spec);
  const std::vector<Group> groups = groups_of(topology, spec.job);
  result.groups = static_cast<std::int64_t>(groups.size());
  result.group = static_cast<int>(groups[0].size());
  const Fabric fabric(topology, result.rates, result.damage);
  result.spray = choose_spray(spec, topology, groups);
  Router router(fabric, spec.routing, result.spray, spec.seed);
  Carrier carrier(fabric, router, spec.cross_rail_in_node);
  std::vector<MoeCounts> counts;
  if (is_moe(spec.job.traffic)) {
    counts =
        counts_of(spec.job, topology.spec.gpus_per_node, groups.size(), result.group, spec.seed);
  }
  const double extra = make_flows(spec, fabric, carrier, groups, counts);
  const std::vector<Flow>& flows = carrier.flows();
  result.flows = static_cast<std::int64_t>(flows.size());
  find_busiest(fabric, flows, result);
  result.run = simulate_flows(fabric.capacity(), flows, spec.options);

  std::vector<double> ends = group_ends(spec, fabric, flows, result.run.finish, groups.size());
  std::vector<char> stopped(groups.size());
  for (const int tag : carrier.lost_tags()) stopped[static_cast<std::size_t>(tag / 2)] = 1;
  time_groups(ends, stopped, extra, result);
  result.cut_off_gpus = static_cast<std::int64_t>(carrier.cut_off().size());
  result.relayed_gpus = result.damage.nics - result.cut_off_gpus;
  if (is_moe(spec.job.traffic)) {
    moe_bandwidth(spec, counts, ends, stopped, result);
  } else {
    collective_bandwidth(spec.job, groups[0].size(), result);
  }
  return result;
}

}  // namespace cachalot::network
