#include "grammar/json_numbers.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdlib>

#include "base/error.h"

namespace cachalot::grammar {

namespace {

constexpr std::int64_t kMostInteger = 999'999'999'999'999'999;  // kMostDigits nines
constexpr std::size_t kMostBoundFraction = 60;

std::strong_ordering compare_sizes(const Decimal& a, const Decimal& b) {
  if (a.whole.size() != b.whole.size()) return a.whole.size() <=> b.whole.size();
  if (a.whole != b.whole) return a.whole.compare(b.whole) <=> 0;
  return a.fraction.compare(b.fraction) <=> 0;  // no zeros at their ends
}

[[noreturn]] void refuse_long() {
  throw Error(Code::kUnsupported, cat("only numbers of more than ", kMostDigits,
                                      " digits would do, which are not written: move the bound"));
}

bool all_are(const std::string& digits, char digit) {
  return digits.find_first_not_of(digit) == std::string::npos;
}

// Expressions of digits.
class Digits {
 public:
  explicit Digits(Grammar& grammar) : g_(grammar) {}

  ExprId any(std::size_t least, std::size_t most) {
    return g_.repeat(one('0', '9'), static_cast<int>(least), static_cast<int>(most));
  }
  ExprId one(char first, char last) {
    return g_.chars({{static_cast<char32_t>(first), static_cast<char32_t>(last)}});
  }

  // Texts of as many digits as both have, from `low` to `high`.
  ExprId between(const std::string& low, const std::string& high) {
    const std::size_t n = low.size();
    if (all_are(low, '0') && all_are(high, '9')) return any(n, n);
    const std::string low_rest = low.substr(1), high_rest = high.substr(1);
    char first = low[0], last = high[0];
    if (first == last) {
      return g_.sequence({g_.text(low.substr(0, 1)), between(low_rest, high_rest)});
    }
    std::vector<ExprId> parts;
    if (!all_are(low_rest, '0')) {
      parts.push_back(g_.sequence({one(first, first), between(low_rest, nines(n - 1))}));
      ++first;
    }
    if (!all_are(high_rest, '9')) {
      parts.push_back(g_.sequence({one(last, last), between(std::string(n - 1, '0'), high_rest)}));
      --last;
    }
    if (first <= last) parts.push_back(g_.sequence({one(first, last), any(n - 1, n - 1)}));
    return g_.choice(std::move(parts));
  }

  // 0 <= low <= high, written without zeros at the front.
  ExprId integers(std::int64_t low, std::int64_t high) {
    std::vector<ExprId> parts;
    if (low == 0) {
      parts.push_back(g_.text("0"));
      if (high == 0) return parts.front();
      low = 1;
    }
    const std::string a = std::to_string(low), b = std::to_string(high);
    if (a.size() == b.size()) {
      parts.push_back(between(a, b));
      return g_.choice(std::move(parts));
    }
    // Lengths of which every number is in lie between those of the ends.
    std::size_t least = a.size(), most = b.size();
    if (a != "1" + std::string(a.size() - 1, '0')) {
      parts.push_back(between(a, nines(a.size())));
      ++least;
    }
    if (b != nines(b.size())) {
      parts.push_back(between("1" + std::string(b.size() - 1, '0'), b));
      --most;
    }
    if (least <= most) parts.push_back(g_.sequence({one('1', '9'), any(least - 1, most - 1)}));
    return g_.choice(std::move(parts));
  }

 private:
  static std::string nines(std::size_t n) { return std::string(n, '9'); }
  Grammar& g_;
};

// What may follow a number's whole part, so that 0.fraction is not below `low` nor above `high`.
class Fractions {
 public:
  Fractions(Grammar& grammar, std::optional<Bound> low, std::optional<Bound> high)
      : g_(grammar), digits_(grammar), low_(std::move(low)), high_(std::move(high)) {
    for (const std::optional<Bound>* bound : {&low_, &high_}) {
      if (*bound) most_ = std::max(most_, (*bound)->at.fraction.size() + 1);
    }
  }

  // Also the empty text, where a fraction of 0 will do. Nothing, where no fraction will.
  ExprId all() {
    std::vector<ExprId> parts;
    if (const std::optional<ExprId> some = rest(0, low_.has_value(), high_.has_value(), true)) {
      parts.push_back(g_.sequence({g_.text("."), *some}));
    }
    if (can_be_zero()) parts.push_back(g_.text(""));
    return g_.choice(std::move(parts));
  }

 private:
  bool can_be_zero() const {
    const bool is_low = !low_ || (low_->at.fraction.empty() && !low_->is_open);
    return is_low && (!high_ || !high_->at.fraction.empty() || !high_->is_open);
  }
  static char digit_at(const std::optional<Bound>& bound, std::size_t at) {
    return at < bound->at.fraction.size() ? bound->at.fraction[at] : '0';
  }

