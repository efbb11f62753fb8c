// For what cuts a text at tags while it comes in pieces.
//
// Threads: a pure function. Errors: none.
#pragma once

#include <algorithm>
#include <string_view>

namespace cachalot::serve {

// Length of the longest end of `text` that begins `tag` without being all of it: it may still
// become the tag, and is held back. An empty tag never begins.
inline std::size_t begun_tag(std::string_view text, std::string_view tag) {
  if (tag.empty()) return 0;
  for (std::size_t n = std::min(text.size(), tag.size() - 1); n > 0; --n) {
    if (text.ends_with(tag.substr(0, n))) return n;
  }
  return 0;
}

}  // namespace cachalot::serve
