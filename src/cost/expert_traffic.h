// What expert parallelism sends: each token's hidden state to the devices of its experts (dispatch)
// and their results back (combine), in every layer with experts.
//
// Threads: pure functions.
// Errors:  none.
// Paper:   "Insights into DeepSeek-V3" 2.3.2 (the bound on the time per output token), 4.3 (a token
//          goes once to each node, and on by NVLink); V3 report 3.2.2, 3.4.
#pragma once

#include "cost/decoder.h"

namespace cachalot::cost {

// Bytes of one number: FP8 there, BF16 back. Scales are not counted.
struct ExpertMessage {
  double dispatch_bytes = 1;
  double combine_bytes = 2;
};

// One all-to-all pair of a layer, one expert (or few) per device, every copy of a token sent on its
// own: seconds for `tokens` of each device to `destinations` experts each.
double all_to_all_seconds(double tokens, double destinations, double hidden,
                          const ExpertMessage& message, double bytes_per_second);

// The same for all layers: what bounds the time per output token where communication is all there
// is, two micro-batches of `tokens` hiding each other's computation behind it.
double bound_per_output_token(double tokens, double destinations, double hidden, int layers,
                              const ExpertMessage& message, double bytes_per_second,
                              int micro_batches = 2);

// Where the copies of a token go, experts spread evenly over `nodes` of `per_node` devices each.
struct ExpertPaths {
  // Means per token and layer.
  // A copy for each expert, also where two lie on one device ("Insights" 2.3.2 counts them so):
  // through the network, and to other devices of the sender's node.
  double network_copies = 0;
  double own_node_copies = 0;
  // One copy to each node, to the device with the sender's number, which hands one on to each
  // device that holds any of its experts (ForwardedCopies, as in training).
  double nodes = 0;        // others that hold one of the token's experts
  double link_copies = 0;  // handed on inside a node
};
// All scores are taken as equally likely (routed_places.h).
ExpertPaths expert_paths(const Decoder& decoder, int nodes, int per_node);

// Seconds of dispatch and combine of `tokens` of each device in one layer, latencies included.
struct ExpertLinks {
  double network = 0;  // bytes per second of one device's share of the network; 0: one node
  double network_latency = 0;
  double link = 0;  // bytes per second inside the node
  double link_latency = 0;
};
// Straight to the device of the expert, as in decoding; inside the node by its link.
double direct_seconds(const ExpertPaths& paths, double tokens, double hidden,
                      const ExpertMessage& message, const ExpertLinks& links);
// Once per node and on by the node's link, both at the same time, as in training and prefill.
double forwarded_seconds(const ExpertPaths& paths, double tokens, double hidden,
                         const ExpertMessage& message, const ExpertLinks& links);

}  // namespace cachalot::cost
