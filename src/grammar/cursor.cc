#include "grammar/cursor.h"

#include <algorithm>

#include "base/error.h"
#include "base/fields_text.h"
#include "text/utf8.h"

namespace cachalot::grammar {

Cursor::Cursor(std::string_view text, std::size_t most_bytes, std::string_view what) {
  if (text.size() > most_bytes) {
    throw Error(Code::kUsage,
                cat(what, " has ", text.size(), " bytes, at most ", most_bytes, " are read"));
  }
  const std::size_t bad = text::first_invalid_utf8(text);
  if (bad < text.size()) {
    throw Error(Code::kUsage,
                cat(what, " is not UTF-8: byte ", bad + 1, " is part of no character"));
  }
  text_.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) text_ += text::next_code_point(text.data(), i);
}

bool Cursor::take(std::u32string_view word) noexcept {
  if (!std::u32string_view(text_).substr(at_).starts_with(word)) return false;
  at_ += word.size();
  return true;
}

static std::optional<char32_t> hex_value(char32_t c) noexcept {
  if (is_digit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return std::nullopt;
}

std::optional<char32_t> Cursor::hex(int digits) noexcept {
  char32_t value = 0;
  for (int i = 0; i < digits; ++i) {
    const auto digit = hex_value(peek(static_cast<std::size_t>(i)));
    if (!digit) return std::nullopt;
    value = value << 4 | *digit;
  }
  at_ += static_cast<std::size_t>(digits);
  return value;
}

std::optional<int> Cursor::number() noexcept {
  if (!is_digit(peek())) return std::nullopt;
  int value = 0;
  while (is_digit(peek())) {
    value = std::min(value * 10 + static_cast<int>(next() - '0'), kMaxRepeat + 1);
  }
  return value;
}

std::string Cursor::shown(std::size_t place) const {
  if (place >= text_.size()) return "the end";
  const char32_t c = text_[place];
  if (c == '\n' || c == '\r') return "a line end";
  return cat('\'', excerpt(place, place + 1), '\'');
}

std::string Cursor::excerpt(std::size_t from, std::size_t to) const {
  constexpr std::size_t kMost = 40;
  std::string out;
  const std::size_t end = std::min({to, text_.size(), from + kMost});
  for (std::size_t i = from; i < end; ++i) text::append_utf8(out, text_[i]);
  return printable(out) + (end < std::min(to, text_.size()) ? "..." : "");
}

Cursor::LineColumn Cursor::line_column(std::size_t place) const noexcept {
  LineColumn at;
  for (std::size_t i = 0; i < std::min(place, text_.size()); ++i) {
    const bool pair = text_[i] == '\r' && i + 1 < text_.size() && text_[i + 1] == '\n';
    if ((text_[i] == '\n' || text_[i] == '\r') && !pair) {
      at = {at.line + 1, 1};
    } else {
      ++at.column;
    }
  }
  return at;
}

}  // namespace cachalot::grammar
