#include "grammar/char_form.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>
#include <vector>

#include "text/utf8.h"

namespace cachalot::grammar {

namespace {

struct ShortEscape {
  char32_t c;
  char letter;
};
constexpr std::array<ShortEscape, 7> kShortEscapes = {{
    {'\b', 'b'},
    {'\t', 't'},
    {'\n', 'n'},
    {'\f', 'f'},
    {'\r', 'r'},
    {'"', '"'},
    {'\\', '\\'},
}};

const ShortEscape* short_escape(char32_t c) {
  for (const ShortEscape& e : kShortEscapes) {
    if (e.c == c) return &e;
  }
  return nullptr;
}

constexpr bool is_escaped(char32_t c) { return c < 0x20 || c == '"' || c == '\\'; }

}  // namespace

void append_char(std::string& out, char32_t c, CharForm form) {
  if (form == CharForm::kPlain || !is_escaped(c)) {
    text::append_utf8(out, c);
  } else if (const ShortEscape* e = short_escape(c)) {
    out += {'\\', e->letter};
  } else {
    constexpr std::string_view kHex = "0123456789abcdef";
    out += "\\u00";
    out += {kHex[c >> 4], kHex[c & 15]};
  }
}

// The escapes differ in one place after another, so that a text has one way through them.
ExprId add_chars(Grammar& grammar, std::vector<CharRange> ranges, CharForm form) {
  if (form == CharForm::kPlain) return grammar.chars(std::move(ranges));
  static constexpr std::u32string_view kHex = U"0123456789abcdef";
  std::vector<CharRange> letters;
  std::array<std::vector<CharRange>, 2> low_digits;  // of \u000_ and \u001_
  for (const CharRange& r : normalised(ranges)) {
    for (char32_t c = r.first; c <= std::min(r.last, U'\\'); ++c) {
      if (!is_escaped(c)) continue;
      if (const ShortEscape* e = short_escape(c)) {
        const auto letter = static_cast<char32_t>(e->letter);
        letters.push_back({letter, letter});
      } else {
        low_digits[c >> 4].push_back({kHex[c & 15], kHex[c & 15]});
      }
    }
  }
  std::vector<ExprId> escapes;
  if (!letters.empty()) escapes.push_back(grammar.chars(std::move(letters)));
  std::vector<ExprId> numbers;
  for (std::size_t high = 0; high < 2; ++high) {
    if (low_digits[high].empty()) continue;
    numbers.push_back(grammar.sequence(
        {grammar.text(high == 0 ? "0" : "1"), grammar.chars(std::move(low_digits[high]))}));
  }
  if (!numbers.empty()) {
    escapes.push_back(grammar.sequence({grammar.text("u00"), grammar.choice(std::move(numbers))}));
  }
  auto plain = intersection(std::move(ranges), complement({{0, 0x1F}, {'"', '"'}, {'\\', '\\'}}));
  if (escapes.empty()) return grammar.chars(std::move(plain));
  const ExprId escaped = grammar.sequence({grammar.text("\\"), grammar.choice(std::move(escapes))});
  if (plain.empty()) return escaped;
  return grammar.choice({grammar.chars(std::move(plain)), escaped});
}

}  // namespace cachalot::grammar
