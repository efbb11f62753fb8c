// Puts memory on NUMA nodes: pages that are not there yet are read on their node, pages that are
// there are moved. Works for mapped files (page cache) and for memory of our own.
//
// Threads: one caller; the memory policy of the calling thread is changed and put back.
// Errors:  none thrown: where the system refuses, the report says so and memory stays where it is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace cachalot::runtime {

struct MemoryArea {
  static constexpr int kSpread = -1;  // page by page over all nodes
  const void* data = nullptr;
  std::size_t bytes = 0;
  int node = kSpread;  // index of the nodes given
};

struct PlacedMemory {
  std::uint64_t pages = 0;   // of all areas; one that two areas share counts twice
  std::uint64_t placed = 0;  // of them where they should be, afterwards
  std::uint64_t moved = 0;   // of them elsewhere before
  std::string problem;       // empty: none
};

// `os_nodes`: the system's numbers of the nodes that areas name.
PlacedMemory place_memory(std::span<const int> os_nodes, std::span<const MemoryArea> areas);

}  // namespace cachalot::runtime