  // Digits from place `at` on, of a fraction that so far is what `low_` or `high_` (on_low,
  // on_high) has there; nullopt where none will do. `must`: at least one.
  std::optional<ExprId> rest(std::size_t at, bool on_low, bool on_high, bool must) {
    if (on_low && at >= low_->at.fraction.size() && !low_->is_open) on_low = false;
    if (on_high && at >= high_->at.fraction.size() && high_->is_open) return std::nullopt;
    if (!on_low && !on_high) {
      if (must && at >= most_) return std::nullopt;
      return digits_.any(must ? 1 : 0, most_ - at);
    }
    std::vector<ExprId> parts;
    if (!must && !on_low) parts.push_back(g_.text(""));  // the rest is 0
    if (at < most_) add_digits(at, on_low, on_high, parts);
    if (parts.empty()) return std::nullopt;
    return g_.choice(std::move(parts));
  }

  void add_digits(std::size_t at, bool on_low, bool on_high, std::vector<ExprId>& parts) {
    char first = on_low ? digit_at(low_, at) : '0';
    char last = on_high ? digit_at(high_, at) : '9';
    const auto add = [&](char digit, bool stays_low, bool stays_high) {
      if (const auto more = rest(at + 1, stays_low, stays_high, false)) {
        parts.push_back(g_.sequence({digits_.one(digit, digit), *more}));
      }
    };
    if (first > last) return;
    if (on_low && on_high && first == last) return add(first, true, true);
    if (on_low) add(first++, true, false);
    if (on_high) add(last--, false, true);
    if (first <= last) {
      parts.push_back(g_.sequence({digits_.one(first, last), digits_.any(0, most_ - at - 1)}));
    }
  }

