#include "network/halving.h"

#include <algorithm>
#include <cstdlib>
#include <numeric>

namespace cachalot::network {

namespace {

constexpr std::size_t place(int s) noexcept { return static_cast<std::size_t>(s); }

void change(char& side) { side = side == 0 ? char{1} : char{0}; }

// Switches of one side that have not moved, by how many links their move saves. Linked lists,
// because a move changes what its neighbours save, and each change must take constant time.
class Savings {
 public:
  Savings(std::size_t switches, int most)
      : most_(most), first_(place(2 * most + 1), -1), next_(switches, -1), before_(switches, -1) {}

  void insert(int s, int saved) {
    const std::size_t list = place(saved + most_);
    next_[place(s)] = first_[list];
    before_[place(s)] = -1;
    if (first_[list] >= 0) before_[place(first_[list])] = s;
    first_[list] = s;
    used_ = std::max(used_, list + 1);
  }

  void remove(int s, int saved) {
    const int next = next_[place(s)], before = before_[place(s)];
    (before >= 0 ? next_[place(before)] : first_[place(saved + most_)]) = next;
    if (next >= 0) before_[place(next)] = before;
  }

  // -1 where none is left.
  int best() {
    while (used_ > 0 && first_[used_ - 1] < 0) --used_;
    return used_ > 0 ? first_[used_ - 1] : -1;
  }

 private:
  int most_;
  std::size_t used_ = 0;  // all lists from here on are empty
  std::vector<int> first_, next_, before_;
};

int most_links(const Adjacency& graph) {
  std::size_t most = 0;
  for (std::size_t s = 0; s < graph.switches(); ++s) most = std::max(most, graph.of(s).size());
  return static_cast<int>(most);
}

class Pass {
 public:
  Pass(const Adjacency& graph, std::span<const std::int64_t> endpoints, Sides& sides)
      : graph_(graph),
        endpoints_(endpoints),
        sides_(sides),
        saved_(sides.size()),
        moved_(sides.size()),
        waiting_(2, Savings(sides.size(), most_links(graph))) {
    std::int64_t ends = 0;  // of links between the sides
    for (std::size_t s = 0; s < sides.size(); ++s) {
      for (const int other : graph.of(s)) {
        const bool between = sides[place(other)] != sides[s];
        saved_[s] += between ? 1 : -1;
        ends += between ? 1 : 0;
      }
      surplus_ += sides[s] == 0 ? endpoints[s] : -endpoints[s];
      waiting_[place(sides[s])].insert(static_cast<int>(s), saved_[s]);
    }
    links_ = ends / 2;
  }

  std::int64_t cost() const { return 2 * links_ + std::abs(surplus_); }

  // Returns the cost of the sides that it leaves.
  std::int64_t run() {
    std::int64_t best = cost();
    std::vector<int> order;
    std::size_t kept = 0;
    for (int s = next(); s >= 0; s = next()) {
      move(s);
      order.push_back(s);
      if (cost() >= best) continue;
      best = cost();
      kept = order.size();
    }
    for (std::size_t i = kept; i < order.size(); ++i) change(sides_[place(order[i])]);
    return best;
  }

 private:
  // From the side with more endpoints; where both have as many, whichever saves more.
  int next() {
    if (surplus_ != 0) return waiting_[surplus_ > 0 ? 0 : 1].best();
    const int a = waiting_[0].best(), b = waiting_[1].best();
    if (a < 0 || b < 0) return std::max(a, b);
    return saved_[place(a)] >= saved_[place(b)] ? a : b;
  }

  void move(int s) {
    const char from = sides_[place(s)];
    waiting_[place(from)].remove(s, saved_[place(s)]);
    moved_[place(s)] = 1;
    links_ -= saved_[place(s)];
    surplus_ += (from == 0 ? -2 : 2) * endpoints_[place(s)];
    change(sides_[place(s)]);
    for (const int other : graph_.of(place(s))) {
      if (moved_[place(other)]) continue;
      Savings& waiting = waiting_[place(sides_[place(other)])];
      waiting.remove(other, saved_[place(other)]);
      saved_[place(other)] += sides_[place(other)] == from ? 2 : -2;
      waiting.insert(other, saved_[place(other)]);
    }
  }

  const Adjacency& graph_;
  std::span<const std::int64_t> endpoints_;
  Sides& sides_;
  std::vector<int> saved_;   // links that a move of each switch saves
  std::vector<char> moved_;  // in this pass
  std::vector<Savings> waiting_;
  std::int64_t links_ = 0;    // between the sides
  std::int64_t surplus_ = 0;  // endpoints that the first side has more than the second
};

}  // namespace

Sides halve(std::span<const int> order, std::span<const std::int64_t> endpoints) {
  const std::int64_t all = std::accumulate(endpoints.begin(), endpoints.end(), std::int64_t{0});
  Sides sides(endpoints.size(), 1);
  std::int64_t taken = 0;
  for (const int s : order) {
    if (2 * taken + endpoints[place(s)] > all) continue;
    sides[place(s)] = 0;
    taken += endpoints[place(s)];
  }
  return sides;
}

std::int64_t improve(const Adjacency& graph, std::span<const std::int64_t> endpoints, Sides& sides,
                     int passes) {
  std::int64_t cost = 0;
  for (int i = 0; i < passes; ++i) {
    Pass pass(graph, endpoints, sides);
    const std::int64_t before = pass.cost();
    cost = pass.run();
    if (cost == before) break;
  }
  return cost;
}

}  // namespace cachalot::network
