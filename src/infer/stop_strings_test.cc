#include "infer/stop_strings.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace cachalot::infer {
namespace {

struct Result {
  std::string text;
  bool stopped;
  bool operator==(const Result&) const = default;
};

Result in_pieces(const std::vector<std::string>& stops, const std::string& text, std::size_t size) {
  StopStrings s(stops);
  std::string out;
  for (std::size_t i = 0; i < text.size(); i += size) out += s.push(text.substr(i, size));
  out += s.finish();
  return {out, s.stopped()};
}

TEST(StopStringsTest, CutsBeforeTheFirstStop) {
  EXPECT_EQ(in_pieces({"END"}, "one END two", 3), (Result{"one ", true}));
  EXPECT_EQ(in_pieces({"END"}, "one EN", 1), (Result{"one EN", false}));
  EXPECT_EQ(in_pieces({"x"}, "", 1), (Result{"", false}));
  EXPECT_EQ(in_pieces({"a", "b"}, "zzba", 2), (Result{"zz", true}));
}

TEST(StopStringsTest, HoldsBackWhatCouldBecomeAStop) {
  StopStrings s({"\n\nUser:"});
  EXPECT_EQ(s.push("hello\n"), "hello");
  EXPECT_EQ(s.push("\nUs"), "");
  EXPECT_EQ(s.push("e it"), "\n\nUse it");
  EXPECT_EQ(s.push("\n\nUser"), "");
  EXPECT_EQ(s.finish(), "\n\nUser");
  EXPECT_FALSE(s.stopped());
}

TEST(StopStringsTest, NothingComesAfterAStop) {
  StopStrings s({"ab"});
  EXPECT_EQ(s.push("1ab2"), "1");
  EXPECT_TRUE(s.stopped());
  EXPECT_EQ(s.matched(), "ab");
  EXPECT_EQ(s.push("more"), "");
  EXPECT_EQ(s.finish(), "");
}

TEST(StopStringsTest, FindsAStopThatOverlapsItself) {
  EXPECT_EQ(in_pieces({"aab"}, "aaab!", 1), (Result{"a", true}));
  EXPECT_EQ(in_pieces({"abab!"}, "ababab!", 1), (Result{"ab", true}));
}

TEST(StopStringsTest, TheLongestCompleteAtOneByteCounts) {
  EXPECT_EQ(in_pieces({"c", "abc"}, "xabc", 4), (Result{"x", true}));
  EXPECT_EQ(in_pieces({"abc", "b"}, "xabc", 4), (Result{"xa", true}));
}

TEST(StopStringsTest, DoesNotDependOnThePieces) {
  const std::vector<std::string> stops{"aba", "bb", "caab"};
  std::string text;
  for (int i = 0; i < 3 * 3 * 3 * 3 * 3 * 3 * 3; ++i) {
    text.clear();
    for (int n = i, j = 0; j < 7; ++j, n /= 3) text += "abc"[n % 3];
    const Result want = in_pieces(stops, text, text.size());
    for (std::size_t size = 1; size < 7; ++size) EXPECT_EQ(in_pieces(stops, text, size), want);
    // Against the definition: the first end at which a stop string is complete.
    std::string expected = text;
    bool stopped = false;
    for (std::size_t end = 1; end <= text.size() && !stopped; ++end) {
      std::size_t longest = 0;
      for (const auto& s : stops) {
        if (text.substr(0, end).ends_with(s)) longest = std::max(longest, s.size());
      }
      if (longest > 0) {
        expected = text.substr(0, end - longest);
        stopped = true;
      }
    }
    EXPECT_EQ(want, (Result{expected, stopped})) << text;
  }
}

TEST(StopStringsTest, WithoutStopsEverythingPasses) {
  EXPECT_EQ(in_pieces({}, "any\ntext", 2), (Result{"any\ntext", false}));
}

TEST(StopStringsTest, RefusesAnEmptyStop) { EXPECT_THROW(StopStrings({"a", ""}), Error); }

}  // namespace
}  // namespace cachalot::infer
