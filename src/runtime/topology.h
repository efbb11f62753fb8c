// What this machine consists of, as far as this process may use it: sockets, NUMA nodes, cores with
// their SMT siblings, caches.
//
// Threads: values.
// Errors:  kUnsupported where hwloc cannot describe the machine, kUsage for a fake description that
//          is none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace cachalot::runtime {

struct PhysicalCore {
  int package = 0;        // socket, counted from 0
  int node = 0;           // index of Topology::nodes
  int last_cache = 0;     // cores with the same number share their last cache
  std::vector<int> cpus;  // its logical CPUs that this process may use, by the system's numbers
};

struct NumaNode {
  int os_index = 0;
  std::uint64_t memory_bytes = 0;  // 0: unknown
  int cores = 0;                   // that this process may use
};

struct Topology {
  int packages = 0;
  std::vector<NumaNode> nodes;      // with at least one usable core
  std::vector<PhysicalCore> cores;  // with at least one usable CPU; neighbours lie side by side
  int cpus = 0;                     // logical CPUs this process may use
  int machine_cpus = 0;             // of the whole machine
  int last_caches = 0;
  std::size_t l1d_bytes = 0;
  std::size_t l2_bytes = 0;
  std::size_t l3_bytes = 0;

  bool is_restricted() const noexcept { return cpus < machine_cpus; }
  int smt() const noexcept;  // most usable CPUs of a core
};

// This machine, without what the control group or the affinity mask of this thread rules out.
Topology this_machine();
// A machine that is not there, for tests: hwloc's synthetic form ("package:2 numa:1 core:4 pu:2"),
// or its XML. `allowed`: the CPUs of the affinity mask; empty: all.
Topology fake_machine(const std::string& description, const std::vector<int>& allowed = {});

// CPUs' worth of time that the control groups of this process give it (`docker run --cpus`); 0: no
// limit. Below `root` lie /proc/self/cgroup and /sys/fs/cgroup.
double cpu_quota(const std::filesystem::path& root = "/");

}  // namespace cachalot::runtime
