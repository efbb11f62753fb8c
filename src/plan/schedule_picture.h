// A pipeline schedule as a picture: a row per rank, a box per item, time to the right.
//
// Threads: pure functions.
// Errors:  none.
// Paper:   V3 report figure 5, DualPipe README: the layout of the picture.
#pragma once

#include <string>

#include "cost/schedule_simulate.h"

namespace cachalot::plan {

// One SVG document. Numbers in the boxes are micro-batches; those of the second direction are
// underlined.
std::string schedule_svg(const cost::Schedule& schedule, const cost::Simulation& simulation);

}  // namespace cachalot::plan
