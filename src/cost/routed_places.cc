#include "cost/routed_places.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <numeric>
#include <tuple>
#include <vector>

#include "base/rng.h"

namespace cachalot::cost {

namespace {

int place_of(int expert, int experts, int places) {
  return static_cast<int>(std::int64_t{expert} * places / experts);
}

// A place with n of the E experts is missed by C(E - n, k) / C(E, k).
double without_groups(int experts, int topk, int places) {
  std::vector<int> held(static_cast<std::size_t>(places));
  for (int e = 0; e < experts; ++e) {
    ++held[static_cast<std::size_t>(place_of(e, experts, places))];
  }
  double mean = 0;
  for (const int n : held) {
    double missed = 1;
    for (int i = 0; i < topk; ++i) {
      missed *= std::max(0.0, static_cast<double>(experts - n - i) / (experts - i));
    }
    mean += 1 - missed;
  }
  return mean;
}

// One token's experts, as the gate chooses them.
class Draw {
 public:
  explicit Draw(const RouteConfig& route)
      : route_(route),
        in_group_(route.experts / route.groups),
        scores_(static_cast<std::size_t>(route.experts)),
        of_group_(static_cast<std::size_t>(route.groups)),
        groups_(of_group_.size()) {}

  const std::vector<int>& operator()(const Rng& rng, std::uint64_t token) {
    const std::uint64_t blocks = (scores_.size() + 3) / 4;
    for (std::uint64_t b = 0; b < blocks; ++b) {
      const auto words = rng.block(token * blocks + b);
      for (std::size_t i = 4 * b; i < std::min<std::size_t>(4 * b + 4, scores_.size()); ++i) {
        scores_[i] = static_cast<double>(words[i % 4]);
      }
    }
    for (std::size_t g = 0; g < of_group_.size(); ++g) of_group_[g] = group_score(g);
    const auto best_first = [](const std::vector<double>& by) {
      return [&by](int a, int b) {
        return by[static_cast<std::size_t>(a)] > by[static_cast<std::size_t>(b)];
      };
    };
    std::iota(groups_.begin(), groups_.end(), 0);
    std::partial_sort(groups_.begin(), groups_.begin() + route_.topk_groups, groups_.end(),
                      best_first(of_group_));
    chosen_.clear();
    for (int i = 0; i < route_.topk_groups; ++i) {
      for (int e = 0; e < in_group_; ++e) {
        chosen_.push_back(groups_[static_cast<std::size_t>(i)] * in_group_ + e);
      }
    }
    const auto k = std::min<std::ptrdiff_t>(route_.topk, std::ssize(chosen_));
    std::partial_sort(chosen_.begin(), chosen_.begin() + k, chosen_.end(), best_first(scores_));
    chosen_.resize(static_cast<std::size_t>(k));
    return chosen_;
  }

 private:
  double group_score(std::size_t group) const {
    double first = 0, second = 0;
    for (int e = 0; e < in_group_; ++e) {
      const double s =
          scores_[group * static_cast<std::size_t>(in_group_) + static_cast<std::size_t>(e)];
      second = std::max(second, std::min(first, s));
      first = std::max(first, s);
    }
    return route_.method == TopkMethod::kNoauxTc ? first + second : first;
  }

  RouteConfig route_;
  int in_group_;
  std::vector<double> scores_, of_group_;
  std::vector<int> groups_, chosen_;
};

constexpr std::uint64_t kTokens = 1 << 14;

// The experts of all tokens drawn, one token after the other.
std::vector<int> draw_tokens(const RouteConfig& route) {
  const Rng rng(1, stream_of("routed_places"));
  Draw draw(route);
  std::vector<int> experts;
  for (std::uint64_t token = 0; token < kTokens; ++token) {
    const std::vector<int>& chosen = draw(rng, token);
    experts.insert(experts.end(), chosen.begin(), chosen.end());
  }
  return experts;
}

double mean_places(const std::vector<int>& drawn, int experts, int places) {
  const std::size_t each = drawn.size() / kTokens;
  std::vector<std::size_t> hit_by(static_cast<std::size_t>(places), kTokens);
  std::int64_t hits = 0;
  for (std::size_t i = 0; i < drawn.size(); ++i) {
    const std::size_t token = i / each;
    std::size_t& last = hit_by[static_cast<std::size_t>(place_of(drawn[i], experts, places))];
    hits += last == token ? 0 : 1;
    last = token;
  }
  return static_cast<double>(hits) / kTokens;
}

}  // namespace

double routed_places(const RouteConfig& route, int places) {
  if (route.experts <= 0 || places <= 0) return 0;
  const bool grouped = route.method != TopkMethod::kGreedy && route.groups > 1 &&
                       route.topk_groups < route.groups && route.experts % route.groups == 0;
  if (!grouped) return without_groups(route.experts, route.topk, places);
  // Drawn once for all numbers of places: it is the drawing that takes time.
  struct Known {
    std::vector<int> drawn;
    std::map<int, double> means;
  };
  using Key = std::tuple<int, int, int, int, TopkMethod>;
  static std::mutex mutex;
  static std::map<Key, Known> known;
  const Key key{route.experts, route.topk, route.groups, route.topk_groups, route.method};
  const std::scoped_lock lock(mutex);
  Known& of_route = known[key];
  const auto found = of_route.means.find(places);
  if (found != of_route.means.end()) return found->second;
  if (of_route.drawn.empty()) of_route.drawn = draw_tokens(route);
  return of_route.means[places] = mean_places(of_route.drawn, route.experts, places);
}

ForwardedCopies forwarded_copies(const RouteConfig& route, int nodes, int per_node) {
  ForwardedCopies copies;
  copies.nodes = routed_places(route, nodes);
  copies.devices = routed_places(route, nodes * per_node);
  copies.network = copies.nodes * (1 - 1.0 / nodes);
  copies.link = copies.devices * (1 - 1.0 / per_node);
  return copies;
}

}  // namespace cachalot::cost
