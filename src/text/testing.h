// For the tests of this folder: the real DeepSeek-V3 tokenizer, and random text that provokes a
// splitter.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "base/rng.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace cachalot::text::testing {

inline std::string read_all(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in) << "cannot read " << path;
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void write_all(const std::filesystem::path& path, std::string_view text) {
  std::ofstream(path, std::ios::binary) << text;
}

// $CACHALOT_TOKENIZER, else where tools/fetch_tokenizer.sh puts it; a failed test if it is missing.
inline const Tokenizer* deepseek_v3() {
  static const auto* tokenizer = []() -> const Tokenizer* {
    const char* given = std::getenv("CACHALOT_TOKENIZER");
    const std::filesystem::path folder =
        given != nullptr
            ? std::filesystem::path(given)
            : std::filesystem::path(CACHALOT_SOURCE_DIR) / "build" / "data" / "deepseek_v3";
    if (!std::filesystem::exists(folder / "tokenizer.json")) return nullptr;
    return new Tokenizer(Tokenizer::load(folder));
  }();
  if (tokenizer == nullptr) {
    ADD_FAILURE() << "the DeepSeek-V3 tokenizer is not here: run tools/fetch_tokenizer.sh, or set "
                     "CACHALOT_TOKENIZER to a folder that has its tokenizer.json";
  }
  return tokenizer;
}

// Valid UTF-8 of `characters` characters, drawn so that every branch of the patterns is met often.
inline std::string random_text(std::uint64_t seed, int characters) {
  const Rng rng(seed);
  static const char32_t kPicks[] = {
      ' ',    ' ',    ' ',    '\n',   '\r',   '\t',     'a',     'Z',     'q',     '0',    '7',
      '\'',   '.',    '$',    '<',    '_',    0x00,     0x07,    0x7F,    0x85,    0xA0,   0xAD,
      0xB2,   0xE9,   0x301,  0x3C3,  0x5D0,  0x663,    0x180E,  0x200B,  0x2003,  0x2019, 0x2028,
      0x20AC, 0x2163, 0x3000, 0x3001, 0x3007, 0x303F,   0x3040,  0x3041,  0x3097,  0x3099, 0x309B,
      0x30A0, 0x30A2, 0x30FB, 0x30FC, 0x30FF, 0x3100,   0x4DFF,  0x4E00,  0x9FA5,  0x9FA6, 0xAC00,
      0xD7A3, 0xE000, 0xFEFF, 0xFF10, 0xFFFD, 0x10FFFF, 0x1D7CE, 0x1F600, 0x20000, 0xE0100};
  std::string text;
  for (int i = 0; i < characters; ++i) {
    const auto block = rng.block(i);
    if (block[0] % 16 != 0) {
      append_utf8(text, kPicks[block[1] % std::size(kPicks)]);
      continue;
    }
    char32_t any = block[1] % 0x110000;
    if (any >= 0xD800 && any < 0xE000) any = 'x';
    append_utf8(text, any);
  }
  return text;
}

}  // namespace cachalot::text::testing
