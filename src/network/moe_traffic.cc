#include "network/moe_traffic.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <utility>

#include "base/error.h"

namespace cachalot::network {

namespace {

// The ranks that hold each expert.
std::vector<std::vector<int>> homes_of(int ranks, int experts, const ExpertSlots& slots) {
  const std::string what = slots.empty() ? "experts" : "slots of experts";
  const auto count = slots.empty() ? experts : static_cast<int>(slots.size());
  if (count % ranks != 0) {
    throw Error(
        Code::kUsage,
        cat(count, " ", what, " do not divide over ", ranks, " GPUs: ", count % ranks,
            " are left over. Choose --ep as a divisor of ", count,
            slots.empty() ? ", or say by --expert-slots or --eplb where experts lie." : "."));
  }
  std::vector<std::vector<int>> homes(static_cast<std::size_t>(experts));
  for (int s = 0; s < count; ++s) {
    const int expert = slots.empty() ? s : slots[static_cast<std::size_t>(s)];
    if (expert < 0 || expert >= experts) {
      throw Error(Code::kUsage, cat("slot ", s, " holds expert ", expert, ", but there are ",
                                    experts, ", numbered from 0."));
    }
    homes[static_cast<std::size_t>(expert)].push_back(s / (count / ranks));
  }
  for (std::size_t e = 0; e < homes.size(); ++e) {
    if (homes[e].empty()) throw Error(Code::kUsage, cat("no slot holds expert ", e, "."));
  }
  return homes;
}

class Counter {
 public:
  Counter(int ranks, int experts, int topk, int gpus_per_node, const ExpertSlots& slots)
      : topk_(topk), homes_(homes_of(ranks, experts, slots)) {
    counts_.ranks = ranks;
    counts_.gpus_per_node = gpus_per_node;
    const auto n = static_cast<std::size_t>(ranks),
               nodes = static_cast<std::size_t>(counts_.nodes());
    counts_.to_rank.resize(n * n);
    counts_.to_node.resize(n * nodes);
    counts_.pairs.resize(n * n);
    rank_seen_.assign(n, -1);
    node_seen_.assign(nodes, -1);
    turn_.assign(homes_.size(), 0);
  }

  void add(int from, const std::uint16_t* experts) {
    const auto row = static_cast<std::size_t>(from);
    ++token_;
    for (int i = 0; i < topk_; ++i) {
      const std::vector<int>& homes = homes_[experts[i]];
      const auto rank = static_cast<std::size_t>(homes[turn_[experts[i]]++ % homes.size()]);
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
  std::vector<std::vector<int>> homes_;
  MoeCounts counts_;
  std::int64_t token_ = 0;
  std::vector<std::int64_t> rank_seen_, node_seen_;  // the last token that went there
  std::vector<std::size_t> turn_;                    // of each expert's replicas
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
                       const ExpertSlots& slots) {
  check(options);
  Counter counter(options.ranks, options.experts, options.topk, gpus_per_node, slots);
  for_each_token(options,
                 [&](int rank, const std::uint16_t* experts) { counter.add(rank, experts); });
  return counter.take();
}

MoeCounts count_tokens(const RoutingTrace& trace, int gpus_per_node, const ExpertSlots& slots) {
  Counter counter(trace.ranks, trace.experts, trace.topk, gpus_per_node, slots);
  for (std::size_t t = 0; t < trace.rank_of.size(); ++t) {
    counter.add(trace.rank_of[t], &trace.chosen[t * static_cast<std::size_t>(trace.topk)]);
  }
  return counter.take();
}

std::vector<double> expert_loads(const SyntheticRouting& options) {
  check(options);
  std::vector<double> loads(static_cast<std::size_t>(options.experts));
  for_each_token(options, [&](int, const std::uint16_t* experts) {
    for (int i = 0; i < options.topk; ++i) ++loads[experts[i]];
  });
  return loads;
}

std::vector<double> expert_loads(const RoutingTrace& trace) {
  std::vector<double> loads(static_cast<std::size_t>(trace.experts));
  for (const std::uint16_t expert : trace.chosen) ++loads[expert];
  return loads;
}

void even_out(MoeCounts& counts) {
  const auto even = [&](std::vector<std::int64_t>& table, int columns, int ranks_per_column) {
    double sum[2] = {0, 0}, cells[2] = {0, 0};
    const auto near = [&](std::size_t cell) {
      const int row = static_cast<int>(cell) / columns, column = static_cast<int>(cell) % columns;
      return row / counts.gpus_per_node == column * ranks_per_column / counts.gpus_per_node ? 1 : 0;
    };
    for (std::size_t c = 0; c < table.size(); ++c) {
      sum[near(c)] += static_cast<double>(table[c]);
      cells[near(c)] += 1;
    }
    for (std::size_t c = 0; c < table.size(); ++c) {
      table[c] = std::llround(sum[near(c)] / cells[near(c)]);
    }
  };
  even(counts.to_rank, counts.ranks, 1);
  even(counts.pairs, counts.ranks, 1);
  even(counts.to_node, counts.nodes(), counts.gpus_per_node);
}

ExpertSlots parse_expert_slots(std::string_view text, const std::string& file_name) {
  ExpertSlots slots;
  int line = 1;
  bool comment = false;
  for (std::size_t at = 0; at < text.size();) {
    const char c = text[at];
    if (c == '\n') {
      ++line;
      comment = false;
    }
    if (c == '#') comment = true;
    if (comment || c == ' ' || c == '\n' || c == '\t' || c == '\r' || c == ',') {
      ++at;
      continue;
    }
    int value = 0;
    const auto [end, error] = std::from_chars(text.data() + at, text.data() + text.size(), value);
    if (error != std::errc() || value < 0 || value >= kMostExperts) {
      throw Error(Code::kFormat,
                  cat(file_name, ":", line, ": here must stand an expert's number, 0 to ",
                      kMostExperts - 1, "; blanks or commas go between."));
    }
    slots.push_back(value);
    at = static_cast<std::size_t>(end - text.data());
  }
  if (slots.empty()) throw Error(Code::kFormat, cat(file_name, ":", line, ": there are no slots."));
  return slots;
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
