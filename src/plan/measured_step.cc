#include "plan/measured_step.h"

#include "base/atomic_file.h"
#include "base/error.h"
#include "io/toml.h"

namespace cachalot::plan {

void MeasuredStep::fields(FieldVisitor& f) {
  constexpr double kMost = 1e18;
  f("name", name, "what was measured");
  f("source", source, "where the figures come from");
  f("notes", notes, "what a reader should know");
  f("step_seconds", step_seconds, 0.0, kMost, "one step");
  f("forward_seconds", forward_seconds, 0.0, kMost, "forwards alone, of one rank");
  f("bubble_seconds", bubble_seconds, 0.0, kMost, "waiting for other ranks");
  f("backward_seconds", backward_seconds, 0.0, kMost, "backwards alone");
  f("weight_seconds", weight_seconds, 0.0, kMost, "gradients of weights alone");
  f("overlapped_seconds", overlapped_seconds, 0.0, kMost, "overlapped forwards and backwards");
  f("optimizer_seconds", optimizer_seconds, 0.0, kMost, "gradient exchange and optimiser");
  f("tokens_per_day", tokens_per_day, 0.0, kMost, "tokens trained on in a day");
  f("tflops_causal", tflops_causal, 0.0, kMost, "1e12 model FLOP/s of a device, half of attention");
  f("tflops_non_causal", tflops_non_causal, 0.0, kMost, "the same, all of attention");
  f("peak_tflops", peak_tflops, 0.0, kMost, "peak that the utilisation was counted against");
  f("mfu_causal", mfu_causal, 0.0, 100.0, "percent of peak_tflops");
  f("mfu_non_causal", mfu_non_causal, 0.0, 100.0, "percent of peak_tflops");
  f("device_hours", device_hours, 0.0, kMost, "of the whole run");
  f("money", money, 0.0, kMost, "of the whole run");
}

MeasuredStep parse_measured_step(std::string_view toml, const std::string& file_name) {
  MeasuredStep m;
  const auto fields = fields_of(m);
  for (const io::TomlEntry& entry : io::parse_toml(toml, file_name)) {
    assign(fields, entry.path, entry.value, cat(file_name, ":", entry.line), Code::kConfig);
  }
  if (m.source.empty()) {
    throw Error(Code::kConfig,
                cat(file_name, ": source is missing; say where the figures come from."));
  }
  return m;
}

MeasuredStep load_measured_step(const std::filesystem::path& file) {
  constexpr std::uint64_t kMostBytes = 1 << 20;
  return parse_measured_step(read_file(file, kMostBytes), file.string());
}

}  // namespace cachalot::plan
