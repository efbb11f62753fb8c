// Tables and facts of a report for a terminal.
//
// Threads: pure functions.
// Errors:  none.
#pragma once

#include <string>

#include "report/page.h"

namespace cachalot::report {

// Columns as wide as what they hold, two blanks apart, head first; ends with a newline. A cell that
// spans several columns stands after the others as it is, and widens none.
std::string text(const Table& table);
std::string text(const Facts& facts);  // "name                   value" lines

}  // namespace cachalot::report
