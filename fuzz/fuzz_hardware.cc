// Any text as a hardware profile: a clear Error, or a profile whose dump gives the same profile
// again, and with which a plan either is an Error of its own or has times that are numbers.
// Links: plan
#include <cmath>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/error.h"
#include "plan/hardware.h"
#include "plan/infer.h"

static void require(bool truth) {
  if (!truth) std::abort();
}

static const cachalot::cost::Decoder& model() {
  static const auto decoder = cachalot::cost::load_decoder("deepseek-v2-lite");
  return decoder;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using cachalot::Code;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  cachalot::plan::HardwareProfile profile;
  try {
    profile = cachalot::plan::parse_hardware(text, "fuzz");
  } catch (const cachalot::Error& e) {
    require(e.code() == Code::kFormat || e.code() == Code::kConfig || e.code() == Code::kUsage);
    const std::string_view what(e.what());
    require(what.starts_with("fuzz"));
    for (const char c : what) require(static_cast<unsigned char>(c) >= 0x20);
    return 0;
  }
  const std::string dump = cachalot::plan::to_toml(profile);
  require(cachalot::plan::to_toml(cachalot::plan::parse_hardware(dump, "again")) == dump);
  try {
    cachalot::plan::InferOptions options;
    options.batches = {1, 64};
    options.contexts = {0, 4096};
    const auto plan = cachalot::plan::plan_infer(model(), profile, options);
    for (const auto& c : plan.decode) require(std::isfinite(c.tpot) && c.tpot > 0);
    require(std::isfinite(plan.prefill.ttft) && plan.prefill.ttft > 0);
  } catch (const cachalot::Error& e) {
    require(e.code() == Code::kConfig || e.code() == Code::kUnsupported ||
            e.code() == Code::kUsage);
  }
  return 0;
}
