#include "cost/expert_traffic.h"

#include <algorithm>
#include <cmath>

namespace cachalot::cost {

double all_to_all_seconds(double tokens, double destinations, double hidden,
                          const ExpertMessage& message, double bytes_per_second) {
  return (message.dispatch_bytes + message.combine_bytes) * tokens * destinations * hidden /
         bytes_per_second;
}

double bound_per_output_token(double tokens, double destinations, double hidden, int layers,
                              const ExpertMessage& message, double bytes_per_second,
                              int micro_batches) {
  return layers * micro_batches *
         all_to_all_seconds(tokens, destinations, hidden, message, bytes_per_second);
}

namespace {

// The chance that `drawn` of `all` things hold exactly `wanted` of the `marked` ones.
double hypergeometric(int all, int marked, int drawn, int wanted) {
  if (wanted > marked || drawn - wanted > all - marked) return 0;
  const auto log_choose = [](int n, int k) {
    return std::lgamma(n + 1.0) - std::lgamma(k + 1.0) - std::lgamma(n - k + 1.0);
  };
  return std::exp(log_choose(marked, wanted) + log_choose(all - marked, drawn - wanted) -
                  log_choose(all, drawn));
}

// How many of `nodes` hold one of a token's experts, on average.
double nodes_of_a_token(const ExpertLayers& e, int nodes) {
  const double all = nodes;
  const auto distinct = [&](double candidates) {
    return candidates * (1 - std::pow(1 - 1 / candidates, e.topk));
  };
  if (e.groups <= 1 || e.topk_groups >= e.groups) return distinct(all);
  // A group over several nodes: those of the token's groups are all as likely.
  if (nodes >= e.groups) return distinct(all * e.topk_groups / e.groups);
  // Several groups on a node: it is missed if no expert falls into those that the token may use.
  const int here = std::max(1, e.groups / nodes);
  double missed = 0;
  for (int c = 0; c <= std::min(here, e.topk_groups); ++c) {
    missed += hypergeometric(e.groups, here, e.topk_groups, c) *
              std::pow(1 - static_cast<double>(c) / e.topk_groups, e.topk);
  }
  return all * (1 - missed);
}

}  // namespace

ExpertPaths expert_paths(const Decoder& d, int nodes, int per_node) {
  ExpertPaths paths;
  if (d.expert_layers() == 0) return paths;
  const double topk = d.experts.topk;
  const double elsewhere = 1 - 1.0 / nodes, beside = 1 - 1.0 / per_node;
  paths.network_copies = topk * elsewhere;
  paths.own_node_copies = topk * (1 - elsewhere) * beside;
  paths.nodes = nodes_of_a_token(d.experts, nodes) * elsewhere;
  paths.link_copies = topk * beside;
  return paths;
}

namespace {

double path_seconds(double copies, double tokens, double hidden, const ExpertMessage& message,
                    double rate, double latency) {
  if (copies <= 0 || rate <= 0) return 0;
  return all_to_all_seconds(tokens, copies, hidden, message, rate) + 2 * latency;
}

}  // namespace

double direct_seconds(const ExpertPaths& paths, double tokens, double hidden,
                      const ExpertMessage& message, const ExpertLinks& l) {
  return std::max(
      path_seconds(paths.network_copies, tokens, hidden, message, l.network, l.network_latency),
      path_seconds(paths.own_node_copies, tokens, hidden, message, l.link, l.link_latency));
}

double forwarded_seconds(const ExpertPaths& paths, double tokens, double hidden,
                         const ExpertMessage& message, const ExpertLinks& l) {
  return std::max(path_seconds(paths.nodes, tokens, hidden, message, l.network, l.network_latency),
                  path_seconds(paths.link_copies, tokens, hidden, message, l.link, l.link_latency));
}

}  // namespace cachalot::cost
