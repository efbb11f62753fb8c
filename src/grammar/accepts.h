// Whether a whole text is one that a grammar lets through: the plain definition, for tests and for
// whoever wants to check what came out. Slow: sets of stacks, byte by byte.
//
// Threads: any.
// Errors:  kUsage where an ambiguous grammar needs more than a million stacks at once.
#pragma once

#include <string_view>

#include "grammar/automaton.h"

namespace cachalot::grammar {

bool accepts(const Automaton& automaton, std::string_view bytes);
// Whether some text that is let through begins with these bytes.
bool accepts_prefix(const Automaton& automaton, std::string_view bytes);

}  // namespace cachalot::grammar
