#include "text/utf8.h"

#include <gtest/gtest.h>

#include "text/byte_level.h"

namespace cachalot::text {
namespace {

constexpr const char* kReplacement = "\xEF\xBF\xBD";

std::string replacements(int n) {
  std::string text;
  for (int i = 0; i < n; ++i) text += kReplacement;
  return text;
}

TEST(Utf8Test, OneReplacementPerMaximalSubpart) {
  using namespace std::string_literals;
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"plain", "plain"},
      {"\xFF", replacements(1)},
      {"\xC3(", replacements(1) + "("},
      {"\xE2\x82", replacements(1)},  // a truncated character: one
      {"\xE2\x82"
       "a",
       replacements(1) + "a"},
      {"\xC0\xAF", replacements(2)},      // overlong: each byte
      {"\xED\xA0\x80", replacements(3)},  // a surrogate
      {"\xF0\x80\x80", replacements(3)},
      {"\xF4\x90\x80\x80", replacements(4)},  // past U+10FFFF
      {"\xF0\x9F\x98\x80\xF0\x9F", "\xF0\x9F\x98\x80" + replacements(1)},
      {"\0a"s, "\0a"s},
  };
  for (const auto& [bytes, want] : cases) EXPECT_EQ(replace_invalid_utf8(bytes), want);
}

TEST(Utf8Test, EveryCodePointRoundTrips) {
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    append_utf8(text, c);
    const Utf8Step step = utf8_step(text, 0);
    ASSERT_EQ(step.kind, Utf8Step::Kind::kValid);
    ASSERT_EQ(step.code_point, c);
    std::size_t at = 0;
    ASSERT_EQ(next_code_point(text.data(), at), c);
    ASSERT_EQ(at, text.size());
    for (std::size_t cut = 1; cut < text.size(); ++cut) {
      ASSERT_EQ(utf8_step(std::string_view(text).substr(0, cut), 0).kind,
                Utf8Step::Kind::kIncomplete);
    }
  }
}

TEST(Utf8Test, FirstInvalidIsItsOffset) {
  EXPECT_EQ(first_invalid_utf8("abc"), 3u);
  EXPECT_EQ(first_invalid_utf8("ab\x80"
                               "c"),
            2u);
  EXPECT_EQ(first_invalid_utf8("ab\xE2\x82"), 2u);
}

TEST(ByteLevelTest, AlphabetIsOneToOne) {
  for (int b = 0; b < 256; ++b) EXPECT_EQ(byte_of(byte_alphabet()[b]), b);
  EXPECT_EQ(to_byte_level(" the\n"), "\u0120the\u010a");
  EXPECT_EQ(from_byte_level("\u0120the\u010a"), " the\n");
  EXPECT_EQ(from_byte_level("<\uff5cUser\uff5c>"), std::nullopt);
  EXPECT_EQ(byte_of(0x144), -1);
  EXPECT_EQ(byte_of(' '), -1);
}

}  // namespace
}  // namespace cachalot::text
