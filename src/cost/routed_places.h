// On how many places (nodes, or devices) a token's experts lie.
//
// Threads: any; what was drawn once is kept for all.
// Errors:  none.
// Paper:   V3 report 2.1.2 (node-limited routing: the groups with the largest sums of their two
//          best scores), V2 report 2.2.2 (the groups with the best scores); V3 report 3.2.2 and
//          "Insights into DeepSeek-V3" 4.3 (a token goes once to each node and on by NVLink).
#pragma once

#include "model/config.h"

namespace cachalot::cost {

// The mean over tokens, all scores as likely; experts lie on the places in equal runs, in their
// order. With groups by drawing 16,384 tokens with a fixed seed (a standard error below 0.01 places
// for V3), else in closed form. Fewer places than one, or no experts: 0.
double routed_places(const RouteConfig& route, int places);

// What a token sends where it goes once to each node that holds one of its experts, to the device
// with the sender's number, and from there once to each device that holds one: training and
// prefill. Two experts of one device get one copy of it. Means per token and layer.
struct ForwardedCopies {
  double nodes = 0;    // with one of its experts, the sender's too
  double devices = 0;  // likewise
  double network = 0;  // copies to other nodes
  double link = 0;     // copies to other devices of the node that the token has come to
};
// Experts lie in equal runs on `nodes` of `per_node` devices each.
ForwardedCopies forwarded_copies(const RouteConfig& route, int nodes, int per_node);

}  // namespace cachalot::cost