  Grammar& g_;
  Digits digits_;
  std::optional<Bound> low_, high_;
  std::size_t most_ = kMostFractionDigits;
};

std::int64_t whole_of(const Decimal& number) {
  return number.whole.empty() ? 0 : std::strtoll(number.whole.c_str(), nullptr, 10);
}
bool is_long(const Bound& bound) { return bound.at.whole.size() > kMostDigits; }

// Numbers without a sign, from `low` (not negative) to `high`.
ExprId add_unsigned(Grammar& g, const Bound& low, std::optional<Bound> high) {
  if (high && is_long(*high)) high.reset();
  if (is_long(low)) refuse_long();
  const std::int64_t first = whole_of(low.at), last = high ? whole_of(high->at) : kMostInteger;
  if (first > last) return g.nothing();
  Digits digits(g);
  if (high && first == last) {
    return g.sequence({digits.integers(first, first), Fractions(g, low, high).all()});
  }
  std::vector<ExprId> parts{
      g.sequence({digits.integers(first, first), Fractions(g, low, std::nullopt).all()})};
  const std::int64_t between_last = high ? last - 1 : last;
  if (first + 1 <= between_last) {
    parts.push_back(g.sequence({digits.integers(first + 1, between_last),
                                Fractions(g, std::nullopt, std::nullopt).all()}));
  }
  if (high) {
    parts.push_back(
        g.sequence({digits.integers(last, last), Fractions(g, std::nullopt, high).all()}));
  }
  return g.choice(std::move(parts));
}

// The least integer that is not below `bound`, or -kMostInteger; the other bound by its negative.
std::int64_t least_integer(const std::optional<Bound>& bound) {
  if (!bound) return -kMostInteger;
  if (is_long(*bound)) {
    if (bound->at.is_negative) return -kMostInteger;
    refuse_long();
  }
  const std::int64_t whole = whole_of(bound->at);
  if (!bound->at.is_whole()) return bound->at.is_negative ? -whole : whole + 1;
  return (bound->at.is_negative ? -whole : whole) + (bound->is_open ? 1 : 0);
}

// Readers compare doubles. Numbers that would be rounded to a bound that is left out, or past a
// bound that is no double, are left out too: the next double towards `inside` is the bound.
// (Nothing that is written rounds to 0.)
void leave_out_rounded(std::optional<Bound>& bound, double inside) {
  if (!bound || bound->at.is_zero() || is_long(*bound)) return;
  const Decimal& at = bound->at;
  const std::string text = cat(at.is_negative ? "-" : "", "0", at.whole, ".", at.fraction, "0");
  double real = 0;
  std::from_chars(text.data(), text.data() + text.size(), real);
  constexpr double kEveryInteger = 0x1p53;  // up to here integers are doubles
  const bool is_double =
      std::abs(real) < kEveryInteger || std::abs(static_cast<std::int64_t>(real)) == whole_of(at);
  if (bound->is_open || !is_double) *bound = {decimal_of(Json(std::nextafter(real, inside)))};
}

Bound negative(Bound bound) {
  bound.at.is_negative = !bound.at.is_negative;
  return bound;
}

}  // namespace

Decimal decimal_of(const Json& number) {
  std::string text = number.dump();
  Decimal d;
  if (text[0] == '-') {
    d.is_negative = true;
    text.erase(0, 1);
  }
  long exponent = 0;
  if (const std::size_t e = text.find('e'); e != std::string::npos) {
    exponent = std::strtol(text.c_str() + e + 1, nullptr, 10);
    text.resize(e);
  }
  const std::size_t point = std::min(text.find('.'), text.size());
  d.whole = text.substr(0, point);
  if (point < text.size()) d.fraction = text.substr(point + 1);
  // A double's exponent is at most 308 and at least -324: so are these loops.
  for (; exponent > 0; --exponent) {
    d.whole += d.fraction.empty() ? '0' : d.fraction[0];
    if (!d.fraction.empty()) d.fraction.erase(0, 1);
  }
  for (; exponent < 0; ++exponent) {
    d.fraction.insert(0, 1, d.whole.empty() ? '0' : d.whole.back());
    if (!d.whole.empty()) d.whole.pop_back();
  }
  d.whole.erase(0, std::min(d.whole.find_first_not_of('0'), d.whole.size()));
  d.fraction.resize(d.fraction.find_last_not_of('0') + 1);
  if (d.is_zero()) d.is_negative = false;
  return d;
}

std::strong_ordering compare(const Decimal& a, const Decimal& b) {
  if (a.is_negative != b.is_negative) {
    return a.is_negative ? std::strong_ordering::less : std::strong_ordering::greater;
  }
  return a.is_negative ? compare_sizes(b, a) : compare_sizes(a, b);
}

void NumberRange::raise_low(const Bound& bound) {
  const auto order = low ? compare(bound.at, low->at) : std::strong_ordering::greater;
  if (order > 0 || (order == 0 && bound.is_open)) low = bound;
}

void NumberRange::lower_high(const Bound& bound) {
  const auto order = high ? compare(bound.at, high->at) : std::strong_ordering::less;
  if (order < 0 || (order == 0 && bound.is_open)) high = bound;
}

bool NumberRange::has(const Decimal& number) const {
  if (low) {
    const auto order = compare(number, low->at);
    if (order < 0 || (order == 0 && low->is_open)) return false;
  }
  if (!high) return true;
  const auto order = compare(number, high->at);
  return order < 0 || (order == 0 && !high->is_open);
}

ExprId add_integers(Grammar& grammar, const NumberRange& range) {
  const std::int64_t low = least_integer(range.low);
  const std::int64_t high = range.high ? -least_integer(negative(*range.high)) : kMostInteger;
  if (low > high) return grammar.nothing();
  if (low > kMostInteger || high < -kMostInteger) refuse_long();
  Digits digits(grammar);
  std::vector<ExprId> parts;
  if (low < 0) {
    parts.push_back(
        grammar.sequence({grammar.text("-"), digits.integers(high < 0 ? -high : 1, -low)}));
  }
  if (high >= 0) parts.push_back(digits.integers(std::max<std::int64_t>(low, 0), high));
  return grammar.choice(std::move(parts));
}

ExprId add_numbers(Grammar& grammar, NumberRange range) {
  for (const std::optional<Bound>* bound : {&range.low, &range.high}) {
    if (*bound && (*bound)->at.fraction.size() > kMostBoundFraction) {
      throw Error(Code::kUnsupported, cat("a bound has ", (*bound)->at.fraction.size(),
                                          " digits behind its point, but at most ",
                                          kMostBoundFraction, " are supported"));
    }
  }
  leave_out_rounded(range.low, HUGE_VAL);
  leave_out_rounded(range.high, -HUGE_VAL);
  if (range.low && range.high && compare(range.low->at, range.high->at) > 0) {
    return grammar.nothing();
  }
  std::vector<ExprId> parts;
  if (!range.low || range.low->at.is_negative) {
    // What follows the sign is more than 0: 0 itself is written without one.
    const bool is_below_zero = range.high && range.high->at.is_negative;
    const Bound least = is_below_zero ? negative(*range.high) : Bound{{}, /*is_open=*/true};
    const std::optional<Bound> most = range.low ? negative(*range.low) : std::optional<Bound>();
    parts.push_back(grammar.sequence({grammar.text("-"), add_unsigned(grammar, least, most)}));
  }
  if (!range.high || !range.high->at.is_negative) {
    const bool is_above_zero = range.low && !range.low->at.is_negative;
    parts.push_back(add_unsigned(grammar, is_above_zero ? *range.low : Bound{}, range.high));
  }
  return grammar.choice(std::move(parts));
}

}  // namespace cachalot::grammar
