// The three patterns of DeepSeek-V3's pre-tokenizer, written out as one scan over character
// classes. pre_tokenizer_test compares it with the regexes, run one after the other, on random
// text.
//
// The patterns, in the order they apply, each inside the pieces the one before left:
//   1. \p{N}{1,3}     2. [一-龥぀-ゟ゠-ヿ]+
//   3. punctuation + ASCII letters | (one other character)? letters and marks |
//      (space)? punctuation, newlines | spaces up to their last newline |
//      spaces, but not the last one before a word | spaces
// A character that fits none of them starts a piece that lasts to the next match.
//
// Threads: V3Splitter is a value over borrowed text.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/char_class.h"
#include "text/utf8.h"

namespace cachalot::text {

// The patterns as published, for recognition and for the tokenizers trained here.
const std::vector<std::string>& v3_patterns();

class V3Splitter {
 public:
  // `text` is VALID UTF-8.
  explicit V3Splitter(std::string_view text)
      : text_(text), classes_(CharClasses::instance()), ascii_(classes_.ascii().data()) {}

  // The end of the piece that begins at `begin` < text.size().
  std::size_t next(std::size_t begin) const;

 private:
  // A character that belongs to another stage's piece ends this one, like the end of the text.
  static constexpr std::uint8_t kStop = 128;
  enum class Stage { kCjk, kRest };
  struct Char {
    std::uint8_t bits;
    std::size_t end;
  };
  Char at(std::size_t pos) const {
    const auto byte = static_cast<unsigned char>(text_[pos]);
    if (byte < 128) return {ascii_[byte], pos + 1};
    const std::uint8_t bits = classes_.of(next_code_point(text_.data(), pos));
    return {bits, pos};
  }
  template <Stage S>
  Char peek(std::size_t pos) const;
  template <Stage S>
  std::size_t run(std::size_t pos, unsigned mask) const;
  template <Stage S>
  std::size_t match(std::size_t pos) const;
  template <Stage S>
  std::size_t spaces(std::size_t pos) const;
  template <Stage S>
  std::size_t piece(std::size_t begin) const;
  std::size_t numbers(std::size_t begin) const;

  std::string_view text_;
  const CharClasses& classes_;
  const std::uint8_t* ascii_;
};

}  // namespace cachalot::text
