#include "network/max_flow.h"

#include <algorithm>

namespace cachalot::network {

void MaxFlow::add(int from, int to, std::int64_t forth, std::int64_t back) {
  const auto a = static_cast<std::size_t>(from), b = static_cast<std::size_t>(to);
  arcs_.push_back({to, first_[a], forth});
  first_[a] = static_cast<int>(arcs_.size()) - 1;
  arcs_.push_back({from, first_[b], back});
  first_[b] = static_cast<int>(arcs_.size()) - 1;
}

bool MaxFlow::find_levels(int source, int sink) {
  level_.assign(first_.size(), -1);
  std::vector<int> queue{source};
  level_[static_cast<std::size_t>(source)] = 0;
  for (std::size_t head = 0; head < queue.size(); ++head) {
    const auto node = static_cast<std::size_t>(queue[head]);
    for (int arc = first_[node]; arc >= 0; arc = arcs_[static_cast<std::size_t>(arc)].next) {
      const Arc& a = arcs_[static_cast<std::size_t>(arc)];
      if (a.left <= 0 || level_[static_cast<std::size_t>(a.to)] >= 0) continue;
      level_[static_cast<std::size_t>(a.to)] = level_[node] + 1;
      queue.push_back(a.to);
    }
  }
  return level_[static_cast<std::size_t>(sink)] >= 0;
}

// One augmenting path along rising levels, by a walk that backs out of dead ends; 0 when none.
std::int64_t MaxFlow::push(int source, int sink) {
  std::vector<int> path;  // arcs
  int node = source;
  while (node != sink) {
    int& arc = at_[static_cast<std::size_t>(node)];
    while (arc >= 0) {
      const Arc& a = arcs_[static_cast<std::size_t>(arc)];
      if (a.left > 0 &&
          level_[static_cast<std::size_t>(a.to)] == level_[static_cast<std::size_t>(node)] + 1) {
        break;
      }
      arc = a.next;
    }
    if (arc >= 0) {
      path.push_back(arc);
      node = arcs_[static_cast<std::size_t>(arc)].to;
    } else {
      if (path.empty()) return 0;
      level_[static_cast<std::size_t>(node)] = -1;
      const int back = path.back() ^ 1;
      path.pop_back();
      node = arcs_[static_cast<std::size_t>(back)].to;
    }
  }
  std::int64_t least = arcs_[static_cast<std::size_t>(path.front())].left;
  for (const int arc : path) least = std::min(least, arcs_[static_cast<std::size_t>(arc)].left);
  for (const int arc : path) {
    arcs_[static_cast<std::size_t>(arc)].left -= least;
    arcs_[static_cast<std::size_t>(arc ^ 1)].left += least;
  }
  return least;
}

std::int64_t MaxFlow::run(int source, int sink) {
  std::int64_t flow = 0;
  while (find_levels(source, sink)) {
    at_ = first_;
    while (const std::int64_t more = push(source, sink)) flow += more;
  }
  return flow;
}

}  // namespace cachalot::network
