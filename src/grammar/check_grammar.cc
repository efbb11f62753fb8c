#include "grammar/check_grammar.h"

#include <algorithm>

#include "base/error.h"
#include "base/fields_text.h"

namespace cachalot::grammar {

namespace {

constexpr std::int64_t kNever = std::int64_t{1} << 62;
constexpr int kMaxDepth = 2000;  // of expressions inside of each other

class Checker {
 public:
  explicit Checker(const Grammar& grammar)
      : g_(grammar),
        reached_(static_cast<std::size_t>(grammar.rules()), false),
        depth_(grammar.size(), 0),
        looked_at_(grammar.size(), -1) {}

  GrammarFacts check() {
    reach();
    list_users();
    matches_ = settle(needs_to_match);
    if (!matches_[index(g_.root())]) {
      throw Error(Code::kUsage,
                  "nothing at all matches this grammar or schema: every way through it comes to a "
                  "part that cannot be written");
    }
    empty_ = settle(needs_to_be_empty);
    refuse_left_recursion();
    return {std::move(reached_), std::move(matches_), std::move(empty_)};
  }

 private:
  static std::size_t index(ExprId id) { return static_cast<std::size_t>(id); }
  static std::size_t index(RuleId id) { return static_cast<std::size_t>(id); }

  // An expression's parts have lower ids than it has: it is made after them. So its depth is known
  // from theirs.
  void reach() {
    std::vector<ExprId> open{g_.root()};
    std::vector<bool> seen(g_.size(), false);
    seen[index(g_.root())] = true;
    const auto visit = [&](ExprId id) {
      if (!seen[index(id)]) open.push_back(id);
      seen[index(id)] = true;
    };
    while (!open.empty()) {
      const Expr& e = g_.at(open.back());
      open.pop_back();
      for (const ExprId part : e.parts) visit(part);
      if (e.kind != Expr::Kind::kRule || reached_[index(e.rule)]) continue;
      if (!g_.is_defined(e.rule)) {
        throw Error(Code::kUsage, cat("the rule \"", printable(g_.name(e.rule)),
                                      "\" is used, but it is defined nowhere: define it"));
      }
      reached_[index(e.rule)] = true;
      visit(g_.body(e.rule));
    }
    for (std::size_t i = 0; i < g_.size(); ++i) {
      for (const ExprId part : g_.at(static_cast<ExprId>(i)).parts) {
        depth_[i] = std::max(depth_[i], depth_[index(part)] + 1);
      }
      if (depth_[i] > kMaxDepth) {
        throw Error(Code::kUsage, cat("parts of a grammar, pattern or schema lie more than ",
                                      kMaxDepth, " deep in each other: make it flatter"));
      }
    }
  }

  // The least solution: what holds by itself, then whatever waits for nothing else. `needs` says of
  // how many of its parts (of a rule: its body) an expression needs the fact; kNever: it never
  // holds.
  template <typename Needs>
  std::vector<bool> settle(const Needs& needs) const {
    std::vector<bool> fact(g_.size(), false);
    std::vector<std::int64_t> waits(g_.size());
    std::vector<std::size_t> open;
    const auto told = [&](std::size_t i) {
      if (waits[i] > 0 || fact[i]) return;
      fact[i] = true;
      open.push_back(i);
    };
    for (std::size_t i = 0; i < g_.size(); ++i) waits[i] = needs(g_.at(static_cast<ExprId>(i)));
    for (std::size_t i = 0; i < g_.size(); ++i) told(i);
    while (!open.empty()) {
      const std::size_t i = open.back();
      open.pop_back();
      for (const std::size_t user : users_[i]) {
        if (waits[user] != kNever) --waits[user];
        told(user);
      }
    }
    return fact;
  }

  static std::int64_t needs_to_match(const Expr& e) {
    switch (e.kind) {
      case Expr::Kind::kText:
      case Expr::Kind::kToken:
        return 0;
      case Expr::Kind::kChars:
        return e.ranges.empty() ? kNever : 0;
      case Expr::Kind::kSequence:
        return static_cast<std::int64_t>(e.parts.size());
      case Expr::Kind::kRepeat:
        return e.least == 0 ? 0 : 1;
      case Expr::Kind::kChoice:
      case Expr::Kind::kRule:
        return 1;
    }
    return kNever;
  }
  static std::int64_t needs_to_be_empty(const Expr& e) {
    if (e.kind == Expr::Kind::kText) return e.text.empty() ? 0 : kNever;
    if (e.kind == Expr::Kind::kToken || e.kind == Expr::Kind::kChars) return kNever;
    return needs_to_match(e);
  }

  // Who is told of a fact about an expression: those it is a part of, as often as it is one; of a
  // rule's body all that use the rule.
  void list_users() {
    users_.resize(g_.size());
    for (std::size_t i = 0; i < g_.size(); ++i) {
      const Expr& e = g_.at(static_cast<ExprId>(i));
      for (const ExprId part : e.parts) users_[index(part)].push_back(i);
      if (e.kind == Expr::Kind::kRule && g_.is_defined(e.rule)) {
        users_[index(g_.body(e.rule))].push_back(i);
      }
    }
  }

  // Rules that `id` may call before it has read anything.
  void add_first_calls(RuleId of, ExprId id, std::vector<RuleId>& calls) {
    if (looked_at_[index(id)] == static_cast<std::int32_t>(of) || !matches_[index(id)]) return;
    looked_at_[index(id)] = static_cast<std::int32_t>(of);
    const Expr& e = g_.at(id);
    if (e.kind == Expr::Kind::kRule) calls.push_back(e.rule);
    for (const ExprId part : e.parts) {
      add_first_calls(of, part, calls);
      if (e.kind == Expr::Kind::kSequence && !empty_[index(part)]) break;
    }
  }

  void refuse_left_recursion() {
    enum class Mark : std::uint8_t { kNew, kOpen, kDone };
    struct Frame {
      RuleId rule;
      std::vector<RuleId> calls;
    };
    std::vector<Mark> marks(reached_.size(), Mark::kNew);
    std::vector<Frame> open;
    const auto enter = [&](RuleId rule) {
      Frame frame{rule, {}};
      add_first_calls(rule, g_.body(rule), frame.calls);
      marks[index(rule)] = Mark::kOpen;
      open.push_back(std::move(frame));
    };
    for (std::size_t r = 0; r < reached_.size(); ++r) {
      if (!reached_[r] || marks[r] != Mark::kNew) continue;
      enter(static_cast<RuleId>(r));
      while (!open.empty()) {
        if (open.back().calls.empty()) {
          marks[index(open.back().rule)] = Mark::kDone;
          open.pop_back();
          continue;
        }
        const RuleId next = open.back().calls.back();
        open.back().calls.pop_back();
        if (marks[index(next)] == Mark::kOpen) {
          throw Error(Code::kUsage,
                      cat("the rule \"", printable(g_.name(next)),
                          "\" comes to itself before anything is read (left recursion): begin it "
                          "with what is read, and repeat with * or +"));
        }
        if (marks[index(next)] == Mark::kNew) enter(next);
      }
    }
  }

  const Grammar& g_;
  std::vector<bool> reached_;
  std::vector<bool> matches_, empty_;
  std::vector<int> depth_;
  std::vector<std::vector<std::size_t>> users_;
  std::vector<std::int32_t> looked_at_;  // the rule for whose first calls
};

}  // namespace

GrammarFacts check_grammar(const Grammar& grammar) { return Checker(grammar).check(); }

}  // namespace cachalot::grammar
