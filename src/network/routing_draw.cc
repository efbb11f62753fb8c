#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/rng.h"
#include "network/routing_trace.h"

namespace cachalot::network {

namespace {

// Popularity of each expert, as what is added to a Gumbel variable: the largest of
// log(w) + Gumbel is expert e with a chance in proportion to w.
std::vector<float> log_popularity(const SyntheticRouting& options) {
  const auto experts = static_cast<std::size_t>(options.experts);
  std::vector<std::size_t> order(experts);
  std::iota(order.begin(), order.end(), std::size_t{0});
  const Rng random(options.seed, stream_of("popularity"));
  for (std::size_t i = 0; i + 1 < experts; ++i) {
    std::swap(order[i], order[i + random.below(i, experts - i)]);
  }
  std::vector<float> popularity(experts);
  for (std::size_t i = 0; i < experts; ++i) {
    popularity[order[i]] = static_cast<float>(-options.skew * std::log(static_cast<double>(i) + 1));
  }
  return popularity;
}

// One token's choice from its affinities.
class Chooser {
 public:
  explicit Chooser(const SyntheticRouting& options)
      : options_(options), size_(options.experts / options.groups) {}

  void choose(const std::vector<float>& affinity, std::vector<std::uint16_t>& chosen) {
    groups_.clear();
    for (int g = 0; g < options_.groups; ++g) {
      float first = -INFINITY, second = -INFINITY;
      for (int e = g * size_; e < (g + 1) * size_; ++e) {
        const float a = affinity[static_cast<std::size_t>(e)];
        if (a > first) {
          second = first;
          first = a;
        } else if (a > second) {
          second = a;
        }
      }
      groups_.emplace_back(size_ > 1 ? first + second : first, g);
    }
    const auto larger = [](const auto& a, const auto& b) {
      return a.first > b.first || (a.first == b.first && a.second < b.second);
    };
    std::partial_sort(groups_.begin(), groups_.begin() + options_.group_limit, groups_.end(),
                      larger);
    best_.clear();
    for (int i = 0; i < options_.group_limit; ++i) {
      const int g = groups_[static_cast<std::size_t>(i)].second;
      for (int e = g * size_; e < (g + 1) * size_; ++e) {
        best_.emplace_back(affinity[static_cast<std::size_t>(e)], e);
      }
    }
    std::nth_element(best_.begin(), best_.begin() + (options_.topk - 1), best_.end(), larger);
    for (int i = 0; i < options_.topk; ++i) {
      chosen.push_back(static_cast<std::uint16_t>(best_[static_cast<std::size_t>(i)].second));
    }
  }

 private:
  const SyntheticRouting& options_;
  int size_;  // experts of a group
  std::vector<std::pair<float, int>> groups_, best_;
};

}  // namespace

void check(const SyntheticRouting& options) {
  const auto bad = [](const std::string& text) { throw Error(Code::kUsage, text); };
  if (options.ranks < 1 || options.ranks > kMostRanks) {
    bad(cat("--ep ", options.ranks, ": must be 1 to ", kMostRanks, "."));
  }
  if (options.experts < 1 || options.experts > kMostExperts) {
    bad(cat("--experts ", options.experts, ": must be 1 to ", kMostExperts, "."));
  }
  if (options.topk < 1 || options.topk > std::min(options.experts, kMostTopk)) {
    bad(cat("--topk ", options.topk, ": must be 1 to ", std::min(options.experts, kMostTopk), "."));
  }
  if (options.groups < 1 || options.experts % options.groups != 0) {
    bad(cat(options.experts, " experts do not divide into ", options.groups,
            " nodes: ", options.experts % std::max(options.groups, 1),
            " are left over. Change --experts or --ep, or let tokens go to all nodes: "
            "--node-limit ",
            options.groups, "."));
  }
  if (options.group_limit < 1 || options.group_limit > options.groups) {
    bad(cat("--node-limit ", options.group_limit, ": must be 1 to ", options.groups,
            ", the nodes of a group."));
  }
  const std::int64_t reachable =
      std::int64_t{options.group_limit} * (options.experts / options.groups);
  if (reachable < options.topk) {
    bad(cat("--node-limit ", options.group_limit, ": ", options.group_limit, " nodes hold ",
            reachable, " experts, and a token needs ", options.topk, ". Raise --node-limit by ",
            (options.topk - reachable + options.experts / options.groups - 1) /
                (options.experts / options.groups),
            " at least."));
  }
  if (options.tokens_per_rank < 1 || options.tokens_per_rank > (1 << 24)) {
    bad(cat("--tokens ", options.tokens_per_rank, ": must be 1 to ", 1 << 24, "."));
  }
  if (!(options.skew >= 0 && options.skew <= 10)) {
    bad(cat("--skew ", options.skew, ": must be 0 (all experts alike) to 10."));
  }
}

std::vector<std::uint16_t> draw_rank(const SyntheticRouting& options, int rank) {
  const auto experts = static_cast<std::size_t>(options.experts);
  const Rng random(options.seed, (options.set << 32) + static_cast<std::uint64_t>(rank) + 1);
  const std::vector<float> popularity =
      options.skew > 0 ? log_popularity(options) : std::vector<float>();
  std::vector<std::uint16_t> chosen;
  chosen.reserve(static_cast<std::size_t>(options.tokens_per_rank) *
                 static_cast<std::size_t>(options.topk));
  std::vector<float> affinity((experts + 3) / 4 * 4);
  Chooser chooser(options);
  std::uint64_t counter = 0;
  for (int token = 0; token < options.tokens_per_rank; ++token) {
    for (std::size_t e = 0; e < affinity.size(); e += 4) {
      const auto words = random.block(counter++);
      for (std::size_t i = 0; i < 4; ++i) {
        affinity[e + i] = (static_cast<float>(words[i]) + 0.5f) * 0x1p-32f;
      }
    }
    if (options.skew > 0) {
      for (std::size_t e = 0; e < experts; ++e) {
        const float u = std::clamp(affinity[e], 1e-9f, 0.9999999f);
        affinity[e] = popularity[e] - std::log(-std::log(u));
      }
    }
    chooser.choose(affinity, chosen);
  }
  return chosen;
}

}  // namespace cachalot::network
