#include "grammar/automaton.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "grammar/accepts.h"
#include "grammar/utf8_ranges.h"

namespace cachalot::grammar {
namespace {

std::string utf8(char32_t c) {
  std::string s;
  if (c < 0x80) {
    s += static_cast<char>(c);
  } else if (c < 0x800) {
    s += static_cast<char>(0xC0 | c >> 6);
    s += static_cast<char>(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    s += static_cast<char>(0xE0 | c >> 12);
    s += static_cast<char>(0x80 | (c >> 6 & 0x3F));
    s += static_cast<char>(0x80 | (c & 0x3F));
  } else {
    s += static_cast<char>(0xF0 | c >> 18);
    s += static_cast<char>(0x80 | (c >> 12 & 0x3F));
    s += static_cast<char>(0x80 | (c >> 6 & 0x3F));
    s += static_cast<char>(0x80 | (c & 0x3F));
  }
  return s;
}

bool is_in(const std::vector<CharRange>& ranges, char32_t c) {
  for (const CharRange& r : ranges) {
    if (r.first <= c && c <= r.last) return true;
  }
  return false;
}

std::string refusal(const Grammar& g, const FindToken& find = nullptr) {
  try {
    compile(g, find);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kUsage);
    return e.what();
  }
  return "";
}

TEST(CharRanges, AreJoinedAndCutAtSurrogates) {
  const std::vector<CharRange> want{{'a', 'f'}, {0xD000, 0xD7FF}, {0xE000, 0xE001}};
  EXPECT_EQ(normalised({{0xD000, 0xE001}, {'c', 'f'}, {'a', 'b'}, {'b', 'c'}, {'z', 'y'}}), want);
  EXPECT_EQ(complement(complement(want)), want);
  EXPECT_TRUE(complement({{0, kLastChar}}).empty());
  EXPECT_EQ(intersection({{'a', 'k'}}, {{'c', 'e'}, {'j', 'z'}}),
            (std::vector<CharRange>{{'c', 'e'}, {'j', 'k'}}));
}

TEST(Utf8Ranges, HoldEachCodePointOnceAndNothingElse) {
  const std::vector<std::vector<CharRange>> cases = {
      {{0, kLastChar}},     {{0x7E, 0x81}},
      {{0x7FF, 0x801}},     {{0xFFFE, 0x10001}},
      {{0x3FFFF, 0x40000}}, {{'a', 'c'}, {0xE9, 0xE9}, {0x4E00, 0x9FFF}, {0x1F600, 0x1F64F}}};
  for (const std::vector<CharRange>& given : cases) {
    const std::vector<CharRange> ranges = normalised(given);
    const std::vector<ByteSequence> sequences = utf8_ranges(ranges);
    for (char32_t c = 0; c <= kLastChar; c += c % 61 == 0 ? 1 : (c > 0x12000 ? 7 : 1)) {
      if (c >= 0xD800 && c <= 0xDFFF) continue;
      const std::string bytes = utf8(c);
      int found = 0;
      for (const ByteSequence& s : sequences) {
        bool fits = static_cast<std::size_t>(s.length) == bytes.size();
        for (std::size_t i = 0; fits && i < bytes.size(); ++i) {
          const auto b = static_cast<std::uint8_t>(bytes[i]);
          fits = s.bytes[i].first <= b && b <= s.bytes[i].last;
        }
        found += fits ? 1 : 0;
      }
      ASSERT_EQ(found, is_in(ranges, c) ? 1 : 0) << static_cast<std::uint32_t>(c);
    }
  }
}

TEST(Automaton, MatchesWhatExpressionsSay) {
  Grammar g;
  const ExprId digit = g.chars({{'0', '9'}});
  const ExprId word = g.choice({g.text("cat"), g.text("car"), g.text("caribou")});
  g.set_root(g.sequence({word, g.repeat(g.sequence({g.text(","), digit}), 1, 3),
                         g.optional(g.text("!")), g.repeat(g.text("ab"), 0, kUnbounded)}));
  const Automaton a = compile(g);
  for (const char* yes : {"cat,1", "car,1,2,3", "caribou,0!", "cat,1ab", "cat,1!abababab"}) {
    EXPECT_TRUE(accepts(a, yes)) << yes;
  }
  for (const char* no : {"", "ca", "cat", "cat,", "cat,1,2,3,4", "cat,1!!", "cat,1a", "cats,1"}) {
    EXPECT_FALSE(accepts(a, no)) << no;
  }
  EXPECT_TRUE(accepts_prefix(a, "cari"));
  EXPECT_FALSE(accepts_prefix(a, "cat!"));
}

TEST(Automaton, FollowsRulesThatCallThemselves) {
  Grammar g;
  const RuleId list = g.declare("list");
  const ExprId item = g.choice({g.use(list), g.text("x")});
  g.define(list, g.sequence({g.text("["),
                             g.optional(g.sequence(
                                 {item, g.repeat(g.sequence({g.text(","), item}), 0, kUnbounded)})),
                             g.text("]")}));
  g.set_root(g.use(list));
  const Automaton a = compile(g);
  EXPECT_TRUE(accepts(a, "[]"));
  EXPECT_TRUE(accepts(a, "[[x,[x]],x,[[]]]"));
  EXPECT_FALSE(accepts(a, "[[x,[x]],x,[[]]"));
  EXPECT_FALSE(accepts(a, "[x,]"));
  const std::string deep(3000, '[');
  EXPECT_TRUE(accepts_prefix(a, deep));
}

TEST(Automaton, EndlessRepetitionOfNothingEnds) {
  Grammar g;
  const ExprId maybe = g.optional(g.text("a"));
  const ExprId rule = g.rule("maybe", maybe);
  g.set_root(g.sequence({g.repeat(maybe, 0, kUnbounded), g.repeat(rule, 2, kUnbounded)}));
  const Automaton a = compile(g);
  EXPECT_TRUE(accepts(a, ""));
  EXPECT_TRUE(accepts(a, "aaaa"));
  EXPECT_FALSE(accepts(a, "ab"));
}

TEST(Automaton, PartsThatNothingMatchesAreLeftOut) {
  Grammar g;
  const RuleId endless = g.declare("endless");  // never comes to an end
  g.define(endless, g.sequence({g.text("a"), g.use(endless)}));
  g.set_root(g.choice({g.sequence({g.text("x"), g.use(endless)}),
                       g.sequence({g.text("y"), g.repeat(g.nothing(), 0, 5)}),
                       g.sequence({g.text("z"), g.chars({})})}));
  const Automaton a = compile(g);
  EXPECT_FALSE(accepts_prefix(a, "x"));
  EXPECT_FALSE(accepts_prefix(a, "z"));
  EXPECT_TRUE(accepts(a, "y"));

  g.set_root(g.use(endless));
  EXPECT_NE(refusal(g).find("nothing at all matches"), std::string::npos);
}

TEST(Automaton, RefusesWhatCannotBeWalked) {
  Grammar g;
  const RuleId a = g.declare("a"), b = g.declare("b");
  g.define(a, g.sequence({g.optional(g.text("x")), g.use(b), g.text("y")}));
  g.define(b, g.choice({g.text("z"), g.use(a)}));
  g.set_root(g.use(a));
  EXPECT_NE(refusal(g).find("left recursion"), std::string::npos);

  Grammar undefined;
  undefined.set_root(undefined.use(undefined.declare("gone")));
  EXPECT_NE(refusal(undefined).find("\"gone\""), std::string::npos);

  Grammar large;
  ExprId e = large.text("a");
  for (int i = 0; i < 4; ++i) e = large.repeat(e, 1000, 1000);
  large.set_root(e);
  EXPECT_NE(refusal(large).find("too large"), std::string::npos);

  Grammar empty;  // a thousand times a thousand nothings
  ExprId n = empty.text("");
  for (int i = 0; i < 4; ++i) n = empty.repeat(n, 1000, 1000);
  empty.set_root(n);
  EXPECT_NE(refusal(empty).find("too large"), std::string::npos);

  Grammar deep;
  ExprId d = deep.text("a");
  for (int i = 0; i < 5000; ++i) d = deep.optional(d);
  deep.set_root(d);
  EXPECT_NE(refusal(deep).find("flatter"), std::string::npos);
}

TEST(Automaton, ManyAlternativesInALoopStaySmall) {
  Grammar g;
  std::vector<ExprId> words;
  for (int i = 0; i < 2000; ++i) words.push_back(g.text("w" + std::to_string(i) + ";"));
  g.set_root(g.repeat(g.choice(words), 0, kUnbounded));
  const Automaton a = compile(g);
  std::size_t edges = 0;
  for (const Node& n : a.nodes) edges += n.edges.size();
  EXPECT_LT(edges, 20'000u);
  EXPECT_TRUE(accepts(a, "w1999;w0;w77;"));
  EXPECT_FALSE(accepts(a, "w2000;"));
}

TEST(Automaton, TokensAreNotSpeltOut) {
  Grammar g;
  g.set_root(g.sequence({g.token("<call>"), g.text("f()")}));
  const auto find = [](std::string_view content) {
    return content == "<call>" ? std::optional<std::int32_t>(0x01020304) : std::nullopt;
  };
  const Automaton a = compile(g, find);
  EXPECT_TRUE(accepts(a,
                      "\xFF\x04\x03\x02\x01"
                      "f()"));
  EXPECT_FALSE(accepts_prefix(a, "<"));
  g.set_root(g.token("<other>"));
  EXPECT_NE(refusal(g, find).find("<other>"), std::string::npos);
  EXPECT_NE(refusal(g).find("<other>"), std::string::npos);
}

TEST(Grammar, RefusesImpossibleRepetitions) {
  Grammar g;
  const ExprId a = g.text("a");
  EXPECT_THROW(g.repeat(a, 3, 2), Error);
  EXPECT_THROW(g.repeat(a, -1, 2), Error);
  EXPECT_THROW(g.repeat(a, 0, kMaxRepeat + 1), Error);
  EXPECT_NO_THROW(g.repeat(a, 3, kUnbounded));
}

TEST(Grammar, GrowsOnlySoFar) {
  Grammar g;
  EXPECT_THROW(g.text(std::string(kMaxParts, 'a')), Error);
}

}  // namespace
}  // namespace cachalot::grammar
