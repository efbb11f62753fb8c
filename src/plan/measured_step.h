// A measured training step, to be set beside a predicted one. TOML; every figure may be left out.
//
// Threads: values; nothing shared.
// Errors:  kFormat, kUsage (unknown key, the nearest named), kConfig (out of range, no source),
// kIo. Paper:   "Insights into DeepSeek-V3" table 4 has these parts.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "base/fields.h"

namespace cachalot::plan {

struct MeasuredStep {
  std::string name;
  std::string source;
  std::string notes;
  double step_seconds = 0;
  double forward_seconds = 0;  // 1F
  double bubble_seconds = 0;
  double backward_seconds = 0;    // 1B
  double weight_seconds = 0;      // 1W
  double overlapped_seconds = 0;  // 1F1B, F&B
  double optimizer_seconds = 0;
  double tokens_per_day = 0;
  double tflops_causal = 0;
  double tflops_non_causal = 0;
  double peak_tflops = 0;  // what the utilisation was counted against
  double mfu_causal = 0;   // percent
  double mfu_non_causal = 0;
  double device_hours = 0;
  double money = 0;
  void fields(FieldVisitor& f);
};

MeasuredStep parse_measured_step(std::string_view toml, const std::string& file_name);
MeasuredStep load_measured_step(const std::filesystem::path& file);

}  // namespace cachalot::plan
