#include "grammar/json_rules.h"

#include "base/error.h"
#include "grammar/json_schema.h"

namespace cachalot::grammar {

std::string one_line(const Json& value) {
  if (!value.is_structured()) return value.dump();
  std::string text = value.is_array() ? "[" : "{";
  for (const auto& [name, member] : value.items()) {
    if (text.size() > 1) text += ", ";
    if (value.is_object()) text += Json(name).dump() + ": ";
    text += one_line(member);
  }
  return text += value.is_array() ? "]" : "}";
}

template <typename Make>
ExprId JsonRules::shared(const char* name, const Make& make) {
  const auto [known, is_new] = rules_.try_emplace(name);
  if (is_new) {
    // Before the body is made: a value has values in it.
    const RuleId rule = known->second = g_.declare(name);
    g_.define(rule, make());
    return g_.use(rule);
  }
  return g_.use(known->second);
}

ExprId JsonRules::value() {
  return shared("JSON value", [&] {
    return g_.choice({object(), array(), string(), number(), boolean(), g_.text("null")});
  });
}

ExprId JsonRules::object() {
  return shared("JSON object", [&] {
    const ExprId member = g_.sequence({string(), g_.text(": "), value()});
    return list("{", member, "}", 0, kUnbounded);
  });
}

ExprId JsonRules::array() {
  return shared("JSON array", [&] { return list("[", value(), "]", 0, kUnbounded); });
}

ExprId JsonRules::string() {
  return shared("JSON string", [&] {
    return g_.sequence({g_.text("\""), g_.repeat(character(), 0, kUnbounded), g_.text("\"")});
  });
}

ExprId JsonRules::boolean() {
  return shared("JSON boolean", [&] { return g_.choice({g_.text("true"), g_.text("false")}); });
}

ExprId JsonRules::digits(int n, int m) { return g_.repeat(g_.chars({{'0', '9'}}), n, m); }

ExprId JsonRules::whole() {
  return g_.choice(
      {g_.text("0"), g_.sequence({g_.chars({{'1', '9'}}), digits(0, kMostDigits - 1)})});
}

ExprId JsonRules::number() {
  return shared("JSON number", [&] {
    const ExprId fraction = g_.sequence({g_.text("."), digits(1, kMostFractionDigits)});
    const ExprId exponent =
        g_.sequence({g_.chars({{'e', 'e'}, {'E', 'E'}}),
                     g_.optional(g_.chars({{'+', '+'}, {'-', '-'}})), digits(1, 2)});
    return g_.sequence(
        {g_.optional(g_.text("-")), whole(), g_.optional(fraction), g_.optional(exponent)});
  });
}

// Without -0, which is no other number than 0.
ExprId JsonRules::integer() {
  return shared("JSON integer", [&] {
    return g_.choice({g_.text("0"), g_.sequence({g_.optional(g_.text("-")), g_.chars({{'1', '9'}}),
                                                 digits(0, kMostDigits - 1)})});
  });
}

ExprId JsonRules::plain_character() {
  return shared("JSON character", [&] {
    return g_.chars(complement({{0, 0x1F}, {'"', '"'}, {'\\', '\\'}}));
  });
}

ExprId JsonRules::character() {
  return shared("JSON character or escape", [&] {
    const ExprId short_escape = g_.chars({{'"', '"'},
                                          {'\\', '\\'},
                                          {'/', '/'},
                                          {'b', 'b'},
                                          {'f', 'f'},
                                          {'n', 'n'},
                                          {'r', 'r'},
                                          {'t', 't'}});
    return g_.choice({plain_character(),
                      g_.sequence({g_.text("\\"), g_.choice({short_escape, unicode_escape()})})});
  });
}

// What follows the backslash. 8 to F of the second digit behind a D are surrogates: 8 to B begin a
// pair, C to F end it.
ExprId JsonRules::unicode_escape() {
  const std::vector<CharRange> hex{{'0', '9'}, {'A', 'F'}, {'a', 'f'}};
  const ExprId d = g_.chars({{'D', 'D'}, {'d', 'd'}});
  const auto more = [&](int n) { return g_.repeat(g_.chars(hex), n, n); };
  const ExprId no_surrogate = g_.choice(
      {g_.sequence(
           {g_.chars({{'0', '9'}, {'A', 'C'}, {'E', 'F'}, {'a', 'c'}, {'e', 'f'}}), more(3)}),
       g_.sequence({d, g_.chars({{'0', '7'}}), more(2)})});
  const ExprId pair = g_.sequence({d, g_.chars({{'8', '9'}, {'A', 'B'}, {'a', 'b'}}), more(2),
                                   g_.text("\\u"), d, g_.chars({{'C', 'F'}, {'c', 'f'}}), more(2)});
  return g_.sequence({g_.text("u"), g_.choice({no_surrogate, pair})});
}

ExprId JsonRules::list(std::string_view open, ExprId item, std::string_view close, int least,
                       int most) {
  if (most == 0) return g_.text(cat(open, close));
  // The repeated part is a rule, so that a repetition costs a node a time.
  const ExprId one = g_.rule("item of a list", item);
  const ExprId more = g_.rule("further item of a list", g_.sequence({g_.text(", "), one}));
  const ExprId items = g_.sequence({one, g_.repeat(more, least > 1 ? least - 1 : 0,
                                                   most == kUnbounded ? kUnbounded : most - 1)});
  return g_.sequence({g_.text(open), least == 0 ? g_.optional(items) : items, g_.text(close)});
}

ExprId add_json_value(Grammar& grammar) { return JsonRules(grammar).value(); }
ExprId add_json_object(Grammar& grammar) { return JsonRules(grammar).object(); }

}  // namespace cachalot::grammar
