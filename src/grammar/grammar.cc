#include "grammar/grammar.h"

#include <algorithm>

#include "base/error.h"

namespace cachalot::grammar {

static constexpr CharRange kSurrogates{0xD800, 0xDFFF};

std::vector<CharRange> normalised(std::vector<CharRange> ranges) {
  std::vector<CharRange> cut;
  for (CharRange& r : ranges) {
    r.last = std::min(r.last, kLastChar);
    if (r.first > r.last) continue;
    if (r.last < kSurrogates.first || r.first > kSurrogates.last) {
      cut.push_back(r);
      continue;
    }
    if (r.first < kSurrogates.first) cut.push_back({r.first, kSurrogates.first - 1});
    if (r.last > kSurrogates.last) cut.push_back({kSurrogates.last + 1, r.last});
  }
  std::sort(cut.begin(), cut.end(),
            [](const CharRange& a, const CharRange& b) { return a.first < b.first; });
  std::vector<CharRange> joined;
  for (const CharRange& r : cut) {
    if (!joined.empty() && r.first <= joined.back().last + 1) {
      joined.back().last = std::max(joined.back().last, r.last);
    } else {
      joined.push_back(r);
    }
  }
  return joined;
}

std::vector<CharRange> complement(std::vector<CharRange> ranges) {
  std::vector<CharRange> rest;
  char32_t next = 0;
  for (const CharRange& r : normalised(std::move(ranges))) {
    if (r.first > next) rest.push_back({next, r.first - 1});
    next = r.last + 1;
  }
  if (next <= kLastChar) rest.push_back({next, kLastChar});
  return normalised(std::move(rest));
}

std::vector<CharRange> intersection(std::vector<CharRange> a, std::vector<CharRange> b) {
  // What is in neither complement.
  std::vector<CharRange> outside = complement(std::move(a));
  const std::vector<CharRange> more = complement(std::move(b));
  outside.insert(outside.end(), more.begin(), more.end());
  return complement(std::move(outside));
}

ExprId Grammar::add(Expr expr) {
  parts_ += 1 + expr.text.size() + expr.ranges.size() + expr.parts.size();
  if (parts_ > kMaxParts) {
    throw Error(Code::kUsage, cat("a grammar, pattern or schema becomes more than ", kMaxParts,
                                  " parts, which is too large: make it smaller"));
  }
  exprs_.push_back(std::move(expr));
  return static_cast<ExprId>(exprs_.size() - 1);
}

ExprId Grammar::text(std::string_view bytes) {
  return add({.kind = Expr::Kind::kText, .text = std::string(bytes)});
}

ExprId Grammar::chars(std::vector<CharRange> ranges) {
  return add({.kind = Expr::Kind::kChars, .ranges = normalised(std::move(ranges))});
}

ExprId Grammar::token(std::string_view content) {
  return add({.kind = Expr::Kind::kToken, .text = std::string(content)});
}

ExprId Grammar::sequence(std::vector<ExprId> parts) {
  if (parts.size() == 1) return parts.front();
  return add({.kind = Expr::Kind::kSequence, .parts = std::move(parts)});
}

ExprId Grammar::choice(std::vector<ExprId> parts) {
  if (parts.size() == 1) return parts.front();
  return add({.kind = Expr::Kind::kChoice, .parts = std::move(parts)});
}

ExprId Grammar::repeat(ExprId part, int least, int most) {
  const bool bounded = most != kUnbounded;
  if (least < 0 || least > kMaxRepeat || (bounded && (most < least || most > kMaxRepeat))) {
    throw Error(Code::kUsage,
                cat("a repetition of ", least, " to ", most, " times is not possible: give 0 to ",
                    kMaxRepeat, ", the smaller number first"));
  }
  return add({.kind = Expr::Kind::kRepeat, .parts = {part}, .least = least, .most = most});
}

RuleId Grammar::declare(std::string name) {
  rules_.push_back({.name = std::move(name)});
  return static_cast<RuleId>(rules_.size() - 1);
}

void Grammar::define(RuleId rule, ExprId body) {
  Rule& r = rules_[static_cast<std::size_t>(rule)];
  r.body = body;
  r.is_defined = true;
}

ExprId Grammar::use(RuleId rule) { return add({.kind = Expr::Kind::kRule, .rule = rule}); }

ExprId Grammar::rule(std::string name, ExprId body) {
  const RuleId id = declare(std::move(name));
  define(id, body);
  return use(id);
}

}  // namespace cachalot::grammar
