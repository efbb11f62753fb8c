// A known character in the form that a text of the grammar has it (regex.h: CharForm); add_chars()
// does the same for one of many.
//
// Threads: pure functions.
// Errors:  none.
#pragma once

#include <string>

#include "grammar/regex.h"

namespace cachalot::grammar {

void append_char(std::string& out, char32_t c, CharForm form);

}  // namespace cachalot::grammar
