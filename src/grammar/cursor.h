// A stranger's pattern or grammar read one code point at a time.
//
// Owns:    the code points; borrows nothing.
// Threads: values.
// Errors:  kUsage where the text is longer than it may be or no UTF-8.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "grammar/grammar.h"

namespace cachalot::grammar {

// Groups within groups within groups: each is a call of the reader, and later of the compiler.
inline constexpr int kMaxNesting = 200;

class Cursor {
 public:
  static constexpr char32_t kEnd = kLastChar + 1;  // where nothing is left

  // `what` is for messages: "the pattern".
  Cursor(std::string_view text, std::size_t most_bytes, std::string_view what);

  bool at_end() const noexcept { return at_ == text_.size(); }
  char32_t peek(std::size_t ahead = 0) const noexcept {
    return ahead < text_.size() - at_ ? text_[at_ + ahead] : kEnd;
  }
  char32_t next() noexcept { return at_end() ? kEnd : text_[at_++]; }
  bool take(char32_t c) noexcept { return peek() == c && (++at_, true); }
  bool take(std::u32string_view word) noexcept;

  std::size_t place() const noexcept { return at_; }
  void go_to(std::size_t place) noexcept { at_ = place; }

  // Exactly so many hexadecimal digits; else nothing is taken.
  std::optional<char32_t> hex(int digits) noexcept;
  // A decimal number, at most kMaxRepeat + 1 (all that is larger is that); else nothing is taken.
  std::optional<int> number() noexcept;

  // What stands there, for messages: "'a'", "a line end", "the end".
  std::string shown(std::size_t place) const;
  // What stands there and further on, cut short.
  std::string excerpt(std::size_t from, std::size_t to) const;
  struct LineColumn {
    std::size_t line = 1, column = 1;
  };
  LineColumn line_column(std::size_t place) const noexcept;

 private:
  std::u32string text_;
  std::size_t at_ = 0;
};

constexpr bool is_digit(char32_t c) noexcept { return c >= '0' && c <= '9'; }
constexpr bool is_letter(char32_t c) noexcept {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

}  // namespace cachalot::grammar
