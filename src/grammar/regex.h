// Regular expressions to a grammar: ECMA-262 with the flag u, without what a finite automaton
// cannot do (look-around, back references, word boundaries, flags). Lazy repetitions are read as
// greedy ones: they change what is found first, and nothing about what matches.
//
// ^ and $ stand for the text's beginning and end wherever they are: a^b matches nothing. Beyond
// ECMA-262, \ may stand before any punctuation, ] and } alone and a { that begins no count are
// themselves, and \p{Greek} is \p{Script=Greek}.
//
// Threads: pure functions.
// Errors:  kUsage with the place: not a regular expression; kUnsupported: what is named above.
// Source:  https://262.ecma-international.org/14.0/#sec-patterns
#pragma once

#include <cstdint>
#include <string_view>

#include "grammar/grammar.h"

namespace cachalot::grammar {

enum class RegexMatch : std::uint8_t {
  kWhole,     // the text is matched from its first to its last character
  kAnywhere,  // as JSON Schema has `pattern`: somewhere in the text, but for ^ and $
};
enum class CharForm : std::uint8_t {
  kPlain,
  // As characters of a JSON string between its quotes: '"' becomes '\"', a newline '\n', other
  // control characters '\u001f'; all others stand for themselves.
  kJsonString,
};

ExprId add_regex(Grammar& grammar, std::string_view pattern, RegexMatch match, CharForm form);

// One code point of `ranges` in that form.
ExprId add_chars(Grammar& grammar, std::vector<CharRange> ranges, CharForm form);

}  // namespace cachalot::grammar
