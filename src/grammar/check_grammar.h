// What must hold of a grammar before it can be walked, and which of its parts match anything.
//
// Threads: pure functions.
// Errors:  kUsage: a rule that is used and not defined, left recursion, a grammar that nothing
//          matches, expressions nested too deep.
#pragma once

#include <vector>

#include "grammar/grammar.h"

namespace cachalot::grammar {

struct GrammarFacts {
  std::vector<bool> reached;  // by rule: used from the root on
  std::vector<bool> matches;  // by expression: some text, even if it is the empty one
  std::vector<bool> empty;    // by expression: the empty text
};

GrammarFacts check_grammar(const Grammar& grammar);

}  // namespace cachalot::grammar
