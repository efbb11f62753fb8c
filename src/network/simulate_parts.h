// What simulate.cc takes of a job (simulate_job.cc).
//
// Threads: pure functions.
// Errors:  kUsage, as simulate() says.
#pragma once

#include <vector>

#include "network/simulate.h"

namespace cachalot::network {

// Tokens' ways of each set that is drawn, which groups take in turn, or those of the trace.
std::vector<MoeCounts> counts_of(const JobSpec& job, int gpus_per_node, std::size_t groups,
                                 int ranks, std::uint64_t seed);

}  // namespace cachalot::network
