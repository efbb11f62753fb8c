// The Unicode properties that regular expressions name: \p{Lu}, \p{Script=Greek}, \p{Alphabetic}.
//
// Owns:    what was asked for, for the life of the process: a few hundred names have ranges.
// Threads: any.
// Errors:  none here; a name that is not known is an answer.
// Source:  https://262.ecma-international.org/14.0/#sec-runtime-semantics-unicodematchproperty-p;
//          the characters are those of PCRE2's tables, as in text/char_class.h.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "grammar/grammar.h"

namespace cachalot::grammar {

// What stands between the braces: a general category ("L", "Letter", "gc=L"), a script ("Greek",
// "Script=Greek", "sc=Grek", "scx=Greek") or a property that characters have or not ("Emoji").
std::optional<std::vector<CharRange>> property(const std::string& name);

// \d, \w, \s as ECMA-262 defines them with the flag u and without i.
std::vector<CharRange> digits();
std::vector<CharRange> word_chars();
std::vector<CharRange> white_space();
std::vector<CharRange> line_ends();

}  // namespace cachalot::grammar
