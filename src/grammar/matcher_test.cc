#include "grammar/matcher.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/rng.h"
#include "grammar/accepts.h"
#include "grammar/grammar_case_test.h"

namespace cachalot::grammar {
namespace {

std::shared_ptr<const Vocabulary> small_vocabulary() {
  // Room for tokens that the tokenizer does not have, as the logits of models have it.
  const text::Tokenizer& tokenizer = testing::small_tokenizer();
  static const auto vocabulary =
      std::make_shared<const Vocabulary>(tokenizer, tokenizer.vocab_size() + 7);
  return vocabulary;
}

std::int32_t added(std::string_view content) { return *small_vocabulary()->added_token(content); }

// Grammars of all kinds: recursion, ambiguity, tokens, texts that end in each other.
std::vector<Grammar> grammars() {
  std::vector<Grammar> all(8);
  all[0].set_root(testing::json_grammar(all[0]));
  {
    Grammar& g = all[1];  // (a|an|and|the|then| )* with each text in several ways
    const ExprId words = g.choice({g.text("a"), g.text("an"), g.text("and"), g.text("the"),
                                   g.text("then"), g.text("n"), g.text(" ")});
    g.set_root(g.repeat(words, 0, kUnbounded));
  }
  {
    Grammar& g = all[2];  // ... name ... : the middle may begin anywhere
    const ExprId any = g.repeat(g.chars({{0, kLastChar}}), 0, kUnbounded);
    g.set_root(g.sequence({any, g.text("name"), any}));
  }
  {
    Grammar& g = all[3];
    const ExprId json = testing::json_grammar(g);
    g.set_root(g.sequence({g.token("<call>"), json, g.token("</call>")}));
  }
  {
    Grammar& g = all[4];  // one rule in two places: what follows it differs
    const ExprId word = g.rule("word", g.repeat(g.chars({{'a', 'z'}}), 1, 8));
    g.set_root(g.choice({g.sequence({g.text("["), word, g.text("\", \"age\": "), word}),
                         g.sequence({g.text("{"), word, g.text("\": "), word, g.text("}")})}));
  }
  {
    Grammar& g = all[6];  // so many repetitions that most of them are twins
    const ExprId wide = g.chars({{0x100, 0x17F}, {' ', '~'}});
    g.set_root(g.sequence({g.text("\""), g.repeat(wide, 280, 900), g.text("\", \"age\": 7")}));
  }
  {
    Grammar& g = all[7];  // the same within a rule, around another one, and in each other
    const ExprId word = g.rule("word", g.repeat(g.chars({{'a', 'z'}}), 1, 400));
    const ExprId words = g.repeat(g.sequence({word, g.text(" ")}), 0, 300);
    g.set_root(g.repeat(g.sequence({words, g.text("\n")}), 1, 300));
  }
  {
    Grammar& g = all[5];  // characters of more bytes, and a bounded number of them
    g.set_root(g.sequence(
        {g.repeat(g.chars({{0x100, 0x17F}, {0x4E00, 0x9FFF}, {'a', 'z'}}), 2, 5), g.text("\n")}));
  }
  return all;
}

TEST(Vocabulary, IsATreeOfTheTokensThatAGrammarMayRead) {
  const auto vocabulary = small_vocabulary();
  const text::Tokenizer& tokenizer = vocabulary->tokenizer();
  std::vector<int> found(static_cast<std::size_t>(vocabulary->size()), 0);
  std::string path;
  const auto tree = vocabulary->tree();
  for (std::size_t i = 0; i < tree.size(); ++i) {
    path.resize(static_cast<std::size_t>(tree[i].depth));
    path += static_cast<char>(tree[i].byte);
    for (const std::int32_t token : vocabulary->tokens_at(i)) {
      EXPECT_EQ(vocabulary->bytes(token), path);
      ++found[static_cast<std::size_t>(token)];
    }
    std::size_t end = i + 1;
    while (end < tree.size() && tree[end].depth > tree[i].depth) ++end;
    EXPECT_EQ(static_cast<std::size_t>(tree[i].skip), end);
  }
  for (std::int32_t t = 0; t < vocabulary->size(); ++t) {
    const bool readable = !vocabulary->bytes(t).empty();
    EXPECT_EQ(found[static_cast<std::size_t>(t)], readable ? 1 : 0) << t;
    if (!tokenizer.has(t) || tokenizer.is_special(t)) {
      EXPECT_FALSE(readable) << t;
    } else if (tokenizer.is_added(t)) {
      EXPECT_EQ(vocabulary->bytes(t), token_bytes(t));
    } else if (readable) {
      EXPECT_EQ(vocabulary->bytes(t), tokenizer.id_to_bytes(t));
    } else {
      EXPECT_GE(static_cast<std::uint8_t>(tokenizer.id_to_bytes(t)[0]), 0xC0u);
    }
  }
  EXPECT_FALSE(vocabulary->added_token("<｜begin▁of▁sentence｜>"));  // special
  EXPECT_FALSE(vocabulary->added_token("name"));
}

// The same as asking the plain definition about each token by itself, along random texts.
TEST(Machine, AllowsWhatTheDefinitionDoes) {
  const auto vocabulary = small_vocabulary();
  int grammar = 0;
  for (const Grammar& g : grammars()) {
    SCOPED_TRACE(grammar++);
    const auto find = [&](std::string_view t) { return vocabulary->added_token(t); };
    const Automaton automaton = compile(g, find);
    Machine large(automaton, *vocabulary),
        small(automaton, *vocabulary, {.states = 10, .masks = 2});
    const Rng rng(static_cast<std::uint64_t>(grammar));
    std::uint64_t draw = 0;
    for (int text = 0; text < 4; ++text) {
      std::string so_far;
      Machine::Position in_large = large.start(), in_small = small.start();
      for (int step = 0; step < 12; ++step) {
        const auto mask = large.allowed(in_large);
        ASSERT_EQ(*mask, *small.allowed(in_small)) << so_far;
        std::vector<std::int32_t> choices;
        for (std::int32_t t = 0; t < vocabulary->size(); ++t) {
          const std::string_view bytes = vocabulary->bytes(t);
          const bool want =
              !bytes.empty() && accepts_prefix(automaton, so_far + std::string(bytes));
          ASSERT_EQ(mask->has(t), want) << "after " << so_far << " token " << bytes;
          if (want) choices.push_back(t);
        }
        ASSERT_EQ(large.is_complete(in_large), accepts(automaton, so_far)) << so_far;
        ASSERT_EQ(large.is_end(in_large), choices.empty()) << so_far;
        ASSERT_EQ(small.is_end(in_small), choices.empty()) << so_far;
        if (choices.empty()) break;
        const std::int32_t token = choices[rng.block(draw++)[0] % choices.size()];
        so_far += vocabulary->bytes(token);
        ASSERT_TRUE(large.read(in_large, vocabulary->bytes(token)));
        ASSERT_TRUE(small.read(in_small, vocabulary->bytes(token)));
      }
    }
  }
}

// At every distance from the end of many repetitions, whichever place the mask was found for first.
TEST(Machine, TwinsAllowTheSame) {
  const auto vocabulary = small_vocabulary();
  Grammar g;
  g.set_root(g.sequence({g.repeat(g.chars({{' ', '~'}, {0x141, 0x142}}), 270, 600), g.text("\n")}));
  const Automaton automaton = compile(g);
  for (const bool from_the_end : {false, true}) {
    Machine machine(automaton, *vocabulary);
    for (int i = 0; i <= 75; ++i) {
      const int at = (from_the_end ? 75 - i : i) * 8;  // characters
      std::string text;
      for (int c = 0; c < at; ++c) text += c % 50 == 7 ? "Ł" : "w";
      for (const std::string_view half : {"", "\xC5"}) {  // within a character, too
        if (at == 600 && !half.empty()) continue;
        Machine::Position p = machine.start();
        ASSERT_TRUE(machine.read(p, text + std::string(half)));
        const auto mask = machine.allowed(p);
        for (std::int32_t t = 0; t < vocabulary->size(); ++t) {
          const std::string_view bytes = vocabulary->bytes(t);
          if (bytes.empty()) continue;
          Machine::Position q = machine.start();
          const bool want = machine.read(q, text + std::string(half) + std::string(bytes));
          ASSERT_EQ(mask->has(t), want) << at << " " << bytes;
        }
      }
    }
  }
}

TEST(Machine, KnowsWhatIsCertain) {
  const auto vocabulary = small_vocabulary();
  Grammar g;
  const ExprId digit = g.chars({{'0', '9'}});
  g.set_root(g.sequence({g.choice({g.text("{\"name\": "), g.text("{\"note\": ")}), digit,
                         g.rule("end", g.text(", \"age\": 7}"))}));
  Machine machine(compile(g), *vocabulary);
  Machine::Position p = machine.start();
  EXPECT_EQ(machine.forced(p, 100), "{\"n");
  EXPECT_EQ(machine.forced(p, 2), "{\"");
  EXPECT_TRUE(machine.read(p, "{\"n"));
  EXPECT_EQ(machine.forced(p, 100), "");
  EXPECT_FALSE(machine.read(p, "x"));  // and is where it was
  EXPECT_TRUE(machine.read(p, "a"));
  EXPECT_EQ(machine.forced(p, 100), "me\": ");
  EXPECT_TRUE(machine.read(p, "me\": 3"));
  EXPECT_EQ(machine.forced(p, 100), ", \"age\": 7}");
  EXPECT_TRUE(machine.read(p, ", \"age\": 7}"));
  EXPECT_TRUE(machine.is_complete(p));
  EXPECT_TRUE(machine.is_end(p));
  EXPECT_EQ(machine.forced(p, 100), "");
  EXPECT_EQ(machine.allowed(p)->count(), 0);
}

TEST(Machine, RefusesWhatIsTooAmbiguous) {
  Grammar g;  // the 20th character from the end is an a: 2^20 states
  const ExprId ab = g.chars({{'a', 'b'}});
  const ExprId any = g.repeat(ab, 0, kUnbounded);
  g.set_root(g.sequence({any, g.text("a"), g.repeat(ab, 19, 19)}));
  Machine machine(compile(g), *small_vocabulary());
  Machine::Position p = machine.start();
  const Rng rng(1);
  std::string text;
  for (std::uint64_t i = 0; i < 2'000'000; ++i) text += rng.block(i)[0] % 2 == 0 ? 'a' : 'b';
  EXPECT_THROW(machine.read(p, text), Error);
}

TEST(Matcher, WaitsForItsBeginning) {
  Grammar g;
  g.set_root(g.text("ok"));
  const text::Tokenizer& tokenizer = testing::small_tokenizer();
  for (const bool must_begin : {false, true}) {
    const auto constraint =
        std::make_shared<const Constraint>(small_vocabulary(), g, "</think>", must_begin);
    for (const bool spelt : {false, true}) {
      Matcher m(constraint);
      EXPECT_EQ(m.allowed(), nullptr);
      EXPECT_EQ(m.may_end(), !must_begin);
      EXPECT_FALSE(m.must_end());
      EXPECT_TRUE(m.forced(4).empty());
      for (const std::int32_t t : tokenizer.encode("the whale < /think> </thin")) {
        EXPECT_TRUE(m.accept(t));
      }
      EXPECT_FALSE(m.has_begun());
      EXPECT_TRUE(m.accept(small_vocabulary()->size() - 1));  // no token at all
      if (spelt) {
        for (const std::int32_t t : tokenizer.encode_plain("</think>")) EXPECT_TRUE(m.accept(t));
      } else {
        EXPECT_TRUE(m.accept(added("</think>")));
      }
      EXPECT_TRUE(m.has_begun());
      EXPECT_FALSE(m.may_end());
      EXPECT_EQ(tokenizer.decode(m.forced(4)), "ok");
      EXPECT_FALSE(m.accept(added("</think>")));
      for (const std::int32_t t : tokenizer.encode("ok")) EXPECT_TRUE(m.accept(t));
      EXPECT_TRUE(m.may_end());
      EXPECT_TRUE(m.must_end());
    }
  }
}

TEST(Matcher, ForcesTokensThatAreNotSpeltOut) {
  Grammar g;
  g.set_root(g.sequence({g.text("Łx"), g.token("<call>"), g.text("age"), g.token("</call>"),
                         g.chars({{0x141, 0x142}})}));  // Ł or ł: their first byte is certain
  Matcher m(std::make_shared<const Constraint>(small_vocabulary(), g));
  const text::Tokenizer& tokenizer = testing::small_tokenizer();
  const std::vector<std::int32_t> forced = m.forced(50);
  EXPECT_EQ(tokenizer.decode(forced), "Łx<call>age</call>");
  EXPECT_NE(std::find(forced.begin(), forced.end(), added("<call>")), forced.end());
  for (const std::int32_t t : forced) EXPECT_TRUE(m.accept(t));
  EXPECT_FALSE(m.may_end());
  EXPECT_EQ(m.forced(50).size(), 0u);
  EXPECT_LE(Matcher(m).forced(1).size(), 1u);
  for (const std::int32_t t : tokenizer.encode("ł")) EXPECT_TRUE(m.accept(t));
  EXPECT_TRUE(m.must_end());
}

// A model may have fewer logits than its tokenizer has tokens.
TEST(Matcher, ForcesNoTokenThatTheModelHasNot) {
  const text::Tokenizer& tokenizer = testing::small_tokenizer();
  const std::vector<std::int32_t> ids = tokenizer.encode("x name");
  ASSERT_GT(ids.size(), 1u);
  ASSERT_LT(ids.front(), ids.back());  // a byte, then what was learnt
  Grammar g;
  g.set_root(g.text("x name"));
  const auto vocabulary = std::make_shared<const Vocabulary>(tokenizer, ids.back());
  Matcher m(std::make_shared<const Constraint>(vocabulary, g));
  EXPECT_EQ(m.forced(8), std::vector<std::int32_t>(ids.begin(), ids.end() - 1));
}

TEST(Matcher, CopiesGoOnByThemselves) {
  Grammar g;
  g.set_root(testing::json_grammar(g));
  Matcher m(std::make_shared<const Constraint>(small_vocabulary(), g));
  const text::Tokenizer& tokenizer = testing::small_tokenizer();
  for (const std::int32_t t : tokenizer.encode("[1, ")) ASSERT_TRUE(m.accept(t));
  Matcher ahead = m;
  for (const std::int32_t t : tokenizer.encode("{\"name\": 2}]")) ASSERT_TRUE(ahead.accept(t));
  EXPECT_TRUE(ahead.must_end());
  for (const std::int32_t t : tokenizer.encode("true]")) ASSERT_TRUE(m.accept(t));
  EXPECT_TRUE(m.must_end());
}

}  // namespace
}  // namespace cachalot::grammar
