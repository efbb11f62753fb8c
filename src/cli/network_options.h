// The flags that the commands of `cachalot network` share.
#pragma once

#include <string>

#include "cli/command.h"
#include "cli/output.h"
#include "network/prices.h"
#include "network/simulate.h"
#include "network/topology.h"

namespace cachalot::cli {

struct NetworkOptions {
  std::string kind = "mpft";
  int ports = 64, planes = 8, nic_ports = 1, gpus_per_node = 8, groups = 0, q = 0;
  std::int64_t endpoints = 0;
  network::TopologySpec spec() const;
};
void add_network_flags(CLI::App& command, NetworkOptions& options, bool with_kind = true);

struct RateOptions {
  std::string wire = "infiniband";
  double nic_gbs = 40, link_gbs = 0, nvlink_gbs = 0;
  network::Rates rates(int nic_ports = 1) const;
};
void add_rate_flags(CLI::App& command, RateOptions& options);

struct JobOptions {
  std::string traffic = "ep-dispatch", placement = "contiguous", trace, slots;
  int group = 64, tokens = 4096, hidden = 7168, experts = 256, topk = 8, node_limit = 4;
  int token_sets = 2;
  int trace_layer = -1;
  std::int64_t trace_pass = -1;
  double skew = 0, bytes = 1 << 30;
  bool one_group = false, direct = false, even = false;
  network::JobSpec job() const;
};
void add_job_flags(CLI::App& command, JobOptions& options);

struct RouteOptions {
  std::string routing = "adaptive", cross_rail = "node";
  int spray = 0;
  std::uint64_t seed = 1;
  double merge = 0.001;
};
void add_route_flags(CLI::App& command, RouteOptions& options);

// From all of them; `threads` 0 takes one process per core.
network::SimulateSpec simulate_spec(const NetworkOptions& network, const RateOptions& rates,
                                    const JobOptions& job, const RouteOptions& route, int threads);

// DeepEP's bytes of one token: FP8 with a float scale for every 128 values, and BF16.
double dispatch_bytes(int hidden);
double combine_bytes(int hidden);

network::Prices prices_of(const std::string& file);  // empty: the built-in ones
std::string human_seconds(double seconds);           // "2.31 ms"

// A time or bandwidth of a simulation as it stands in JSON: null where no group can finish.
Json if_finished(const network::SimulateResult& result, double value);
std::string seconds_text(const Json& seconds);  // "-" for null

}  // namespace cachalot::cli
