// The characters of a regular expression: escapes and [classes].
//
// Threads: pure functions over the caller's cursor.
// Errors:  kUsage, kUnsupported with the place in the pattern.
// Source:  https://262.ecma-international.org/14.0/#sec-patterns
#pragma once

#include <string_view>
#include <variant>
#include <vector>

#include "base/error.h"
#include "grammar/cursor.h"
#include "grammar/grammar.h"

namespace cachalot::grammar {

// "pattern: 'x' at character 5: why"
[[noreturn]] void refuse_pattern(const Cursor& cursor, std::size_t from, std::string_view why,
                                 Code code = Code::kUsage);

// One character, or several of which one is meant.
using Atom = std::variant<char32_t, std::vector<CharRange>>;

// Behind '\', outside of classes.
Atom read_escape(Cursor& cursor);
// Behind '[', up to and with ']'.
std::vector<CharRange> read_class(Cursor& cursor);

}  // namespace cachalot::grammar
