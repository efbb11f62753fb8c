// What this machine is and what the runtime made of it: the content of `cachalot info` and of the
// "machine" part of every benchmark.
//
// Threads: values.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "runtime/memory.h"
#include "runtime/runtime.h"
#include "runtime/topology.h"

namespace cachalot::runtime {

struct SlotInfo {
  std::string name;
  bool fast = false;  // false: still on the reference
};

struct Description {
  std::string cpu;                  // model name
  std::string level;                // the table in use
  std::vector<std::string> levels;  // all this machine can run
  std::string bf16;                 // how vdpbf16ps was found: cpuid, probe, absent
  int threads = 0;
  int cores = 0;  // this process may run on
  std::size_t memory_bytes = 0;
  std::size_t l1d_bytes = 0;
  std::size_t l2_bytes = 0;
  std::size_t l3_bytes = 0;
  Topology topology;
  bool pinned = false;
  std::string pin_reason;
  HugePages huge_pages;
  std::string device;           // that kernels run on; empty: the CPU
  std::vector<SlotInfo> slots;  // in the order of KernelTable
};

Description describe(const Runtime& runtime);

// Cores the scheduler lets this process use (its affinity mask); at least 1.
int allowed_cores();

}  // namespace cachalot::runtime
