// What the pages of the network commands share: sliders over planes, what limits a simulated time,
// assumptions and their sources.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "cli/network_options.h"
#include "network/fabric.h"
#include "report/page.h"

namespace cachalot::cli {

// Planes that a slider offers: `asked`, or else 1, 2, 4... up to the GPUs of a node; always the
// network's own number.
void add_html_planes_flag(CLI::App& command, std::vector<int>& planes);
std::vector<int> plane_positions(const std::vector<int>& asked, const network::TopologySpec& spec);
report::Axis planes_axis(const std::vector<int>& positions, int start);

// `point`, or where it throws Error a point of nothing that says why.
report::GridPoint grid_point_or_why(const report::WhatIf& shape,
                                    const std::function<report::GridPoint()>& point);

// Counts and price of mpft networks by planes and endpoints, with the ports and nodes of `spec`.
report::WhatIf planes_what_if(const network::TopologySpec& spec, const network::Prices& prices);

// What a simulated time goes to: the busiest resource, or none of them where even that one is idle
// most of the time.
std::vector<std::string> limit_marks();
report::Mark limit_mark(const network::SimulateResult& result);
report::Mark resource_mark(const std::string& resource);  // by Fabric::name
Json limit_name(const network::SimulateResult& result);   // null where no group can finish
report::Mark limit_mark(const Json& name);                // -1: null, none

report::Section topology_assumptions(const network::Prices& prices);
report::Section simulation_assumptions(const network::Rates& rates);

}  // namespace cachalot::cli
