// What a training layout takes at least, without its schedule being simulated: so that a search
// simulates only those that could still win.
//
// Threads: pure functions.
// Errors:  those of TrainClock.
#pragma once

#include "plan/train_time.h"

namespace cachalot::plan {

// Of a layout that can be. `clock` is that of `layout`, or of one with another pipeline.
struct LeastNeeds {
  double seconds = 0;  // of a step
  double memory = 0;   // bytes of the fullest device
};
LeastNeeds least_needs(const model::Config& config, const cost::Layout& layout,
                       const TrainClock& clock);

// Of one sequence with all devices of one tensor group, in any pipeline: nobody waits, and of
// computing and communicating together only what no schedule could hide.
double least_sequence_seconds(const model::Config& config, const cost::Layout& layout,
                              const TrainClock& clock);

}  // namespace cachalot::plan
