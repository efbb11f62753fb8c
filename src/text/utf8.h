// UTF-8 by the byte: what is a character, what is not one yet, what never will be.
//
// Threads: pure functions.
// Errors:  none; bad bytes are a result, not an exception.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace cachalot::text {

// What stands at one position. An invalid step covers a "maximal subpart" (Unicode 15, section 3.9,
// best practice): the longest prefix of some character, at least one byte. It becomes one U+FFFD.
struct Utf8Step {
  enum class Kind : std::uint8_t { kValid, kInvalid, kIncomplete };
  Kind kind;
  std::uint8_t bytes;   // how many it covers; kIncomplete: all that is left
  char32_t code_point;  // kValid only
};
// `at` must be inside `text`. kIncomplete: `text` ends within what may become a character.
Utf8Step utf8_step(std::string_view text, std::size_t at) noexcept;

bool is_valid_utf8(std::string_view text) noexcept;
// Offset of the first byte that is not part of a character; text.size() if there is none.
std::size_t first_invalid_utf8(std::string_view text) noexcept;
// Each maximal subpart that is no character becomes U+FFFD (as WHATWG, Rust and Python do).
std::string replace_invalid_utf8(std::string_view text);

void append_utf8(std::string& out, char32_t code_point);

// Decodes the character at `at` of VALID text and moves `at` behind it.
inline char32_t next_code_point(const char* text, std::size_t& at) noexcept {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const char32_t a = byte(at);
  if (a < 0x80) return at += 1, a;
  if (a < 0xE0) return at += 2, (a & 0x1F) << 6 | (byte(at - 1) & 0x3F);
  if (a < 0xF0) {
    at += 3;
    return (a & 0x0F) << 12 | char32_t(byte(at - 2) & 0x3F) << 6 | (byte(at - 1) & 0x3F);
  }
  at += 4;
  return (a & 0x07) << 18 | char32_t(byte(at - 3) & 0x3F) << 12 |
         char32_t(byte(at - 2) & 0x3F) << 6 | (byte(at - 1) & 0x3F);
}

}  // namespace cachalot::text
