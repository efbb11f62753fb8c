// How `generate` and `chat` report what a generation took.
#pragma once

#include <string>

#include "cli/output.h"
#include "infer/request.h"

namespace cachalot::cli {

Json timings_json(const infer::Result& result, double load_seconds);
Json mtp_json(const infer::MtpStats& stats);
Json certain_json(const infer::CertainStats& stats);
Json choice_json(const infer::Choice& choice, bool has_text);
// One line for stderr; `precision`: what the products were computed in.
std::string summary(const infer::Result& result, const std::string& precision);

}  // namespace cachalot::cli
