#include "cost/expert_traffic.h"

#include <algorithm>

#include "cost/routed_places.h"

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

ExpertPaths expert_paths(const Decoder& d, int nodes, int per_node) {
  ExpertPaths paths;
  if (d.expert_layers() == 0) return paths;
  const double topk = d.experts.topk;
  const double elsewhere = 1 - 1.0 / nodes, beside = 1 - 1.0 / per_node;
  paths.network_copies = topk * elsewhere;
  paths.own_node_copies = topk * (1 - elsewhere) * beside;
  const ForwardedCopies forwarded = forwarded_copies(d.experts.route(), nodes, per_node);
  paths.nodes = forwarded.network;
  paths.link_copies = forwarded.link;
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
