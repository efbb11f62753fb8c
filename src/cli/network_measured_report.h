// How `cachalot network measured` shows its result: bars for a file, tables on a terminal, a page.
//
// `result` is what --json prints: `cases` (normal kernels), `low_latency` and `all_to_all`.
//
// Threads: pure functions.
// Errors:  none.
#pragma once

#include <vector>

#include "cli/output.h"
#include "network/drawing.h"
#include "network/flow_sim.h"
#include "report/page.h"

namespace cachalot::cli {

struct MeasuredTable {
  report::Table table;
  const char* words;  // what its numbers are
};
std::vector<MeasuredTable> measured_tables(const Json& result);

network::BarChart measured_bars(const Json& result);  // of the normal kernels

report::Page measured_page(const Json& result, report::WhatIf what_if, const network::Rates& rates);

}  // namespace cachalot::cli
