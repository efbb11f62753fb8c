// The Unicode classes the DeepSeek-V3 pre-tokenizer asks for, one byte per code point.
//
// Owns:    pages of 256 code points, filled from PCRE2's own tables when first touched, so that the
//          hand-written splitter and the regexes can never disagree about a character.
// Threads: reading is safe from any thread; a page is published once it is whole.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

namespace cachalot::text {

enum CharClass : std::uint8_t {
  kLetter = 1,    // \p{L}
  kMark = 2,      // \p{M}
  kPunct = 4,     // \p{P} or \p{S}
  kSpace = 8,     // White_Space except CR and LF
  kNewline = 16,  // CR, LF
  kNumber = 32,   // \p{N}
  kCjk = 64,      // 一-龥, ぀-ゟ, ゠-ヿ; comes on top of another class
  // 0: anything else: controls, formats, private use, unassigned
};

class CharClasses {
 public:
  static const CharClasses& instance();

  std::uint8_t of(char32_t c) const {
    if (c < 128) return ascii_[c];
    const std::uint8_t* page = pages_[c >> 8].load(std::memory_order_acquire);
    return (page != nullptr ? page : make_page(c >> 8))[c & 0xFF];
  }
  const std::array<std::uint8_t, 128>& ascii() const { return ascii_; }

 private:
  CharClasses();
  const std::uint8_t* make_page(std::uint32_t page) const;

  std::array<std::uint8_t, 128> ascii_;
  mutable std::array<std::atomic<const std::uint8_t*>, 0x1100> pages_{};
};

}  // namespace cachalot::text
