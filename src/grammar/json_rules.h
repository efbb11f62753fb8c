// JSON that no schema narrows, as rules that all of a grammar's schemas share; JSON as one line.
//
// A text has one way through these rules. Numbers are those that a double or 64 bits hold: up to
// 18 digits, 20 more behind the point, an exponent of up to two digits. A string's escapes decode
// to Unicode: a high surrogate is followed by a low one, and no low one stands alone.
//
// Owns:    which rules are there already; borrows the grammar.
// Threads: one builder at a time.
// Errors:  kUsage from Grammar.
// Source:  RFC 8259; the spaces are those of Python's json.dumps.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "grammar/grammar.h"

namespace cachalot::grammar {

using Json = nlohmann::ordered_json;

inline constexpr int kMostDigits = 18;          // of the part before a number's point
inline constexpr int kMostFractionDigits = 20;  // where a schema's bounds need no more

// ", " between members, ": " after a name, UTF-8 as it is.
std::string one_line(const Json& value);

class JsonRules {
 public:
  explicit JsonRules(Grammar& grammar) : g_(grammar) {}

  ExprId value();
  ExprId object();
  ExprId array();
  ExprId string();
  ExprId number();
  ExprId integer();
  ExprId boolean();
  // One code point between a string's quotes, by itself or as an escape.
  ExprId character();
  ExprId plain_character();     // by itself
  ExprId digits(int n, int m);  // n to m of them
  // `open` item, more of them behind ", ", `close`: `least` to `most` in all.
  ExprId list(std::string_view open, ExprId item, std::string_view close, int least, int most);

 private:
  // The rule of that name; `make` makes its body the first time.
  template <typename Make>
  ExprId shared(const char* name, const Make& make);
  ExprId unicode_escape();
  ExprId whole();

  Grammar& g_;
  std::map<std::string, RuleId> rules_;
};

}  // namespace cachalot::grammar
