// Which thread computes on which core, and whether threads are held there.
//
// Threads: pure functions.
// Errors:  kUsage for a word that is none of auto, on, off, and for `on` with more threads than
//          CPUs.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/topology.h"

namespace cachalot::runtime {

enum class Pin : std::uint8_t { kAuto, kOn, kOff };
Pin parse_pin(std::string_view text);  // "auto", "on", "off"

// Where a thread computes.
struct ThreadPlace {
  int core = 0;           // index of Topology::cores
  int node = 0;           // index of Topology::nodes
  std::vector<int> cpus;  // what it is held to: all of its core, or one sibling where cores are
                          // shared by two threads
};

// One thread per core before any core gets a second: its SMT sibling shares the units and caches
// that a product uses whole. Neighbouring threads lie on different nodes, then on different last
// caches, so that fewer threads than cores still have all the memory's bandwidth. More threads than
// CPUs begin again.
std::vector<ThreadPlace> place_threads(const Topology& topology, int threads);

// Cores, or what the quota allows if that is less: a thread that is put to sleep in the middle of a
// step holds up all the others.
int default_threads(const Topology& topology, double cpu_quota);

struct PinDecision {
  bool pin = false;
  std::string why;  // in words, for `cachalot info`
};
// `auto` pins where this process may use the whole machine and has a thread for each of its cores:
// then nobody else is expected there. Otherwise the scheduler knows better who needs which core.
PinDecision decide_pin(Pin wanted, const Topology& topology, int threads, double cpu_quota);

}  // namespace cachalot::runtime
