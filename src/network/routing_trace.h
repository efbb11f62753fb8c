// Which experts tokens chose: a text file that a router writes, or drawn here.
//
// The file, one statement a line, `#` begins a comment:
//
//   cachalot-routing 1          first line: format and version
//   ranks 64                    GPUs that hold tokens, numbered from 0
//   experts 256
//   topk 8
//   0 17 250 3 91 4 66 180 12   a token of rank 0, and its topk experts, all different
//   ...
//
// Threads: plain values; functions are pure.
// Errors:  kFormat with file and line; kIo where the file cannot be read.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace cachalot::network {

struct RoutingTrace {
  int ranks = 0, experts = 0, topk = 0;
  std::vector<std::uint16_t> rank_of;  // [tokens]
  std::vector<std::uint16_t> chosen;   // [tokens, topk]

  std::int64_t tokens() const noexcept { return static_cast<std::int64_t>(rank_of.size()); }
  bool operator==(const RoutingTrace&) const = default;
};

inline constexpr int kMostRanks = 65'535, kMostExperts = 65'535, kMostTopk = 256;

RoutingTrace parse_routing_trace(std::string_view text, const std::string& file_name);
RoutingTrace load_routing_trace(const std::filesystem::path& file);
std::string to_text(const RoutingTrace& trace);  // parses to the same trace

// Tokens whose affinities to experts are independent and alike, or alike but for a popularity
// that falls as rank^-skew over a random order of the experts. Experts lie in `groups` equal groups
// (nodes); a token may use `group_limit` of them, those with the largest sum of their best two
// affinities, and takes its topk experts there, as DeepSeek-V3's router does (report, 2.1.2).
struct SyntheticRouting {
  int ranks = 64, experts = 256, topk = 8;
  int groups = 8, group_limit = 4;
  int tokens_per_rank = 4096;
  double skew = 0;
  std::uint64_t seed = 1, set = 0;  // another set: other tokens of the same kind
};
void check(const SyntheticRouting& options);  // kUsage

// Calls use(rank, experts) for every token; `experts` has topk entries, valid during the call.
template <class Use>
void for_each_token(const SyntheticRouting& options, Use&& use);

// The choices of all tokens of one rank, [tokens_per_rank, topk].
std::vector<std::uint16_t> draw_rank(const SyntheticRouting& options, int rank);

template <class Use>
void for_each_token(const SyntheticRouting& options, Use&& use) {
  for (int rank = 0; rank < options.ranks; ++rank) {
    const std::vector<std::uint16_t> chosen = draw_rank(options, rank);
    for (std::size_t at = 0; at < chosen.size(); at += static_cast<std::size_t>(options.topk)) {
      use(rank, &chosen[at]);
    }
  }
}

}  // namespace cachalot::network
