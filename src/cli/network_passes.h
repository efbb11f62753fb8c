// --every-pass: each exchange of a routing trace simulated by itself, as they followed one another.
//
// Threads: forks (network/flow_sim.h); one call at a time.
// Errors:  kUsage where the trace has no passes; those of network::simulate.
#pragma once

#include "cli/output.h"
#include "network/simulate.h"

namespace cachalot::cli {

// Their number, tokens, and times: in sum, on average, the median, the 99th percentile, the
// longest; of those that can finish, null where none can.
Json simulate_every_pass(const network::Topology& topology, network::SimulateSpec spec);

}  // namespace cachalot::cli
