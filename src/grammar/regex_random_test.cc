// Random patterns against PCRE2, which matches by backtracking and knows nothing of this room.
#define PCRE2_CODE_UNIT_WIDTH 8
#include <gtest/gtest.h>
#include <pcre2.h>

#include <random>
#include <string>
#include <vector>

#include "grammar/accepts.h"
#include "grammar/automaton.h"
#include "grammar/regex.h"

namespace cachalot::grammar {
namespace {

class Pcre2 {
 public:
  Pcre2(const std::string& pattern, bool whole) {
    // $ is the end of the text alone, as in ECMA-262 without the flag m.
    std::uint32_t options = PCRE2_UTF | PCRE2_DOLLAR_ENDONLY;
    if (whole) options |= PCRE2_ANCHORED | PCRE2_ENDANCHORED;
    int error = 0;
    PCRE2_SIZE where = 0;
    code_ = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), options,
                          &error, &where, nullptr);
    EXPECT_NE(code_, nullptr) << pattern;
  }
  ~Pcre2() {
    pcre2_match_data_free(data_);
    pcre2_code_free(code_);
  }
  Pcre2(const Pcre2&) = delete;
  Pcre2& operator=(const Pcre2&) = delete;

  bool matches(const std::string& text) {
    const int found = pcre2_match(code_, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0,
                                  0, data_, nullptr);
    EXPECT_TRUE(found >= 0 || found == PCRE2_ERROR_NOMATCH) << found;
    return found >= 0;
  }

 private:
  pcre2_code* code_ = nullptr;
  pcre2_match_data* data_ = pcre2_match_data_create(1, nullptr);
};

class Patterns {
 public:
  explicit Patterns(unsigned seed, bool anchors) : random_(seed), anchors_(anchors) {}

  std::string choice(int depth) {
    std::string out = sequence(depth);
    while (below(4) == 0) out += "|" + sequence(depth);
    return out;
  }

 private:
  int below(int n) { return static_cast<int>(random_() % static_cast<unsigned>(n)); }

  std::string sequence(int depth) {
    std::string out;
    for (int n = below(4); n > 0; --n) {
      if (anchors_ && below(5) == 0) {
        out += below(2) == 0 ? '^' : '$';
      } else {
        out += atom(depth) + repetition();
      }
    }
    return out;
  }
  std::string atom(int depth) {
    static const std::vector<std::string> kAtoms = {
        "a", "b", "a", "b", "ä", "[ab]", "[^a]", "[^bä]", "[aä]", "\\x61", "\\w", "\\W", "[a-c]"};
    if (depth > 0 && below(3) == 0) {
      return (below(2) == 0 ? "(" : "(?:") + choice(depth - 1) + ")";
    }
    return kAtoms[static_cast<std::size_t>(below(static_cast<int>(kAtoms.size())))];
  }
  std::string repetition() {
    static const std::vector<std::string> kAll = {"*",     "+",    "?",  "{2}",    "{0,1}",
                                                  "{1,3}", "{2,}", "*?", "{2,3}?", "{0}"};
    if (below(3) != 0) return "";
    // PCRE2 10.42 misses matches behind anchors that are repeated {0} times.
    const int all = static_cast<int>(kAll.size()) - (anchors_ ? 1 : 0);
    return kAll[static_cast<std::size_t>(below(all))];
  }

  std::mt19937 random_;
  bool anchors_;
};

// All texts of up to four of these characters.
std::vector<std::string> short_texts() {
  std::vector<std::string> all = {""};
  std::size_t from = 0;
  for (int length = 1; length <= 4; ++length) {
    const std::size_t to = all.size();
    for (; from < to; ++from) {
      for (const char* c : {"a", "b", "ä", "-"}) all.push_back(all[from] + c);
    }
  }
  return all;
}

void compare(unsigned seed, bool anchors, RegexMatch match) {
  const std::vector<std::string> texts = short_texts();
  Patterns patterns(seed, anchors);
  int compared = 0, accepted = 0;
  for (int i = 0; i < 400 && !testing::Test::HasFailure(); ++i) {
    const std::string pattern = patterns.choice(/*depth=*/3);
    Pcre2 truth(pattern, match == RegexMatch::kWhole);
    Grammar grammar;
    // Beside the pattern: a grammar that matches nothing at all is refused by compile().
    const ExprId mark = grammar.text("#");
    grammar.set_root(grammar.choice({mark, add_regex(grammar, pattern, match, CharForm::kPlain)}));
    const Automaton automaton = compile(grammar);
    for (const std::string& text : texts) {
      const bool expected = truth.matches(text);
      accepted += expected ? 1 : 0;
      ++compared;
      ASSERT_EQ(expected, accepts(automaton, text)) << pattern << " on '" << text << "'";
    }
  }
  // Neither all nor nothing: the patterns say something.
  EXPECT_GT(accepted, compared / 200);
  EXPECT_LT(accepted, compared - compared / 200);
}

TEST(RegexRandomTest, WholeMatchesAsPcre2) { compare(1, false, RegexMatch::kWhole); }
TEST(RegexRandomTest, WholeMatchesWithAnchorsAsPcre2) { compare(2, true, RegexMatch::kWhole); }
TEST(RegexRandomTest, SearchesAsPcre2) { compare(3, false, RegexMatch::kAnywhere); }
TEST(RegexRandomTest, SearchesWithAnchorsAsPcre2) { compare(4, true, RegexMatch::kAnywhere); }

}  // namespace
}  // namespace cachalot::grammar
