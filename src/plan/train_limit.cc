#include "plan/train_limit.h"

#include <algorithm>
#include <iterator>

namespace cachalot::plan {

std::string_view name(TrainLimit limit) noexcept {
  switch (limit) {
    case TrainLimit::kCompute:
      return "compute";
    case TrainLimit::kMemory:
      return "memory bandwidth";
    case TrainLimit::kCommunication:
      return "communication";
    case TrainLimit::kBubble:
      return "pipeline bubble";
  }
  return "";
}

TrainLimit TrainSpending::limit() const noexcept {
  const double shown = hidden ? communication - compute - memory : communication;
  const double all[] = {compute, memory, shown, bubble};  // in the order of kTrainLimits
  return kTrainLimits[std::distance(std::begin(all), std::ranges::max_element(all))];
}

TrainSpending spending_of(const LayerTime& stage, cost::ScheduleKind schedule) {
  TrainSpending s;
  s.compute = stage.products.sum() + stage.attention.sum();
  s.memory = stage.elementwise.sum() + stage.accumulation.sum();
  s.communication = stage.sending.sum();
  s.hidden =
      schedule == cost::ScheduleKind::kDualPipe || schedule == cost::ScheduleKind::kDualPipeV;
  return s;
}

TrainSpending spending_of(const model::Config& config, const HardwareProfile& hardware,
                          const TrainPlan& plan) {
  const TrainClock clock(config, plan.layout, hardware);
  LayerTime all;
  for (const cost::Stage& stage : plan.stages) all += clock.stage(stage);
  TrainSpending s = spending_of(all, plan.layout.schedule);
  // Every micro-batch passes every stage once; the ranks share that.
  const double each =
      plan.layout.micro_batches() / static_cast<double>(plan.simulation.ranks.size());
  for (double* x : {&s.compute, &s.memory, &s.communication}) *x *= each;
  s.bubble = plan.bubble;
  return s;
}

}  // namespace cachalot::plan
