// Ranges of code points as sequences of byte ranges: UTF-8 without the invalid forms.
//
// Threads: pure functions. Errors: none.
// Source:  https://www.rfc-editor.org/rfc/rfc3629 section 4
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "grammar/grammar.h"

namespace cachalot::grammar {

struct ByteRange {
  std::uint8_t first = 0, last = 0;
  auto operator<=>(const ByteRange&) const = default;
};
struct ByteSequence {
  std::array<ByteRange, 4> bytes{};
  int length = 0;
};

// Of ranges as normalised() gives them; each code point is in exactly one of the sequences.
std::vector<ByteSequence> utf8_ranges(const std::vector<CharRange>& ranges);

}  // namespace cachalot::grammar
