#include "network/flow_sim.h"

#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <string>
#include <unordered_map>

#include "base/error.h"
#include "base/processes.h"
#include "network/flow_sim_parts.h"

namespace cachalot::network {

namespace {

// Which flows share something, by union of the links each one joins.
class Groups {
 public:
  explicit Groups(std::size_t n) : parent_(n) {
    std::iota(parent_.begin(), parent_.end(), std::size_t{0});
  }
  std::size_t find(std::size_t x) {
    while (parent_[x] != x) x = parent_[x] = parent_[parent_[x]];
    return x;
  }
  void join(std::size_t a, std::size_t b) { parent_[find(a)] = find(b); }

 private:
  std::vector<std::size_t> parent_;
};

struct Split {
  std::vector<FlowPart> parts;
  std::vector<std::vector<std::size_t>> members;  // flow numbers of each part
};

void check(std::span<const double> capacity, std::span<const Flow> flows) {
  for (const Flow& flow : flows) {
    if (flow.path.empty() || !(flow.bytes >= 0) || !std::isfinite(flow.bytes) ||
        !(flow.latency >= 0) || !std::isfinite(flow.latency)) {
      throw Error(Code::kUsage,
                  cat("a flow of ", flow.bytes, " bytes with a latency of ", flow.latency,
                      " s over ", flow.path.size(), " links cannot be simulated."));
    }
    for (const int link : flow.path) {
      if (link < 0 || static_cast<std::size_t>(link) >= capacity.size() ||
          !(capacity[static_cast<std::size_t>(link)] > 0)) {
        throw Error(Code::kUsage,
                    cat("a flow goes over link ", link, ", which is down. Route it around."));
      }
    }
  }
}

// No link can be through its bytes sooner.
double busiest_seconds(std::span<const double> capacity, std::span<const Flow> flows) {
  std::vector<double> bytes(capacity.size());
  double longest = 0;
  for (const Flow& flow : flows) {
    for (const int link : flow.path) {
      const auto l = static_cast<std::size_t>(link);
      bytes[l] += flow.bytes;
      longest = std::max(longest, bytes[l] / capacity[l]);
    }
  }
  return longest;
}

Split split(std::span<const double> capacity, std::span<const Flow> flows) {
  Groups groups(capacity.size());
  for (const Flow& flow : flows) {
    for (const int link : flow.path) {
      groups.join(static_cast<std::size_t>(flow.path[0]), static_cast<std::size_t>(link));
    }
  }
  Split result;
  std::vector<int> part_of(capacity.size(), -1), local(capacity.size(), -1);
  for (std::size_t f = 0; f < flows.size(); ++f) {
    int& part = part_of[groups.find(static_cast<std::size_t>(flows[f].path[0]))];
    if (part < 0) {
      part = static_cast<int>(result.parts.size());
      result.parts.emplace_back();
      result.members.emplace_back();
    }
    FlowPart& into = result.parts[static_cast<std::size_t>(part)];
    PartFlow flow{{}, std::max(1.0, std::round(flows[f].bytes)), flows[f].latency};
    for (const int link : flows[f].path) {
      int& name = local[static_cast<std::size_t>(link)];
      if (name < 0) {
        name = static_cast<int>(into.capacity.size());
        into.capacity.push_back(capacity[static_cast<std::size_t>(link)]);
      }
      flow.path.push_back(name);
    }
    into.flows.push_back(std::move(flow));
    result.members[static_cast<std::size_t>(part)].push_back(f);
  }
  return result;
}

std::size_t hash_of(const FlowPart& part) {
  std::uint64_t hash = 14695981039346656037ull;
  const auto mix = [&hash](const auto& value) {
    unsigned char bytes[sizeof value];
    std::memcpy(bytes, &value, sizeof value);
    for (const unsigned char b : bytes) hash = (hash ^ b) * 1099511628211ull;
  };
  for (const double c : part.capacity) mix(c);
  for (const PartFlow& flow : part.flows) {
    mix(flow.bytes);
    for (const int link : flow.path) mix(link);
  }
  return hash;
}

// For each part, the first one equal to it.
std::vector<std::size_t> firsts_of(const std::vector<FlowPart>& parts) {
  std::unordered_multimap<std::size_t, std::size_t> seen;
  std::vector<std::size_t> first(parts.size());
  for (std::size_t p = 0; p < parts.size(); ++p) {
    first[p] = p;
    const std::size_t hash = hash_of(parts[p]);
    const auto [begin, end] = seen.equal_range(hash);
    for (auto at = begin; at != end; ++at) {
      if (parts[at->second] == parts[p]) first[p] = at->second;
    }
    if (first[p] == p) seen.emplace(hash, p);
  }
  return first;
}

// Parts that one process simulates. Ends merge across all parts of an engine, so which parts are
// together must not depend on how many processes there are: the largest first, a few small ones
// until they are worth an engine's start.
struct Job {
  std::vector<const FlowPart*> parts;
  std::vector<std::size_t> numbers;
  std::size_t flows = 0;
};
constexpr std::size_t kFlowsOfAJob = 1024;

std::vector<Job> jobs_of(const std::vector<FlowPart>& parts,
                         const std::vector<std::size_t>& first) {
  std::vector<std::size_t> order;
  for (std::size_t p = 0; p < parts.size(); ++p) {
    if (first[p] == p) order.push_back(p);
  }
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return parts[a].flows.size() > parts[b].flows.size();
  });
  std::vector<Job> jobs;
  for (const std::size_t p : order) {
    if (jobs.empty() || jobs.back().flows >= kFlowsOfAJob) jobs.emplace_back();
    jobs.back().parts.push_back(&parts[p]);
    jobs.back().numbers.push_back(p);
    jobs.back().flows += parts[p].flows.size();
  }
  return jobs;
}

