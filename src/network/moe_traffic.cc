#include "network/moe_traffic.h"

#include <algorithm>
#include <map>
#include <utility>

#include "base/error.h"

namespace cachalot::network {

namespace {

class Counter {
 public:
  Counter(int ranks, int experts, int topk, int gpus_per_node, const std::vector<int>& home)
      : topk_(topk), home_(home) {
    if (home_.empty()) {
      if (experts % ranks != 0) {
        throw Error(Code::kUsage,
                    cat(experts, " experts do not divide over ", ranks, " GPUs: ", experts % ranks,
                        " are left over. Choose --ep as a divisor of ", experts, "."));
      }
      for (int e = 0; e < experts; ++e) home_.push_back(e / (experts / ranks));
    }
    if (home_.size() != static_cast<std::size_t>(experts)) {
      throw Error(Code::kUsage, cat("a placement of ", home_.size(),
                                    " experts, where the traffic has ", experts, "."));
    }
    for (const int rank : home_) {
      if (rank < 0 || rank >= ranks) {
        throw Error(Code::kUsage, cat("an expert lies at rank ", rank, " of ", ranks, "."));
      }
    }
    counts_.ranks = ranks;
    counts_.gpus_per_node = gpus_per_node;
    const auto n = static_cast<std::size_t>(ranks),
               nodes = static_cast<std::size_t>(counts_.nodes());
    counts_.to_rank.resize(n * n);
    counts_.to_node.resize(n * nodes);
    counts_.pairs.resize(n * n);
    rank_seen_.assign(n, -1);
    node_seen_.assign(nodes, -1);
  }

  void add(int from, const std::uint16_t* experts) {
    const auto row = static_cast<std::size_t>(from);
    ++token_;
    for (int i = 0; i < topk_; ++i) {
      const auto rank = static_cast<std::size_t>(home_[experts[i]]);
      ++counts_.pairs[row * rank_seen_.size() + rank];
      if (std::exchange(rank_seen_[rank], token_) == token_) continue;
      ++counts_.to_rank[row * rank_seen_.size() + rank];
      const std::size_t node = rank / static_cast<std::size_t>(counts_.gpus_per_node);
      if (std::exchange(node_seen_[node], token_) == token_) continue;
      ++counts_.to_node[row * node_seen_.size() + node];
    }
  }

  MoeCounts take() { return std::move(counts_); }

 private:
  int topk_;
  std::vector<int> home_;
  MoeCounts counts_;
  std::int64_t token_ = 0;
  std::vector<std::int64_t> rank_seen_, node_seen_;  // the last token that went there
};

// NVLink copies of a group, added up by (from, to): they share the same links, so one flow is as
// good as many.
class Copies {
 public:
  void add(int from, int to, double bytes) { bytes_[{from, to}] += bytes; }
  void send(Carrier& carrier, int tag) const {
    for (const auto& [ends, bytes] : bytes_)
      carrier.over_nvlink(ends.first, ends.second, bytes, tag);
  }

 private:
  std::map<std::pair<int, int>, double> bytes_;
};

}  // namespace

MoeCounts count_tokens(const SyntheticRouting& options, int gpus_per_node,
                       const std::vector<int>& home) {
  check(options);
  Counter counter(options.ranks, options.experts, options.topk, gpus_per_node, home);
  for_each_token(options,
                 [&](int rank, const std::uint16_t* experts) { counter.add(rank, experts); });
  return counter.take();
}

MoeCounts count_tokens(const RoutingTrace& trace, int gpus_per_node, const std::vector<int>& home) {
  Counter counter(trace.ranks, trace.experts, trace.topk, gpus_per_node, home);
  for (std::size_t t = 0; t < trace.rank_of.size(); ++t) {
    counter.add(trace.rank_of[t], &trace.chosen[t * static_cast<std::size_t>(trace.topk)]);
  }
  return counter.take();
}

namespace {

// Both directions: what crosses between `rank` and node `node` of the group, and the copies on
// that node's side.
void cross(Carrier& carrier, Copies& copies, const MoeCounts& counts, const Group& group, int rank,
           int node, double bytes_per_token, int tag, bool back) {
  const int here = group[static_cast<std::size_t>(rank)];
  const int first = node * counts.gpus_per_node;
  const int there = group[static_cast<std::size_t>(first + rank % counts.gpus_per_node)];
  const double bytes = static_cast<double>(counts.node(rank, node)) * bytes_per_token;
  const auto parts =
      back ? carrier.between_nodes(there, here, bytes, tag, End::kAnyOfNode)
           : carrier.between_nodes(here, there, bytes, tag, End::kThisGpu, End::kAnyOfNode);
  for (int g = 0; g < counts.gpus_per_node; ++g) {
    const int holder = group[static_cast<std::size_t>(first + g)];
    const double copy = static_cast<double>(counts.rank(rank, first + g)) * bytes_per_token;
    for (const Carried& part : parts) {
      if (back) {
        copies.add(holder, part.out, copy * part.share);
      } else {
        copies.add(part.in, holder, copy * part.share);
      }
    }
  }
}

void exchange(Carrier& carrier, const MoeCounts& counts, const Group& group, double bytes_per_token,
              int group_number, bool back) {
  Copies copies;
  for (int rank = 0; rank < counts.ranks; ++rank) {
    const int own_node = rank / counts.gpus_per_node;
    for (int node = 0; node < counts.nodes(); ++node) {
      if (node != own_node) {
        cross(carrier, copies, counts, group, rank, node, bytes_per_token, 2 * group_number, back);
      }
    }
    for (int r = own_node * counts.gpus_per_node;
         r < std::min(counts.ranks, (own_node + 1) * counts.gpus_per_node); ++r) {
      const int a = group[static_cast<std::size_t>(back ? r : rank)];
      const int b = group[static_cast<std::size_t>(back ? rank : r)];
      copies.add(a, b, static_cast<double>(counts.rank(rank, r)) * bytes_per_token);
    }
  }
  copies.send(carrier, 2 * group_number + 1);
}

}  // namespace

void dispatch(Carrier& carrier, const MoeCounts& counts, const Group& group, double bytes_per_token,
              int group_number) {
  exchange(carrier, counts, group, bytes_per_token, group_number, /*back=*/false);
}

void combine(Carrier& carrier, const MoeCounts& counts, const Group& group, double bytes_per_token,
             int group_number) {
  exchange(carrier, counts, group, bytes_per_token, group_number, /*back=*/true);
}

void direct(Carrier& carrier, const MoeCounts& counts, const Group& group, double bytes_per_token,
            int group_number, bool back) {
  for (int from = 0; from < counts.ranks; ++from) {
    for (int to = 0; to < counts.ranks; ++to) {
      const int a = group[static_cast<std::size_t>(back ? to : from)];
      const int b = group[static_cast<std::size_t>(back ? from : to)];
      const bool inside = from / counts.gpus_per_node == to / counts.gpus_per_node;
      const std::size_t at =
          static_cast<std::size_t>(from) * static_cast<std::size_t>(counts.ranks) +
          static_cast<std::size_t>(to);
      const double bytes = static_cast<double>(counts.pairs[at]) * bytes_per_token;
      carrier.send(a, b, bytes, 2 * group_number + (inside ? 1 : 0));
    }
  }
}

}  // namespace cachalot::network
