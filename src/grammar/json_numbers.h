// Numbers between two bounds, exactly: decimals as they are written, never as doubles.
//
// Threads: pure functions; values.
// Errors:  kUnsupported where only numbers of more than kMostDigits digits would do.
#pragma once

#include <compare>
#include <optional>
#include <string>

#include "grammar/json_rules.h"

namespace cachalot::grammar {

struct Decimal {
  bool is_negative = false;
  std::string whole = {};     // digits, no zero at the front; empty is 0
  std::string fraction = {};  // digits, no zero at the end
  bool is_zero() const { return whole.empty() && fraction.empty(); }
  bool is_whole() const { return fraction.empty(); }
};
// `number` is one: the shortest decimal that reads as the same double, or the integer itself.
Decimal decimal_of(const Json& number);
std::strong_ordering compare(const Decimal& a, const Decimal& b);

struct Bound {
  Decimal at = {};
  bool is_open = false;  // the bound itself is left out
};

struct NumberRange {
  std::optional<Bound> low = {}, high = {};
  bool is_free() const { return !low && !high; }
  void raise_low(const Bound& bound);
  void lower_high(const Bound& bound);
  bool has(const Decimal& number) const;
};

// Integers of up to kMostDigits digits; without a fraction or an exponent.
ExprId add_integers(Grammar& grammar, const NumberRange& range);
// Numbers, also as the doubles that they are read as; without an exponent.
ExprId add_numbers(Grammar& grammar, NumberRange range);

}  // namespace cachalot::grammar
