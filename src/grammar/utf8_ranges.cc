#include "grammar/utf8_ranges.h"

#include <algorithm>

namespace cachalot::grammar {

namespace {

constexpr char32_t kMostOf[] = {0x7F, 0x7FF, 0xFFFF, kLastChar};  // by length - 1

int length_of(char32_t c) {
  int length = 1;
  while (c > kMostOf[length - 1]) ++length;
  return length;
}

std::array<std::uint8_t, 4> encode(char32_t c, int length) {
  static constexpr std::uint8_t kLead[] = {0x00, 0xC0, 0xE0, 0xF0};
  std::array<std::uint8_t, 4> bytes{};
  for (int i = length - 1; i > 0; --i) {
    bytes[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(0x80 | (c & 0x3F));
    c >>= 6;
  }
  bytes[0] = static_cast<std::uint8_t>(kLead[length - 1] | c);
  return bytes;
}

// first and last have the same length. Where they differ in a byte, all that follow have to run
// through all continuations, or the range is cut.
void add_equal_length(char32_t first, char32_t last, int length, std::vector<ByteSequence>& to) {
  for (int i = 1; i < length; ++i) {
    const char32_t below = (char32_t{1} << (6 * i)) - 1;  // the bits of the last i bytes
    if ((first & ~below) == (last & ~below)) continue;
    if ((first & below) != 0) {
      add_equal_length(first, first | below, length, to);
      add_equal_length((first | below) + 1, last, length, to);
      return;
    }
    if ((last & below) != below) {
      add_equal_length(first, (last & ~below) - 1, length, to);
      add_equal_length(last & ~below, last, length, to);
      return;
    }
  }
  const auto low = encode(first, length), high = encode(last, length);
  ByteSequence sequence{.length = length};
  for (std::size_t i = 0; i < static_cast<std::size_t>(length); ++i) {
    sequence.bytes[i] = {low[i], high[i]};
  }
  to.push_back(sequence);
}

}  // namespace

std::vector<ByteSequence> utf8_ranges(const std::vector<CharRange>& ranges) {
  std::vector<ByteSequence> sequences;
  for (const CharRange& range : ranges) {
    for (char32_t first = range.first; first <= range.last;) {
      const int length = length_of(first);
      const char32_t last = std::min(range.last, kMostOf[length - 1]);
      add_equal_length(first, last, length, sequences);
      first = last + 1;
    }
  }
  return sequences;
}

}  // namespace cachalot::grammar
