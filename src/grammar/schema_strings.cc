#include <algorithm>

#include "base/error.h"
#include "grammar/schema_builder.h"

namespace cachalot::grammar {

namespace {

// Counts of characters that a plain text may have.
struct Lengths {
  std::int64_t least = 0;
  std::int64_t most = 0;
};
constexpr std::int64_t kMany = 1 << 30;  // and more

std::int64_t times(std::int64_t a, std::int64_t b) { return std::min(a * b, kMany); }

Lengths lengths_of(const Expr& e, const std::vector<Lengths>& of_parts) {
  const auto of = [&](ExprId id) { return of_parts[static_cast<std::size_t>(id)]; };
  Lengths sum;
  switch (e.kind) {
    case Expr::Kind::kText:
      for (const char c : e.text) sum.most += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
      return {sum.most, sum.most};
    case Expr::Kind::kChars:
      return {1, 1};
    case Expr::Kind::kSequence:
      for (const ExprId part : e.parts) {
        sum = {std::min(sum.least + of(part).least, kMany),
               std::min(sum.most + of(part).most, kMany)};
      }
      return sum;
    case Expr::Kind::kChoice:
      if (!e.parts.empty()) sum.least = kMany;
      for (const ExprId part : e.parts) {
        sum = {std::min(sum.least, of(part).least), std::max(sum.most, of(part).most)};
      }
      return sum;
    case Expr::Kind::kRepeat: {
      const Lengths one = of(e.parts.front());
      const std::int64_t most = e.most == kUnbounded ? kMany : e.most;
      return {times(one.least, e.least), times(one.most, most)};
    }
    default:
      return {0, kMany};
  }
}

// An expression's parts are made before it. What a rule stands for is not looked at.
Lengths lengths(const Grammar& plain, ExprId id) {
  std::vector<Lengths> all;
  for (std::size_t i = 0; i <= static_cast<std::size_t>(id); ++i) {
    all.push_back(lengths_of(plain.at(static_cast<ExprId>(i)), all));
  }
  return all.back();
}

Lengths lengths_of_regex(const std::string& whole) {
  Grammar plain;
  return lengths(plain, add_regex(plain, whole, RegexMatch::kWhole, CharForm::kPlain));
}

bool lie_in(const Lengths& lengths, const CountRange& range) {
  return lengths.least >= range.least && (range.most == kUnbounded || lengths.most <= range.most);
}

}  // namespace

ExprId SchemaBuilder::pattern(Grammar& grammar, const TextAt& pattern, CharForm form) {
  try {
    return add_regex(grammar, pattern.text, RegexMatch::kAnywhere, form);
  } catch (const Error& e) {
    document_.refuse(e.code(), *pattern.schema, "pattern", e.what());
  }
}

ExprId SchemaBuilder::string(const Shape& shape) {
  if (!shape.patterns.empty()) return pattern_string(shape);
  const ExprId quote = g_.text("\"");
  if (const std::string& format = format_pattern(shape.format); !format.empty()) {
    if (shape.length.is_free() || lie_in(lengths_of_regex(format), shape.length)) {
      return g_.sequence({quote, format_text(shape.format, format), quote});
    }
  }
  if (shape.length.is_free()) return rules_.string();
  if (shape.length.is_empty()) return g_.nothing();
  return g_.sequence(
      {quote, g_.repeat(rules_.character(), shape.length.least, shape.length.most), quote});
}

// A rule each, once for all strings that have it: an address alone is thousands of parts.
ExprId SchemaBuilder::format_text(const std::string& name, const std::string& pattern) {
  const auto [known, is_new] = formats_.try_emplace(name);
  if (is_new) {
    known->second = g_.declare(name);
    g_.define(known->second, add_regex(g_, pattern, RegexMatch::kWhole, CharForm::kJsonString));
  }
  return g_.use(known->second);
}

ExprId SchemaBuilder::pattern_string(const Shape& shape) {
  const TextAt& at = shape.patterns.front();
  if (shape.patterns.size() > 1) {
    document_.refuse(Code::kUnsupported, *shape.patterns.back().schema, "pattern",
                     "two patterns for one string cannot be obeyed: make one of them");
  }
  if (!shape.length.is_free()) {
    Grammar plain;
    const ExprId probe = pattern(plain, at, CharForm::kPlain);
    if (!lie_in(lengths(plain, probe), shape.length)) {
      document_.refuse(Code::kUnsupported, *at.schema, "pattern",
                       "a pattern beside minLength or maxLength can be obeyed only where the "
                       "pattern alone sees to the length: write it as {m,n} into the pattern");
    }
  }
  const ExprId quote = g_.text("\"");
  return g_.sequence({quote, pattern(g_, at, CharForm::kJsonString), quote});
}

}  // namespace cachalot::grammar
