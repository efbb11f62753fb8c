// How a training plan looks: as JSON, as text and as a page.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/output.h"
#include "plan/measured_step.h"
#include "plan/train_plan.h"
#include "report/page.h"

namespace cachalot::cli {

struct TrainReport {
  const model::Config& config;
  const plan::HardwareProfile& hardware;
  const std::vector<plan::TrainPlan>& plans;  // fastest first
  double tokens = 0;
  double device_hours = 0;
  std::optional<plan::MeasuredStep> beside;
  std::string batch_reason;  // why the batch is what it is; "" where it was asked for
};

Json to_json(const TrainReport& report);
std::string to_text(const TrainReport& report);
report::Page page_of(const TrainReport& report);

}  // namespace cachalot::cli
