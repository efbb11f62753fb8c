#include "text/pre_tokenizer.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "text/testing.h"

namespace cachalot::text {
namespace {

using Pieces = std::vector<std::string>;

Pieces split(const PreTokenizer& pre, std::string_view text) {
  RegexScratch scratch;
  Pieces pieces;
  pre.split(text, scratch, [&](std::string_view piece) { pieces.emplace_back(piece); });
  return pieces;
}

const PreTokenizer& scan() {
  static const PreTokenizer pre(v3_patterns());
  return pre;
}
const PreTokenizer& regexes() {
  static const PreTokenizer pre(v3_patterns(), PreTokenizer::Engine::kRegex);
  return pre;
}

TEST(PreTokenizerTest, SplitsByTheRulesOfV3) {
  const std::vector<std::pair<std::string, Pieces>> cases = {
      {"", {}},
      {"Hello world", {"Hello", " world"}},
      {"a  b", {"a", " ", " b"}},
      {"12345 6", {"123", "45", " ", "6"}},
      // The lookahead sees only its piece: before a digit the spaces stay together.
      {"a  1", {"a", "  ", "1"}},
      {"x \n\n  y", {"x", " \n\n", " ", " y"}},
      {"f(x)!\n", {"f", "(x", ")!\n"}},
      {"don't", {"don", "'t"}},
      {"\x01\x02z", {"\x01", "\x02z"}},
      {"漢字かな", {"漢字かな"}},
      {"a漢・b", {"a", "漢", "・", "b"}},
      {"\t\tx", {"\t", "\tx"}},
  };
  for (const auto& [text, want] : cases) {
    EXPECT_EQ(split(scan(), text), want) << text;
    EXPECT_EQ(split(regexes(), text), want) << text;
  }
}

TEST(PreTokenizerTest, ScanAndRegexesAgreeOnRandomText) {
  for (std::uint64_t seed = 0; seed < 20000; ++seed) {
    const std::string text = testing::random_text(seed, 1 + static_cast<int>(seed % 40));
    ASSERT_EQ(split(scan(), text), split(regexes(), text)) << "seed " << seed;
  }
}

TEST(PreTokenizerTest, ScanAndRegexesAgreeOnEveryCharacterBetweenOthers) {
  for (char32_t c = 1; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    if (c > 0x3200 && c < 0xE0000 && c % 7 != 0) continue;  // the big alphabets: a sample
    std::string text = "a";
    for (const char* behind : {"b", "!", " ", "\n", "1", "あ"}) {
      append_utf8(text, c);
      text += behind;
    }
    ASSERT_EQ(split(scan(), text), split(regexes(), text)) << std::hex << std::uint32_t{c};
  }
}

TEST(PreTokenizerTest, PiecesCoverTheText) {
  const PreTokenizer gpt2({kGpt2Pattern});
  for (std::uint64_t seed = 0; seed < 2000; ++seed) {
    const std::string text = testing::random_text(seed, 60);
    for (const PreTokenizer* pre : {&scan(), &gpt2}) {
      std::string joined;
      for (const std::string& piece : split(*pre, text)) {
        ASSERT_FALSE(piece.empty());
        joined += piece;
      }
      ASSERT_EQ(joined, text);
    }
  }
}

TEST(PreTokenizerTest, Gpt2Pattern) {
  const PreTokenizer pre({kGpt2Pattern});
  EXPECT_EQ(split(pre, "It's 2024,  ok?\n"),
            (Pieces{"It", "'s", " 2024", ",", " ", " ok", "?", "\n"}));
}

TEST(PreTokenizerTest, WhiteSpaceIsTheUnicodeProperty) {
  const PreTokenizer pre({"\\s+"});
  // U+0085 is white space, U+180E (Mongolian vowel separator) and U+FEFF are not.
  EXPECT_EQ(split(pre, "a\u0085\u00a0\u2009b\u180ec\ufeffd"),
            (Pieces{"a", "\u0085\u00a0\u2009", "b\u180ec\ufeffd"}));
}

// As the library whose format this is does it.
TEST(PreTokenizerTest, AnEmptyMatchPartsWhatLiesAroundIt) {
  EXPECT_EQ(split(PreTokenizer({"(?=[A-Z])"}), "fooBarBaz"), (Pieces{"foo", "Bar", "Baz"}));
  EXPECT_EQ(split(PreTokenizer({"(?=(?:\\p{N}{3})+(?!\\p{N}))"}), "x1234567"),
            (Pieces{"x1", "234", "567"}));
  EXPECT_EQ(split(PreTokenizer({"$"}), "a"), Pieces{"a"});
}

// A script is its own characters, without those that it shares: U+3002 is of no script by itself.
TEST(PreTokenizerTest, ScriptsAreNotScriptExtensions) {
  const std::string text = "\u4f60\u597d\u3002\u4e16";
  EXPECT_EQ(split(PreTokenizer({"\\p{Han}+"}), text), (Pieces{"\u4f60\u597d", "\u3002", "\u4e16"}));
  EXPECT_EQ(split(PreTokenizer({"\\P{Han}+"}), text), (Pieces{"\u4f60\u597d", "\u3002", "\u4e16"}));
}

TEST(PreTokenizerTest, RefusesWhatTheEnginesReadDifferently) {
  for (const char* pattern :
       {"\\h+", "[a-z&&[^b]]", "[[:alpha:]]", "(*SKIP)a", "[\\S]", "a\\", "\\p{N}{1,3}+", "a{,2}",
        "xa{2}?", "(?m:a.b)", "(?im)a", "\\v", "\\pL"}) {
    try {
      const PreTokenizer pre(std::vector<std::string>{pattern});
      ADD_FAILURE() << pattern << " was accepted";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::kUnsupported) << e.what();
    }
  }
  EXPECT_THROW(PreTokenizer(std::vector<std::string>{"(a"}), Error);
  for (const char* pattern :
       {"a{2,3}?", "a{2}", "a{2,}", "a{x}", "a{,}", "[{,2}]+", "(?i:'s)|(?=b)", "(?<!a)b", "(?:a)",
        "a++", "\\p{^L}", "\\p{Lu}", "\\p{Alphabetic}"}) {
    EXPECT_NO_THROW(PreTokenizer(std::vector<std::string>{pattern})) << pattern;
  }
}

}  // namespace
}  // namespace cachalot::text
