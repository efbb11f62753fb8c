#include "cli/network_passes.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "base/error.h"

namespace cachalot::cli {

Json simulate_every_pass(const network::Topology& topology, network::SimulateSpec spec) {
  const bool moe = spec.job.traffic == network::Traffic::kEpDispatch ||
                   spec.job.traffic == network::Traffic::kEpCombine;
  if (!moe || !spec.job.trace || spec.job.trace->exchanges.empty()) {
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
    seconds.push_back(r.seconds);
    tokens += exchange.tokens();
    stopped += r.stopped_groups > 0 ? 1 : 0;
  }
  const double sum = std::accumulate(seconds.begin(), seconds.end(), 0.0);
  std::sort(seconds.begin(), seconds.end());
  const auto at = [&](double p) {
    return seconds[static_cast<std::size_t>(p * static_cast<double>(seconds.size() - 1))];
  };
  return {{"exchanges", seconds.size()},
          {"tokens", tokens},
          {"seconds", sum},
          {"mean_seconds", sum / static_cast<double>(seconds.size())},
          {"p50_seconds", at(0.5)},
          {"p99_seconds", at(0.99)},
          {"longest_seconds", seconds.back()},
          {"stopped_exchanges", stopped}};
}

}  // namespace cachalot::cli
