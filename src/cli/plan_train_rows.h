// What the JSON, the text and the page of a training plan share.
#pragma once

#include <vector>

#include "cli/plan_train_report.h"

namespace cachalot::cli {

struct TrainRow {
  const char* name;
  double predicted;  // mean over the ranks
  double first;      // of rank 0
  double measured;   // 0: not known
  const char* unit;
};
std::vector<TrainRow> rows(const TrainReport& report, const plan::TrainPlan& plan);

// Utilisation of the measured step by the same counts, a share: what is published can be checked
// with it. 0: the step or the peak is not known.
double measured_mfu(const plan::TrainPlan& plan, const plan::MeasuredStep& measured, bool causal);

plan::Bill bill(const TrainReport& report, const plan::TrainPlan& plan);

}  // namespace cachalot::cli
