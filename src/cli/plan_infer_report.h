// How a serving plan looks: as JSON, as text and as a page.
#pragma once

#include <string>

#include "cli/output.h"
#include "plan/infer_grid.h"
#include "report/page.h"

namespace cachalot::cli {

struct InferReport {
  const plan::InferPlan& plan;
  const plan::InferOptions& options;
  const cost::Decoder& decoder;
  const plan::HardwareProfile& hardware;
  std::string weights, cache;  // the formats' names
};

Json to_json(const InferReport& report);
std::string to_text(const InferReport& report);
report::Page page_of(const InferReport& report, const plan::InferGrid& grid);

}  // namespace cachalot::cli
