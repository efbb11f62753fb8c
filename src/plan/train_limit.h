// What the time of a training step goes to: computing, memory, communication or waiting.
//
// Threads: pure functions.
// Errors:  those of TrainClock.
#pragma once

#include <string_view>

#include "plan/train_plan.h"

namespace cachalot::plan {

enum class TrainLimit : std::uint8_t { kCompute, kMemory, kCommunication, kBubble };
inline constexpr TrainLimit kTrainLimits[] = {TrainLimit::kCompute, TrainLimit::kMemory,
                                              TrainLimit::kCommunication, TrainLimit::kBubble};
std::string_view name(TrainLimit limit) noexcept;

// Seconds of one step, mean over the ranks. Computing: products and attention. Memory: what passes
// over activations and gradients. Communication: dispatch, combine and tensor groups, hidden or
// not.
struct TrainSpending {
  double compute = 0, memory = 0, communication = 0, bubble = 0;
  bool hidden = false;  // the schedule computes while it communicates
  // The largest; communication that is hidden counts only by what it exceeds computing by.
  TrainLimit limit() const noexcept;
};
TrainSpending spending_of(const model::Config& config, const HardwareProfile& hardware,
                          const TrainPlan& plan);
// The same for one micro-batch in one stage, forward and backward, without bubble.
TrainSpending spending_of(const LayerTime& stage, cost::ScheduleKind schedule);

}  // namespace cachalot::plan
