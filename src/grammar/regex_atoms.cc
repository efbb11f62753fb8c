#include "grammar/regex_atoms.h"

#include <algorithm>
#include <optional>
#include <string>

#include "grammar/regex_property.h"
#include "text/utf8.h"

namespace cachalot::grammar {

void refuse_pattern(const Cursor& cursor, std::size_t from, std::string_view why, Code code) {
  const std::size_t to = std::max(cursor.place(), from + 1);
  const std::string met = cursor.excerpt(from, to);
  throw Error(code, cat("pattern: ", met.empty() ? "its end" : "'" + met + "'", " at character ",
                        from + 1, ": ", why));
}

namespace {

constexpr bool is_surrogate(char32_t c, char32_t first) { return c >= first && c < first + 0x400; }

// Behind "\u": four digits, two times four that are a surrogate pair, or {digits}.
char32_t read_unicode(Cursor& cursor, std::size_t from) {
  if (cursor.take('{')) {
    char32_t value = 0;
    int digits = 0;
    while (const auto digit = cursor.hex(1)) {
      value = std::min<char32_t>(value << 4 | *digit, Cursor::kEnd);
      ++digits;
    }
    if (digits == 0 || !cursor.take('}')) {
      refuse_pattern(cursor, from, "\\u{ needs hexadecimal digits and }");
    }
    if (value > kLastChar) refuse_pattern(cursor, from, "the last character is \\u{10FFFF}");
    return value;
  }
  const auto high = cursor.hex(4);
  if (!high) refuse_pattern(cursor, from, "\\u needs four hexadecimal digits or {digits}");
  if (!is_surrogate(*high, 0xD800)) return *high;
  const std::size_t behind = cursor.place();
  if (cursor.take(U"\\u")) {
    const auto low = cursor.hex(4);
    if (low && is_surrogate(*low, 0xDC00)) {
      return 0x10000 + ((*high - 0xD800) << 10 | (*low - 0xDC00));
    }
    cursor.go_to(behind);
  }
  return *high;
}

// Behind "\p" or "\P".
std::vector<CharRange> read_property(Cursor& cursor, std::size_t from, bool inverted) {
  constexpr std::size_t kMostName = 64;
  if (!cursor.take('{')) refuse_pattern(cursor, from, "a property stands in braces: \\p{Lu}");
  std::string name;
  while (!cursor.at_end() && cursor.peek() != '}' && name.size() < kMostName) {
    text::append_utf8(name, cursor.next());
  }
  if (!cursor.take('}')) refuse_pattern(cursor, from, "a property ends with }");
  auto ranges = property(name);
  if (!ranges) {
    refuse_pattern(cursor, from,
                   "no such property: general categories (L, Lu, Nd), scripts (Script=Greek) and "
                   "properties as Alphabetic or Emoji are known");
  }
  return inverted ? complement(std::move(*ranges)) : std::move(*ranges);
}

// \d and its like, \p too; nothing if `c` begins none of them.
std::optional<std::vector<CharRange>> read_set(Cursor& cursor, std::size_t from, char32_t c) {
  switch (c) {
    case 'd':
      return digits();
    case 'D':
      return complement(digits());
    case 'w':
      return word_chars();
    case 'W':
      return complement(word_chars());
    case 's':
      return white_space();
    case 'S':
      return complement(white_space());
    case 'p':
      return read_property(cursor, from, false);
    case 'P':
      return read_property(cursor, from, true);
    default:
      return std::nullopt;
  }
}

[[noreturn]] void refuse_letter(const Cursor& cursor, std::size_t from, char32_t c) {
  if (c == 'A' || c == 'Z' || c == 'z' || c == 'G') {
    refuse_pattern(cursor, from, "ECMA-262 has no such anchor; write ^ or $");
  }
  refuse_pattern(cursor, from,
                 "no such escape; letters, digits and other characters that mean nothing special "
                 "stand for themselves without \\");
}

// The rest of the escapes that mean one character.
char32_t read_char_escape(Cursor& cursor, std::size_t from, char32_t c) {
  switch (c) {
    case 'n':
      return '\n';
    case 'r':
      return '\r';
    case 't':
      return '\t';
    case 'f':
      return '\f';
    case 'v':
      return '\v';
    case 'u':
      return read_unicode(cursor, from);
    case 'x':
      if (const auto value = cursor.hex(2)) return *value;
      refuse_pattern(cursor, from, "\\x needs two hexadecimal digits");
    case 'c':
      if (is_letter(cursor.peek())) return cursor.next() % 32;
      refuse_pattern(cursor, from, "\\c needs a letter");
    case '0':
      if (!is_digit(cursor.peek())) return 0;
      refuse_pattern(cursor, from, "octal escapes are not ECMA-262's; write \\xHH");
    case Cursor::kEnd:
      refuse_pattern(cursor, from, "a lone \\ at the end; write \\\\");
    default:
      break;
  }
  // The flag u allows \ before the characters of its syntax alone; other punctuation is harmless.
  if (c >= 0x80 || is_letter(c) || is_digit(c)) refuse_letter(cursor, from, c);
  return c;
}

// A character of a class, or a set as \d.
Atom read_class_atom(Cursor& cursor) {
  const std::size_t from = cursor.place();
  const char32_t c = cursor.next();
  if (c != '\\') return c;
  const char32_t escaped = cursor.next();
  if (escaped == 'b') return U'\b';
  if (auto set = read_set(cursor, from, escaped)) return std::move(*set);
  return read_char_escape(cursor, from, escaped);
}

}  // namespace

Atom read_escape(Cursor& cursor) {
  const std::size_t from = cursor.place() - 1;
  const char32_t c = cursor.next();
  if (c == 'b' || c == 'B') {
    refuse_pattern(cursor, from, "word boundaries are not supported", Code::kUnsupported);
  }
  if ((c >= '1' && c <= '9') || c == 'k') {
    refuse_pattern(cursor, from, "references to groups are not supported", Code::kUnsupported);
  }
  if (auto set = read_set(cursor, from, c)) return std::move(*set);
  return read_char_escape(cursor, from, c);
}

std::vector<CharRange> read_class(Cursor& cursor) {
  const std::size_t open = cursor.place() - 1;
  const bool inverted = cursor.take('^');
  std::vector<CharRange> ranges;
  std::size_t tidy_at = 1024;  // \p{L} many times over is still as long as once
  while (!cursor.take(']')) {
    const std::size_t from = cursor.place();
    if (cursor.at_end()) refuse_pattern(cursor, open, "this class has no ]");
    const Atom first = read_class_atom(cursor);
    const bool is_range =
        cursor.peek() == '-' && cursor.peek(1) != ']' && cursor.peek(1) != Cursor::kEnd;
    if (!is_range) {
      if (const auto* c = std::get_if<char32_t>(&first)) ranges.push_back({*c, *c});
      if (const auto* set = std::get_if<std::vector<CharRange>>(&first)) {
        ranges.insert(ranges.end(), set->begin(), set->end());
      }
    } else {
      cursor.next();
      const Atom last = read_class_atom(cursor);
      const auto* low = std::get_if<char32_t>(&first);
      const auto* high = std::get_if<char32_t>(&last);
      if (low == nullptr || high == nullptr) {
        refuse_pattern(cursor, from, "a range needs a character on both sides; a plain - is \\-");
      }
      if (*low > *high) refuse_pattern(cursor, from, "this range ends before it begins");
      ranges.push_back({*low, *high});
    }
    if (ranges.size() > tidy_at) {
      ranges = normalised(std::move(ranges));
      tidy_at = ranges.size() * 2 + 1024;
    }
  }
  return inverted ? complement(std::move(ranges)) : normalised(std::move(ranges));
}

}  // namespace cachalot::grammar
