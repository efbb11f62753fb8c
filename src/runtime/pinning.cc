#include "runtime/pinning.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>

#include "base/error.h"

namespace cachalot::runtime {

namespace {

// Takes from each list in turn what is left of it.
std::vector<int> in_turns(const std::vector<std::vector<int>>& lists) {
  std::vector<int> all;
  for (std::size_t i = 0;; ++i) {
    const std::size_t before = all.size();
    for (const std::vector<int>& list : lists) {
      if (i < list.size()) all.push_back(list[i]);
    }
    if (all.size() == before) return all;
  }
}

// Indices of cores, in the order in which threads take them.
std::vector<int> spread(const Topology& topology) {
  std::map<int, std::map<int, std::vector<int>>> cores;  // by node, then last cache
  for (std::size_t i = 0; i < topology.cores.size(); ++i) {
    const PhysicalCore& c = topology.cores[i];
    cores[c.node][c.last_cache].push_back(static_cast<int>(i));
  }
  std::vector<std::vector<int>> nodes;
  for (const auto& [node, caches] : cores) {
    std::vector<std::vector<int>> lists;
    for (const auto& [cache, list] : caches) lists.push_back(list);
    nodes.push_back(in_turns(lists));
  }
  return in_turns(nodes);
}

}  // namespace

Pin parse_pin(std::string_view text) {
  if (text == "auto") return Pin::kAuto;
  if (text == "on") return Pin::kOn;
  if (text == "off") return Pin::kOff;
  throw Error(Code::kUsage, cat("'", text, "' says not how threads are pinned to cores (--pin, ",
                                "CACHALOT_PIN); use auto, on or off"));
}

std::vector<ThreadPlace> place_threads(const Topology& topology, int threads) {
  const std::vector<int> order = spread(topology);
  std::vector<ThreadPlace> places;
  const auto wanted = static_cast<std::size_t>(std::max(threads, 0));
  if (order.empty()) return places;
  const bool shared = wanted > order.size();
  for (std::size_t sibling = 0; places.size() < wanted; ++sibling) {
    const std::size_t before = places.size();
    for (const int core : order) {
      const PhysicalCore& c = topology.cores[static_cast<std::size_t>(core)];
      if (places.size() == wanted) break;
      if (sibling >= c.cpus.size()) continue;
      places.push_back({core, c.node, shared ? std::vector<int>{c.cpus[sibling]} : c.cpus});
    }
    if (places.size() == before) {  // every CPU has a thread
      for (std::size_t i = 0; places.size() < wanted; ++i) places.push_back(places[i]);
    }
  }
  return places;
}

int default_threads(const Topology& topology, double cpu_quota) {
  const int cores = std::max<int>(1, static_cast<int>(topology.cores.size()));
  if (cpu_quota <= 0) return cores;
  return std::clamp(static_cast<int>(std::floor(cpu_quota)), 1, cores);
}

PinDecision decide_pin(Pin wanted, const Topology& topology, int threads, double cpu_quota) {
  const auto cores = static_cast<int>(topology.cores.size());
  if (wanted == Pin::kOff) return {false, "off, as asked"};
  if (wanted == Pin::kOn) {
    if (threads > topology.cpus) {
      throw Error(Code::kUsage,
                  cat("pinning (--pin on) is for one thread per CPU, but there are ", threads,
                      " threads and ", topology.cpus,
                      " CPUs this process may use; take fewer threads or --pin auto"));
    }
    return {true, "on, as asked"};
  }
  if (threads == 1) return {false, "off: one thread"};
  if (topology.is_restricted()) {
    return {false, cat("off: this process may use ", topology.cpus, " of ", topology.machine_cpus,
                       " CPUs, others share the machine")};
  }
  if (cpu_quota > 0 && cpu_quota < topology.cpus) {
    return {false, cat("off: this process may use the time of ", cpu_quota, " CPUs, not of all ",
                       topology.cpus)};
  }
  if (threads != cores && threads != topology.cpus) {
    return {false, cat("off: ", threads, " threads are not one for each of ", cores, " cores")};
  }
  return {true, cat("one thread per ", threads == cores ? "core" : "logical CPU",
                    ", the machine is ours")};
}

}  // namespace cachalot::runtime