// A job's finish times, flow by flow, and the bytes that its process took at most.
std::vector<double> run_job(const Job& job, double precision) {
  std::vector<double> numbers(job.flows + 1, std::numeric_limits<double>::quiet_NaN());
  run_simgrid(job.parts, precision, numbers.data());
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  numbers.back() = 1024.0 * static_cast<double>(usage.ru_maxrss);
  return numbers;
}

// All jobs, each in a process of its own.
std::vector<std::vector<double>> run_jobs(const std::vector<Job>& jobs, double precision,
                                          int processes) {
  std::vector<std::vector<double>> results;
  try {
    const std::vector<std::string> texts = in_processes(jobs.size(), processes, [&](std::size_t j) {
      const std::vector<double> numbers = run_job(jobs[j], precision);
      return std::string(reinterpret_cast<const char*>(numbers.data()),
                         numbers.size() * sizeof(double));
    });
    for (std::size_t j = 0; j < jobs.size(); ++j) {
      results.emplace_back(texts[j].size() / sizeof(double));
      std::memcpy(results[j].data(), texts[j].data(), results[j].size() * sizeof(double));
    }
  } catch (const Error& e) {
    throw Error(e.code(), cat("SimGrid: ", e.what(),
                              " Or simulate fewer endpoints, or less "
                              "--spray."));
  }
  return results;
}

}  // namespace

SimulationResult simulate_flows(std::span<const double> capacity, std::span<const Flow> flows,
                                const SimulationOptions& options) {
  check(capacity, flows);
  if (!(options.merge >= 0 && options.merge < 1)) {
    throw Error(Code::kUsage, cat("--merge ", options.merge, ": must be 0 (exact) to 0.1."));
  }
  SimulationResult result;
  result.finish.resize(flows.size());
  if (flows.empty()) return result;
  const Split apart = split(capacity, flows);
  const std::vector<std::size_t> first = firsts_of(apart.parts);
  const std::vector<Job> jobs = jobs_of(apart.parts, first);
  const double precision = std::max(1e-9, options.merge * busiest_seconds(capacity, flows));
  const std::vector<std::vector<double>> results = run_jobs(jobs, precision, options.processes);

  std::vector<const double*> of_part(apart.parts.size());
  for (std::size_t j = 0; j < jobs.size(); ++j) {
    const double* at = results[j].data();
    for (const std::size_t p : jobs[j].numbers) {
      of_part[p] = at;
      at += apart.parts[p].flows.size();
    }
    result.distinct_flows += static_cast<std::int64_t>(jobs[j].flows);
    result.peak_bytes = std::max(result.peak_bytes, results[j].back());
  }
  for (std::size_t p = 0; p < apart.parts.size(); ++p) {
    const auto& members = apart.members[p];
    for (std::size_t i = 0; i < members.size(); ++i) {
      const double at = of_part[first[p]][i];
      if (std::isnan(at)) throw Error(Code::kInternal, "SimGrid left a flow unfinished");
      result.finish[members[i]] = at;
    }
  }
  result.parts = static_cast<std::int64_t>(apart.parts.size());
  for (std::size_t p = 0; p < first.size(); ++p) result.distinct_parts += first[p] == p;
  return result;
}

}  // namespace cachalot::network
