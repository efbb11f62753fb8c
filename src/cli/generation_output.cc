#include "cli/generation_output.h"

#include <fmt/format.h>

#include "base/error.h"

namespace cachalot::cli {

infer::MtpMode parse_mtp(const std::string& text) {
  if (text == "on") return infer::MtpMode::kOn;
  if (text == "off") return infer::MtpMode::kOff;
  if (text == "auto") return infer::MtpMode::kAuto;
  throw Error(Code::kUsage, cat("--mtp is `", text, "`, but must be on, off or auto"));
}

Json timings_json(const infer::Result& result, double load_seconds) {
  const infer::Timings& t = result.timings;
  return {{"load_s", load_seconds},
          {"prompt_tokens", t.prompt_tokens},
          {"reused_tokens", t.reused_tokens},
          {"new_tokens", t.new_tokens},
          {"prefill_s", t.prefill_seconds},
          {"prefill_tokens_per_s", t.prefill_tokens_per_s()},
          {"first_token_s", t.first_token_seconds},
          {"decode_s", t.decode_seconds},
          {"decode_tokens_per_s", t.decode_tokens_per_s()}};
}

Json mtp_json(const infer::MtpStats& stats) {
  Json json = {{"enabled", stats.enabled},
               {"drafted", stats.drafted},
               {"accepted", stats.accepted},
               {"acceptance", nullptr},
               {"passes", stats.passes}};
  if (stats.drafted > 0) json["acceptance"] = stats.acceptance();
  return json;
}

std::string summary(const infer::Result& result) {
  const infer::Timings& t = result.timings;
  std::string text = fmt::format(
      "prompt {} tokens ({} reused) at {:.1f}/s, first token after {:.3f} s, {} new "
      "tokens at {:.1f}/s, ended by {}",
      t.prompt_tokens, t.reused_tokens, t.prefill_tokens_per_s(), t.first_token_seconds,
      t.new_tokens, t.decode_tokens_per_s(), infer::name(result.finish));
  if (result.mtp.drafted > 0) {
    text += fmt::format(", {} of {} drafts accepted ({:.0f}%)", result.mtp.accepted,
                        result.mtp.drafted, 100 * result.mtp.acceptance());
  }
  return text;
}

}  // namespace cachalot::cli
