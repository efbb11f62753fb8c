#include "cli/generation_output.h"

#include <fmt/format.h>

namespace cachalot::cli {

Json timings_json(const infer::Result& result, double load_seconds) {
  const infer::Timings& t = result.timings;
  return {{"load_s", load_seconds},
          {"prompt_tokens", t.prompt_tokens},
          {"reused_tokens", t.reused_tokens},
          {"prompt_cache_hit_tokens", t.hit_tokens()},
          {"prompt_cache_miss_tokens", t.miss_tokens()},
          {"new_tokens", t.new_tokens},
          {"prefill_s", t.prefill_seconds},
          {"prefill_tokens_per_s", t.prefill_tokens_per_s()},
          {"first_token_s", t.first_token_seconds},
          {"decode_s", t.decode_seconds},
          {"decode_tokens_per_s", t.decode_tokens_per_s()}};
}

Json mtp_json(const infer::MtpStats& stats) {
  Json json = {{"enabled", stats.enabled},     {"drafted", stats.drafted},
               {"accepted", stats.accepted},   {"acceptance", nullptr},
               {"by_distance", Json::array()}, {"passes", stats.passes}};
  if (stats.drafted > 0) json["acceptance"] = stats.acceptance();
  for (std::size_t i = 0; i < stats.drafted_at.size() && stats.drafted_at[i] > 0; ++i) {
    json["by_distance"].push_back(static_cast<double>(stats.accepted_at[i]) /
                                  static_cast<double>(stats.drafted_at[i]));
  }
  return json;
}

Json certain_json(const infer::CertainStats& stats) {
  return {{"drafted", stats.drafted}, {"accepted", stats.accepted}};
}

Json choice_json(const infer::Choice& choice, bool has_text) {
  Json json = {{"tokens", choice.tokens},
               {"text", has_text ? Json(choice.text) : Json(nullptr)},
               {"finish", infer::name(choice.finish)}};
  if (choice.slides > 0) {
    json["slides"] = choice.slides;
    json["forgotten_tokens"] = choice.forgotten;
  }
  if (choice.logprobs.empty()) return json;
  json["logprobs"] = Json::array();
  for (const infer::TokenLogprobs& each : choice.logprobs) {
    Json top = Json::array();
    for (const infer::TokenLogprob& t : each.top) top.push_back({t.token, t.logprob});
    json["logprobs"].push_back({{"logprob", each.logprob}, {"top", std::move(top)}});
  }
  return json;
}

std::string summary(const infer::Result& result, const std::string& precision) {
  const infer::Timings& t = result.timings;
  std::string text = fmt::format(
      "prompt {} tokens ({} reused) at {:.1f}/s, first token after {:.3f} s, {} new "
      "tokens at {:.1f}/s in {}, ended by {}",
      t.prompt_tokens, t.reused_tokens, t.prefill_tokens_per_s(), t.first_token_seconds,
      t.new_tokens, t.decode_tokens_per_s(), precision, infer::name(result.finish()));
  const infer::MtpStats mtp = result.mtp();
  if (mtp.drafted > 0) {
    text += fmt::format(", {} of {} drafts accepted ({:.0f}%)", mtp.accepted, mtp.drafted,
                        100 * mtp.acceptance());
  }
  if (const infer::CertainStats certain = result.certain(); certain.drafted > 0) {
    text += fmt::format(", {} of {} certain tokens as expected", certain.accepted, certain.drafted);
  }
  for (const infer::Choice& choice : result.choices) {
    if (choice.slides == 0) continue;
    text += fmt::format(", {} older tokens forgotten at the end of the context ({} times)",
                        choice.forgotten, choice.slides);
  }
  return text;
}

}  // namespace cachalot::cli
