// How a design for a budget looks: as JSON, as text and as a page.
#pragma once

#include <string>
#include <vector>

#include "cli/design_recipe.h"
#include "cli/output.h"
#include "plan/design.h"
#include "report/page.h"

namespace cachalot::cli {

struct DesignReport {
  const plan::HardwareProfile& hardware;
  const plan::DesignRequest& request;
  const plan::DesignResult& result;
  const std::vector<HandMade>& by_hand;
};

Json to_json(const DesignReport& report);
std::string to_text(const DesignReport& report);
report::Page page_of(const DesignReport& report);

}  // namespace cachalot::cli
