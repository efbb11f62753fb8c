#include "serve/thoughts.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/rng.h"

namespace cachalot::serve {
namespace {

using Part = ThoughtSplitter::Part;

void add(Part& sum, const Part& part) {
  sum.reasoning += part.reasoning;
  sum.content += part.content;
}

// `cut(i)`: whether a piece ends before byte i.
template <class Cut>
Part in_pieces(bool opened, const std::string& text, Cut&& cut) {
  ThoughtSplitter splitter(opened);
  Part sum;
  std::string piece;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (cut(i)) {
      add(sum, splitter.push(piece));
      piece.clear();
    }
    piece += text[i];
  }
  add(sum, splitter.push(piece));
  add(sum, splitter.finish());
  return sum;
}

Part whole(bool opened, const std::string& text) {
  return in_pieces(opened, text, [](std::size_t) { return false; });
}

struct Case {
  bool opened;
  std::string text, reasoning, content;
};
const std::vector<Case> kCases = {
    {true, "", "", ""},
    {true, "hm</think>yes", "hm", "yes"},
    {true, "\nhm\n\nwell\n</think>\n\nyes\n", "hm\n\nwell", "yes\n"},
    {true, "\n\n</think>\r\n\r\nyes", "", "yes"},
    {true, "never closed\n", "never closed\n", ""},
    {true, "ends in </thi", "ends in </thi", ""},
    {true, "a</think>b</think>c", "a", "b</think>c"},
    {true, "</</think>x", "</", "x"},
    {true, "a < b\n</ think>", "a < b\n</ think>", ""},
    {true, "a</think>", "a", ""},
    {false, "", "", ""},
    {false, "plain\n", "", "plain\n"},
    {false, " \n", "", " \n"},
    {false, "  indented", "", "  indented"},
    {false, "<think>\nhm\n</think>\n\nyes", "hm", "yes"},
    {false, " \n<think>hm</think>yes", "hm", "yes"},
    {false, "<thin", "", "<thin"},
    {false, "<thinking>", "", "<thinking>"},
    {false, "x <think>hm</think>", "", "x <think>hm</think>"},
    {false, "a</think>b", "", "a</think>b"},
};

TEST(ThoughtSplitterTest, CutsAtTheTag) {
  for (const Case& c : kCases) {
    const Part part = whole(c.opened, c.text);
    EXPECT_EQ(part.reasoning, c.reasoning) << c.text;
    EXPECT_EQ(part.content, c.content) << c.text;
  }
}

TEST(ThoughtSplitterTest, EveryByteAloneGivesTheSame) {
  for (const Case& c : kCases) {
    const Part part = in_pieces(c.opened, c.text, [](std::size_t) { return true; });
    EXPECT_EQ(part.reasoning, c.reasoning) << c.text;
    EXPECT_EQ(part.content, c.content) << c.text;
  }
}

TEST(ThoughtSplitterTest, DoesNotDependOnThePieces) {
  const std::string_view kPicks[] = {"<think>", "</think>", "\n", "\r\n", "<",    "/",  "</",
                                     "think>",  "</th",     "a",  " ",    "\n\n", "hm."};
  const Rng rng(1);
  for (std::uint64_t i = 0; i < 3000; ++i) {
    std::string text;
    for (std::uint64_t j = 0; j < 1 + i % 12; ++j) {
      text += kPicks[rng.block(i * 64 + j)[0] % std::size(kPicks)];
    }
    const bool opened = i % 2 == 0;
    const Part want = whole(opened, text);
    for (std::uint64_t round = 0; round < 4; ++round) {
      const Part part = in_pieces(opened, text, [&](std::size_t at) {
        return rng.block(1'000'000 + i * 1024 + round * 256 + at)[1] % (round + 2) == 0;
      });
      EXPECT_EQ(part.reasoning, want.reasoning) << text;
      EXPECT_EQ(part.content, want.content) << text;
    }
  }
}

TEST(ThoughtSplitterTest, HoldsBackNoMoreThanATagAndLineBreaks) {
  ThoughtSplitter splitter(true);
  EXPECT_EQ(splitter.push("so </thin").reasoning, "so ");
  EXPECT_EQ(splitter.push("gs").reasoning, "</things");
  EXPECT_EQ(splitter.push("\n\n").reasoning, "");
  EXPECT_EQ(splitter.push("then").reasoning, "\n\nthen");
  EXPECT_EQ(splitter.push("\n</think>\n").reasoning, "");
  const Part part = splitter.push("\nYes");
  EXPECT_EQ(part.reasoning, "");
  EXPECT_EQ(part.content, "Yes");
  // Content is told at once, tags and line breaks too.
  EXPECT_EQ(splitter.push("\n</thi").content, "\n</thi");
  EXPECT_EQ(splitter.finish().content, "");
}

}  // namespace
}  // namespace cachalot::serve
