// A report as one page that needs nothing else: no network, no other file. Tables are plain HTML
// and read without scripts; charts (uPlot) and sliders get their numbers from JSON in the page.
//
// Threads: pure.
// Errors:  kInternal where a table, chart or grid contradicts itself, or a drawing could run or
//          load something: a defect of the command that made it.
#pragma once

#include <string>

#include "report/page.h"

namespace cachalot::report {

std::string to_html(const Page& page);

}  // namespace cachalot::report
