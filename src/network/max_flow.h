// Maximum flow with integer capacities (Dinic's algorithm).
//
// Owns:    the graph and its residual capacities.
// Threads: one thread per object.
#pragma once

#include <cstdint>
#include <vector>

namespace cachalot::network {

class MaxFlow {
 public:
  explicit MaxFlow(int nodes) : first_(static_cast<std::size_t>(nodes), -1) {}
  void add(int from, int to, std::int64_t forth, std::int64_t back);
  std::int64_t run(int source, int sink);

 private:
  struct Arc {
    int to, next;
    std::int64_t left;
  };
  bool find_levels(int source, int sink);
  std::int64_t push(int source, int sink);

  std::vector<int> first_, level_, at_;
  std::vector<Arc> arcs_;
};

}  // namespace cachalot::network
