// What a model may write, as a context-free grammar: rules over texts, code points and tokens.
// JSON Schema (json_schema.h), regular expressions (regex.h) and GBNF (gbnf.h) become one of these;
// automaton.h makes of it what the engine walks.
//
// Owns:    its expressions; an ExprId or RuleId is a place in one Grammar and is valid there alone.
// Threads: values; one builder at a time.
// Errors:  kUsage where a grammar grows past kMaxParts: descriptions come from strangers.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace cachalot::grammar {

enum class ExprId : std::int32_t {};
enum class RuleId : std::int32_t {};

struct CharRange {  // code points, both included
  char32_t first = 0;
  char32_t last = 0;
  bool operator==(const CharRange&) const = default;
};
inline constexpr char32_t kLastChar = 0x10FFFF;

// Ascending, no two of them touch, surrogates left out: of ranges in any order.
std::vector<CharRange> normalised(std::vector<CharRange> ranges);
std::vector<CharRange> complement(std::vector<CharRange> ranges);
std::vector<CharRange> intersection(std::vector<CharRange> a, std::vector<CharRange> b);

inline constexpr int kUnbounded = -1;
inline constexpr int kMaxRepeat = 100'000;         // of a bounded repetition
inline constexpr std::size_t kMaxParts = 1 << 20;  // expressions, bytes and ranges of a grammar

// One node of an expression. Only what its kind names is used.
struct Expr {
  enum class Kind : std::uint8_t {
    kText,      // `text`, byte for byte; the empty text is there
    kChars,     // one code point of `ranges`, as UTF-8; no ranges: nothing at all matches
    kToken,     // an added token of the vocabulary by its content (`text`), never spelt out
    kSequence,  // all `parts`, in order
    kChoice,    // one of `parts`; none: nothing matches
    kRepeat,    // parts[0], `least` to `most` times (kUnbounded: any number)
    kRule,      // whatever `rule` matches
  };
  Kind kind = Kind::kText;
  std::string text = {};
  std::vector<CharRange> ranges = {};
  std::vector<ExprId> parts = {};
  int least = 0, most = 0;
  RuleId rule{};
};

class Grammar {
 public:
  ExprId text(std::string_view bytes);
  ExprId chars(std::vector<CharRange> ranges);
  ExprId token(std::string_view content);
  ExprId sequence(std::vector<ExprId> parts);
  ExprId choice(std::vector<ExprId> parts);
  ExprId repeat(ExprId part, int least, int most);  // 0 <= least <= most, or most kUnbounded
  ExprId optional(ExprId part) { return repeat(part, 0, 1); }
  ExprId nothing() { return choice({}); }  // matches no text at all, not even the empty one

  // A rule may be used before it is defined. `name` is for messages.
  RuleId declare(std::string name);
  void define(RuleId rule, ExprId body);
  ExprId use(RuleId rule);
  ExprId rule(std::string name, ExprId body);  // all three

  void set_root(ExprId root) { root_ = root; }

  ExprId root() const noexcept { return root_; }
  const Expr& at(ExprId id) const { return exprs_[static_cast<std::size_t>(id)]; }
  std::size_t size() const noexcept { return exprs_.size(); }
  int rules() const noexcept { return static_cast<int>(rules_.size()); }
  const std::string& name(RuleId rule) const { return at(rule).name; }
  bool is_defined(RuleId rule) const { return at(rule).is_defined; }
  ExprId body(RuleId rule) const { return at(rule).body; }

 private:
  struct Rule {
    std::string name;
    ExprId body{};
    bool is_defined = false;
  };
  const Rule& at(RuleId id) const { return rules_[static_cast<std::size_t>(id)]; }
  ExprId add(Expr expr);

  std::vector<Expr> exprs_;
  std::vector<Rule> rules_;
  std::size_t parts_ = 0;
  ExprId root_{};
};

}  // namespace cachalot::grammar
