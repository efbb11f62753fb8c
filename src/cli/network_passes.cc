#include "cli/network_passes.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "base/error.h"

namespace cachalot::cli {

namespace {

// The nearest rank: the first of the sorted values that so many percent of them do not exceed.
Json percentile(const std::vector<double>& sorted, std::size_t percent) {
  if (sorted.empty()) return nullptr;
  return sorted[(percent * sorted.size() + 99) / 100 - 1];
}

}  // namespace

Json simulate_every_pass(const network::Topology& topology, network::SimulateSpec spec) {
  if (!network::is_moe(spec.job.traffic) || !spec.job.trace || spec.job.trace->exchanges.empty()) {
    throw Error(Code::kUsage,
                "--every-pass simulates the passes of a routing trace one after the other, and "
                "there are none. Give --trace a file of `generate`, `chat` or `bench serve`, and "
                "--traffic ep-dispatch or ep-combine.");
  }
  const std::vector<network::RoutingExchange> exchanges = spec.job.trace->exchanges;
  std::vector<double> seconds;
  std::int64_t tokens = 0, stopped = 0;
  for (const network::RoutingExchange& exchange : exchanges) {
    spec.job.exchange = exchange;
    const network::SimulateResult r = network::simulate(topology, spec);
    if (r.finishes()) seconds.push_back(r.seconds);
    tokens += exchange.tokens();
    stopped += r.stopped_groups > 0 ? 1 : 0;
  }
  std::sort(seconds.begin(), seconds.end());
  const auto of_some = [&](double value) { return seconds.empty() ? Json() : Json(value); };
  const double sum = std::accumulate(seconds.begin(), seconds.end(), 0.0);
  return {{"exchanges", exchanges.size()},
          {"tokens", tokens},
          {"seconds", of_some(sum)},
          {"mean_seconds", of_some(sum / std::max(1.0, static_cast<double>(seconds.size())))},
          {"p50_seconds", percentile(seconds, 50)},
          {"p99_seconds", percentile(seconds, 99)},
          {"longest_seconds", percentile(seconds, 100)},
          {"stopped_exchanges", stopped}};
}

}  // namespace cachalot::cli
