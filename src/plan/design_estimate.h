// What a shape can come to within a budget, before its layouts are searched.
//
// On one device that is what the device takes. On several it is a bound: no layout is faster
// (layout_bound.h), so the loss is the least that the shape can have.
//
// Threads: values; nothing shared.
// Errors:  those of TrainClock.
#pragma once

#include <map>
#include <utility>

#include "plan/design.h"

namespace cachalot::plan {

// How fast a shape learns, by the size of a step.
class Pace {
 public:
  Pace(const HardwareProfile& hardware, const DesignRequest& request, const model::Config& config,
       cost::TrainPrecision precision);

  int batch(double tokens);  // sequences of a step, in a run of so many tokens
  double seconds_per_token(int batch);

 private:
  double alone_seconds(int at_once);
  double least_seconds(int batch);
  double least_over_groups(const cost::Layout& layout);
  int largest_micro_batch(cost::Layout layout) const;

  const HardwareProfile& hardware_;
  const DesignRequest& request_;
  const model::Config& config_;
  cost::TrainPrecision precision_;
  int devices_;
  double optimizer_ = 0;
  std::map<int, double> alone_;  // seconds of a sequence, by how many are computed at once
  std::map<std::pair<int, cost::Recompute>, double> least_;
};

// One device that has everything, so many sequences at a time.
cost::Layout alone(const DesignRequest& request, cost::TrainPrecision precision, int sequences);

// A shape and what follows from its sizes.
Design sized_design(const HardwareProfile& hardware, const DesignRequest& request,
                    const model::Config& config, cost::TrainPrecision precision);
double loss_after(const DesignRequest& request, const Design& design, double tokens);
// What a step has depends on the tokens of the run, and these on the speed of its steps: both are
// settled in a few rounds. `pace` is that of the shape.
void estimate(const HardwareProfile& hardware, const DesignRequest& request, Pace& pace,
              double device_hours, Design& design);
// With the layout that was found for it.
void settle(const HardwareProfile& hardware, const DesignRequest& request, const TrainPlan& plan,
            double device_hours, Design& design);
// Seconds of one of the design's steps (its batch, its run's time) with which it would come to
// `loss`; a little more rather than less.
double slowest_step(const DesignRequest& request, const Design& design, double loss);

}  // namespace cachalot::plan
