// Flows through SimGrid: when does each finish, if all share links as max-min fairness says?
//
// Model: SimGrid's CM02 with all factors at 1 and no TCP window, so that a flow's rate is bound
// by its links alone; every flow on a saturated link gets the same share of it. A flow starts after
// its latency and ends when its bytes are through. One star zone holds all: each distinct path is a
// host whose way up is that path, so the routes are ours and SimGrid computes the sharing and the
// time.
//
// Flows that share no link, directly or through others, do not touch each other: such parts are
// simulated apart, and a part that equals another one (same paths up to names, same capacities,
// same bytes) only once. Both are exact.
//
// SimGrid's engine exists once in a process and prints and aborts as it likes, so each run
// happens in a child process; as many children as `processes` at once. Results do not depend on
// how many.
//
// Threads: may be called from one thread at a time.
// Errors:  kUsage for a flow that needs a link that is down; kInternal where SimGrid gave up.
// Paper:   Casanova et al., SimGrid (JPDC 2014); Velho et al. (TOMACS 2013) for the flow model.
#pragma once

#include <span>
#include <vector>

#include "network/carrier.h"

namespace cachalot::network {

struct SimulationOptions {
  int processes = 2;
  // Flows that end within this share of the whole time (the busiest link's, at its full rate) end
  // together: SimGrid's timing precision. What such a flow had left is dropped, so a link's work is
  // short by at most about this share times the logarithm of its flows. 0: exact to a nanosecond.
  double merge = 0;
};

struct SimulationResult {
  std::vector<double> finish;       // [flows] seconds
  std::int64_t parts = 0;           // that share nothing
  std::int64_t distinct_parts = 0;  // simulated
  std::int64_t distinct_flows = 0;  // simulated
  double peak_bytes = 0;            // of the largest child process
};

SimulationResult simulate_flows(std::span<const double> capacity, std::span<const Flow> flows,
                                const SimulationOptions& options);

}  // namespace cachalot::network
