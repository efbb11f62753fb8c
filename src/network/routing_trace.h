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
// A line `pass 12 layer 3` begins an exchange: the tokens after it, up to the next such line, are
// those that pass 12 of a model brought to its layer 3, and travel together. A file without such
// lines is one exchange.
//
// Threads: plain values; functions are pure.
// Errors:  kFormat with file and line; kIo where the file cannot be read; kUsage for a pass or
//          layer that a trace does not have.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace cachalot::network {

// Tokens that travel together: dispatch and combine of one layer in one pass.
struct RoutingExchange {
  std::int64_t pass = 0;
  int layer = 0;
  std::int64_t begin = 0, end = 0;  // of the trace's tokens

  std::int64_t tokens() const noexcept { return end - begin; }
  bool operator==(const RoutingExchange&) const = default;
};

struct RoutingTrace {
  int ranks = 0, experts = 0, topk = 0;
  std::vector<std::uint16_t> rank_of;      // [tokens]
  std::vector<std::uint16_t> chosen;       // [tokens, topk]
  std::vector<RoutingExchange> exchanges;  // in their order, all tokens; empty: one, of no pass

  std::int64_t tokens() const noexcept { return static_cast<std::int64_t>(rank_of.size()); }
  bool operator==(const RoutingTrace&) const = default;
};

inline constexpr int kMostRanks = 65'535, kMostExperts = 65'535, kMostTopk = 256;
inline constexpr int kMostLayers = 1 << 20;
inline constexpr std::int64_t kMostPasses = std::int64_t{1} << 53;
inline constexpr std::int64_t kMostTraceBytes = std::int64_t{1} << 30;  // of a file

RoutingTrace parse_routing_trace(std::string_view text, const std::string& file_name);
RoutingTrace load_routing_trace(const std::filesystem::path& file);
std::string to_text(const RoutingTrace& trace);  // parses to the same trace

// The exchanges of one layer; -1: of the first layer there is. A trace without exchanges has none.
RoutingTrace of_layer(const RoutingTrace& trace, int layer);
// The exchange of `pass` with the most tokens, the first of several; -1: of all passes.
RoutingExchange largest_exchange(const RoutingTrace& trace, std::int64_t pass);
// That exchange's tokens alone, as a trace without exchanges.
RoutingTrace only(const RoutingTrace& trace, const RoutingExchange& exchange);

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
