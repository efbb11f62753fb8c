// What `cachalot network simulate` says: as JSON, and that as lines of text.
//
// Threads: pure functions.
// Errors:  none.
#pragma once

#include <optional>

#include "cli/network_eplb.h"
#include "cli/output.h"
#include "network/simulate.h"
#include "report/page.h"

namespace cachalot::cli {

// Times and bandwidths are null where no group can finish. `wall` is what the command took,
// seconds.
Json simulation_json(const network::Topology& topology, const network::SimulateSpec& spec,
                     const network::SimulateResult& result, double wall);

// The same tokens with experts in order (`before`; none where they cannot lie so), and where the
// balancer puts them: to stand as "eplb" in simulation_json.
Json eplb_json(const Balanced& balanced, const std::optional<network::SimulateResult>& before,
               const network::SimulateResult& after);

// Of simulation_json, with or without "eplb" and "every_pass" in it.
report::Facts simulation_facts(const Json& result);

}  // namespace cachalot::cli
