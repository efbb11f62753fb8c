// How a training plan looks: as text and as JSON.
#pragma once

#include <optional>
#include <vector>

#include "cli/output.h"
#include "plan/measured_step.h"
#include "plan/train_plan.h"

namespace cachalot::cli {

struct TrainReport {
  const model::Config& config;
  const plan::HardwareProfile& hardware;
  const std::vector<plan::TrainPlan>& plans;  // fastest first
  double tokens = 0;
  double device_hours = 0;
  std::optional<plan::MeasuredStep> beside;
};

Json to_json(const TrainReport& report);
void print_text(const TrainReport& report);

}  // namespace cachalot::cli
