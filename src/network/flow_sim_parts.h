// The two halves of simulate_flows: what is simulated, and SimGrid itself.
//
// Threads: plain functions.
#pragma once

#include <span>
#include <vector>

namespace cachalot::network {

// A flow with its links numbered within the part.
struct PartFlow {
  std::vector<int> path;
  double bytes, latency;
  bool operator==(const PartFlow&) const = default;
};

struct FlowPart {
  std::vector<double> capacity;
  std::vector<PartFlow> flows;
  bool operator==(const FlowPart&) const = default;
};

// Runs SimGrid in this process: once per process, and only in a child. Writes one finish time per
// flow, in the order of the parts.
void run_simgrid(std::span<const FlowPart* const> parts, double precision, double* finish);

}  // namespace cachalot::network
