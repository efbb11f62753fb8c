// GBNF, the notation in which llama.cpp's users write grammars: rules `name ::= ...`, the first
// asked for is `root`.
//
// Known here: "literals" with escapes, [classes] and [^classes], `.`, groups, `|`, `*`, `+`, `?`,
// {m}, {m,}, {m,n}, # comments, and <content> for an added token (<|end|> and the like).
//
// Threads: pure functions.
// Errors:  kUsage with line and column: what was met, what was needed; a rule that is used and not
//          defined, or defined twice.
// Source:  https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md
#pragma once

#include <string_view>

#include "grammar/grammar.h"

namespace cachalot::grammar {

Grammar parse_gbnf(std::string_view text);

}  // namespace cachalot::grammar
