// A grammar as a machine that reads bytes: per rule nodes with edges of byte ranges, and calls of
// other rules that return to a node. Added tokens are bytes too (kTokenMark).
//
// Owns:    its tables; immutable.
// Threads: any.
// Errors:  kUsage: a rule that is used and not defined, that calls itself before it reads anything
//          (left recursion), a token that the vocabulary lacks, a grammar that nothing matches, or
//          one of more than kMaxNodes nodes.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "grammar/grammar.h"

namespace cachalot::grammar {

inline constexpr std::size_t kMaxNodes = 1 << 18;

// Stands before the four bytes of an added token's id, lowest first. No UTF-8 has this byte.
inline constexpr std::uint8_t kTokenMark = 0xFF;
std::string token_bytes(std::int32_t id);  // the mark and the id

// Of many repetitions of one part those are twins that this many bytes cannot bring to their end:
// no text so short tells them apart.
inline constexpr int kTwinBytes = 256;

struct Edge {
  std::uint8_t first = 0, last = 0;  // bytes, both included
  std::int32_t to = 0;
};
struct Call {
  std::int32_t start = 0;  // where the rule begins
  std::int32_t return_to = 0;
};
struct Node {
  std::vector<Edge> edges;
  std::vector<Call> calls;
  bool accepts = false;   // the rule may end here
  std::int32_t twin = 0;  // a node that does the same for kTwinBytes bytes; often itself
  // Nothing but the rule's end follows: a call that would return here returns to its caller.
  bool only_accepts() const noexcept { return accepts && edges.empty() && calls.empty(); }
};

struct Automaton {
  std::vector<Node> nodes;
  std::int32_t start = 0;
};

// The id of an added token by its content, where the vocabulary has it.
using FindToken = std::function<std::optional<std::int32_t>(std::string_view)>;

Automaton compile(const Grammar& grammar, const FindToken& find_token = nullptr);

}  // namespace cachalot::grammar
