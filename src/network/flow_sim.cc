#include "network/flow_sim.h"

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstring>
#include <limits>
#include <numeric>
#include <unordered_map>

#include "base/error.h"
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

// Memory that children write and the parent reads: results, and for each child a few words on what
// went wrong.
class Shared {
 public:
  static constexpr std::size_t kWords = 512;

  Shared(std::size_t results, std::size_t children)
      : results_(results), bytes_(results * sizeof(double) + children * kWords + 1) {
    void* const at =
        mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) {
      throw Error(Code::kIo,
                  cat("simulation: no memory for ", results, " results: ", std::strerror(errno)));
    }
    data_ = static_cast<double*>(at);
    std::fill_n(data_, results, std::numeric_limits<double>::quiet_NaN());
  }
  ~Shared() { munmap(data_, bytes_); }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;
  double* results() noexcept { return data_; }
  char* words(std::size_t child) noexcept {  // the mapping is zero where nothing was written
    return reinterpret_cast<char*>(data_ + results_) + child * kWords;
  }

 private:
  std::size_t results_, bytes_;
  double* data_;
};

// One child's work: some parts, and where their results begin.
struct Job {
  std::vector<const FlowPart*> parts;
  std::vector<std::size_t> numbers;
  std::size_t flows = 0, offset = 0;
};

// Parts to jobs, the largest first, each to the job with the fewest flows.
std::vector<Job> deal(const std::vector<FlowPart>& parts, const std::vector<std::size_t>& first,
                      int jobs) {
  std::vector<std::size_t> order;
  for (std::size_t p = 0; p < parts.size(); ++p) {
    if (first[p] == p) order.push_back(p);
  }
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return parts[a].flows.size() > parts[b].flows.size();
  });
  std::vector<Job> dealt(
      std::min<std::size_t>(static_cast<std::size_t>(std::max(jobs, 1)), order.size()));
  for (const std::size_t p : order) {
    Job& job = *std::min_element(dealt.begin(), dealt.end(),
                                 [](const Job& a, const Job& b) { return a.flows < b.flows; });
    job.parts.push_back(&parts[p]);
    job.numbers.push_back(p);
    job.flows += parts[p].flows.size();
  }
  std::size_t offset = 0;
  for (Job& job : dealt) {
    job.offset = offset;
    offset += job.flows;
  }
  return dealt;
}

pid_t start(const Job& job, double precision, double* results, char* words) {
  const pid_t child = fork();
  if (child < 0) {
    throw Error(Code::kIo, cat("simulation: cannot start a process: ", std::strerror(errno)));
  }
  if (child > 0) return child;
  prctl(PR_SET_PDEATHSIG, SIGKILL);  // whoever waits for the result is gone: so is the work
  // No destructors at the end: SimGrid's take longer than its work, and nothing here is shared. No
  // exception leaves either: the caller's stack belongs to the parent.
  try {
    run_simgrid(job.parts, precision, results + job.offset);
    _exit(0);
  } catch (const std::exception& e) {
    std::strncpy(words, e.what(), Shared::kWords - 1);
  } catch (...) {
    std::strncpy(words, "an unknown exception", Shared::kWords - 1);
  }
  _exit(1);
}

// Waits for all, so that none is left behind when one failed.
double wait_for(const std::vector<pid_t>& children, Shared& shared) {
  double peak = 0;
  std::string trouble;
  for (std::size_t c = 0; c < children.size(); ++c) {
    int status = 0;
    rusage usage{};
    while (wait4(children[c], &status, 0, &usage) < 0 && errno == EINTR) {
    }
    peak = std::max(peak, 1024.0 * static_cast<double>(usage.ru_maxrss));
    if (WIFSIGNALED(status)) trouble = cat("signal ", WTERMSIG(status));
    if (WIFEXITED(status) && WEXITSTATUS(status) != 0) {
      trouble = cat("status ", WEXITSTATUS(status), ": ", shared.words(c));
    }
  }
  if (!trouble.empty()) {
    throw Error(
        Code::kInternal,
        cat("SimGrid's process ended with ", trouble,
            ". If the machine ran out of memory, simulate fewer endpoints or less --spray."));
  }
  return peak;
}

}  // namespace

SimulationResult simulate_flows(std::span<const double> capacity, std::span<const Flow> flows,
                                const SimulationOptions& options) {
  check(capacity, flows);
  SimulationResult result;
  result.finish.resize(flows.size());
  if (flows.empty()) return result;
  const Split apart = split(capacity, flows);
  const std::vector<std::size_t> first = firsts_of(apart.parts);
  const std::vector<Job> jobs = deal(apart.parts, first, options.processes);

  const double precision = std::max(1e-9, options.merge * busiest_seconds(capacity, flows));
  std::size_t total = 0;
  for (const Job& job : jobs) total += job.flows;
  Shared shared(total, jobs.size());
  std::vector<pid_t> children;
  children.reserve(jobs.size());
  for (std::size_t j = 0; j < jobs.size(); ++j) {
    children.push_back(start(jobs[j], precision, shared.results(), shared.words(j)));
  }
  result.peak_bytes = wait_for(children, shared);

  std::vector<const double*> of_part(apart.parts.size());
  for (const Job& job : jobs) {
    const double* at = shared.results() + job.offset;
    for (const std::size_t p : job.numbers) {
      of_part[p] = at;
      at += apart.parts[p].flows.size();
    }
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
  result.distinct_flows = static_cast<std::int64_t>(total);
  return result;
}

}  // namespace cachalot::network
