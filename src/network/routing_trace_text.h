// The lines of a routing trace (routing_trace.h), for those that write them.
#pragma once

#include <charconv>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"

namespace cachalot::network {

inline constexpr std::string_view kTraceFirstWord = "cachalot-routing";

inline std::string trace_head(int ranks, int experts, int topk) {
  return cat(kTraceFirstWord, " 1\nranks ", ranks, "\nexperts ", experts, "\ntopk ", topk, "\n");
}

inline void append_exchange(std::string& text, std::int64_t pass, int layer) {
  text += cat("pass ", pass, " layer ", layer, "\n");
}

template <class Int>
void append_token(std::string& text, std::int64_t rank, std::span<const Int> experts) {
  char number[24];
  const auto append = [&](std::int64_t value) {
    text.append(number, std::to_chars(number, number + sizeof number, value).ptr);
  };
  append(rank);
  for (const Int expert : experts) {
    text += ' ';
    append(static_cast<std::int64_t>(expert));
  }
  text += '\n';
}

}  // namespace cachalot::network
