#include <algorithm>
#include <array>

#include "base/error.h"
#include "network/simulate.h"
#include "network/simulate_parts.h"

namespace cachalot::network {

namespace {

constexpr std::array<std::string_view, 7> kTraffic{"ep-dispatch", "ep-combine", "all-to-all",
                                                   "all-reduce",  "all-gather", "reduce-scatter",
                                                   "pipeline"};
constexpr std::array<std::string_view, 2> kPlacements{"contiguous", "strided"};

template <std::size_t N>
int choice(std::string_view flag, std::string_view word,
           const std::array<std::string_view, N>& names) {
  std::string all;
  for (std::size_t i = 0; i < N; ++i) {
    if (names[i] == word) return static_cast<int>(i);
    all += cat(i == 0 ? "" : ", ", names[i]);
  }
  const std::string near = nearest(word, names.data(), names.data() + N);
  throw Error(Code::kUsage, cat(flag, " ", word, ": must be one of ", all,
                                near.empty() ? "." : cat("; did you mean `", near, "`?")));
}

void check_trace(const RoutingTrace& trace, int ranks) {
  if (trace.ranks == ranks) return;
  throw Error(Code::kUsage, cat("the routing trace has ", trace.ranks, " ranks, and the group ",
                                ranks, " GPUs. Use --ep ", trace.ranks, "."));
}

// The last stage of a pipeline sends nothing, and one alone is the last.
void check_stages(const Topology& topology, const JobSpec& job, std::int64_t size,
                  std::int64_t count) {
  if (count < 2) {
    throw Error(Code::kUsage,
                cat("--traffic pipeline: stages of ", size, " GPUs make one of ",
                    topology.endpoints(), " endpoints, and it has none to send to. Use a smaller ",
                    "--ep, or more --endpoints."));
  }
  if (job.one_group) {
    throw Error(Code::kUsage,
                "--traffic pipeline: --one-group leaves one stage, and it has none to send to. "
                "Leave it out.");
  }
}

}  // namespace

std::string_view name(Traffic traffic) noexcept {
  return kTraffic[static_cast<std::size_t>(traffic)];
}
bool is_moe(Traffic traffic) noexcept {
  return traffic == Traffic::kEpDispatch || traffic == Traffic::kEpCombine;
}
Traffic parse_traffic(std::string_view word) {
  return static_cast<Traffic>(choice("--traffic", word, kTraffic));
}
std::string_view name(Placement placement) noexcept {
  return kPlacements[static_cast<std::size_t>(placement)];
}
Placement parse_placement(std::string_view word) {
  return static_cast<Placement>(choice("--placement", word, kPlacements));
}

std::vector<MoeCounts> counts_of(const JobSpec& job, int gpus_per_node, std::size_t groups,
                                 int ranks, std::uint64_t seed) {
  std::vector<MoeCounts> counts;
  if (job.trace) {
    check_trace(*job.trace, ranks);
    counts.push_back(count_tokens(job.exchange ? only(*job.trace, *job.exchange) : *job.trace,
                                  gpus_per_node, job.slots));
    return counts;
  }
  SyntheticRouting draw = synthetic_routing(job, gpus_per_node, ranks, seed);
  const std::size_t sets = std::min(groups, static_cast<std::size_t>(std::max(job.token_sets, 1)));
  for (draw.set = 0; draw.set < sets; ++draw.set) {
    counts.push_back(count_tokens(draw, gpus_per_node, job.slots));
    if (job.even) even_out(counts.back());
  }
  return counts;
}

SyntheticRouting synthetic_routing(const JobSpec& job, int gpus_per_node, int ranks,
                                   std::uint64_t seed) {
  SyntheticRouting draw;
  draw.ranks = ranks;
  draw.experts = job.experts;
  draw.topk = job.topk;
  draw.groups = (ranks + gpus_per_node - 1) / gpus_per_node;
  draw.group_limit = job.node_limit;
  // With no limit on nodes it is the same to a token where they end, and experts need not divide
  // by them: the published decoding has 256 on 18 nodes.
  if (job.node_limit >= draw.groups) draw.groups = draw.group_limit = 1;
  draw.tokens_per_rank = job.tokens;
  draw.skew = job.skew;
  draw.seed = seed;
  return draw;
}

std::vector<double> expert_loads(const Topology& topology, const SimulateSpec& spec) {
  const auto ranks = static_cast<int>(groups_of(topology, spec.job)[0].size());
  if (spec.job.trace) {
    check_trace(*spec.job.trace, ranks);
    return expert_loads(*spec.job.trace);
  }
  SyntheticRouting draw =
      synthetic_routing(spec.job, topology.spec.gpus_per_node, ranks, spec.seed);
  draw.set = static_cast<std::uint64_t>(std::max(spec.job.token_sets, 1));  // none of those sent
  return expert_loads(draw);
}

std::vector<Group> groups_of(const Topology& topology, const JobSpec& job) {
  const int gpus = topology.spec.gpus_per_node;
  if (topology.endpoints() % gpus != 0) {
    throw Error(Code::kUsage,
                cat("--endpoints ", topology.endpoints(), ": traffic needs whole nodes of ", gpus,
                    " GPUs. Use ", topology.endpoints() / gpus * gpus, " or ",
                    (topology.endpoints() / gpus + 1) * gpus, "."));
  }
  const std::int64_t size = job.group == 0 ? topology.endpoints() : job.group;
  if (size > topology.endpoints()) {
    throw Error(Code::kUsage, cat("a group of ", size, " GPUs does not fit into a network of ",
                                  topology.endpoints(), " endpoints: ", size - topology.endpoints(),
                                  " too many. Use a smaller group or more ", "--endpoints."));
  }
  if (size < 2 || (size > gpus ? size % gpus != 0 : gpus % size != 0)) {
    throw Error(Code::kUsage, cat("a group of ", size, " GPUs: it must be whole nodes of ", gpus,
                                  " GPUs, or divide one. Use a multiple of ", gpus, "."));
  }
  const std::int64_t count = topology.endpoints() / size;
  if (job.traffic == Traffic::kPipeline) check_stages(topology, job, size, count);
  std::vector<Group> groups;
  for (std::int64_t g = 0; g < (job.one_group ? 1 : count); ++g) {
    Group group;
    for (std::int64_t r = 0; r < size; ++r) {
      const std::int64_t node = r / gpus;
      const bool strided = job.placement == Placement::kStrided && size > gpus;
      const std::int64_t at = strided ? (g + node * count) * gpus + r % gpus : g * size + r;
      group.push_back(static_cast<int>(at));
    }
    groups.push_back(std::move(group));
  }
  return groups;
}

}  // namespace cachalot::network
