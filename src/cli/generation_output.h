// How `generate` and `chat` report what a generation took.
#pragma once

#include <string>

#include "cli/output.h"
#include "infer/generator.h"

namespace cachalot::cli {

infer::MtpMode parse_mtp(const std::string& text);  // "on", "off", "auto"
Json timings_json(const infer::Result& result, double load_seconds);
Json mtp_json(const infer::MtpStats& stats);
std::string summary(const infer::Result& result);  // one line for stderr

}  // namespace cachalot::cli
