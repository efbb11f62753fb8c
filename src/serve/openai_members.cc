#include "serve/openai_members.h"

#include <algorithm>
#include <vector>

#include "base/nearest.h"

namespace cachalot::serve {

namespace {

enum class Use : std::uint8_t {
  kRead,     // openai_request.cc and openai_forms.cc read it
  kPassed,   // changes nothing here, whatever it holds
  kNothing,  // refused unless it asks for nothing
};
enum class At : std::uint8_t { kBoth, kChat, kCompletions };

struct Member {
  std::string_view name;
  Use use;
  At at = At::kBoth;
};

constexpr Member kMembers[] = {
    {"model", Use::kRead},
    {"messages", Use::kRead, At::kChat},
    {"prompt", Use::kRead, At::kCompletions},
    {"temperature", Use::kRead},
    {"top_p", Use::kRead},
    {"top_k", Use::kRead},
    {"min_p", Use::kRead},
    {"repetition_penalty", Use::kRead},
    {"presence_penalty", Use::kRead},
    {"frequency_penalty", Use::kRead},
    {"seed", Use::kRead},
    {"max_tokens", Use::kRead},
    {"max_completion_tokens", Use::kRead},
    {"stop", Use::kRead},
    {"n", Use::kRead},
    {"best_of", Use::kRead, At::kCompletions},
    {"logprobs", Use::kRead},
    {"top_logprobs", Use::kRead, At::kChat},
    {"stream", Use::kRead},
    {"stream_options", Use::kRead},
    {"echo", Use::kRead, At::kCompletions},
    {"ignore_eos", Use::kRead},
    {"response_format", Use::kRead},
    {"structured_outputs", Use::kRead},
    {"tools", Use::kRead, At::kChat},
    {"tool_choice", Use::kRead, At::kChat},
    {"parallel_tool_calls", Use::kRead, At::kChat},
    {"chat_template_kwargs", Use::kRead, At::kChat},
    {"thinking", Use::kRead, At::kChat},

    {"user", Use::kPassed},
    {"metadata", Use::kPassed},
    {"store", Use::kPassed},
    {"service_tier", Use::kPassed},
    {"safety_identifier", Use::kPassed},
    {"prompt_cache_key", Use::kPassed},
    {"prompt_cache_retention", Use::kPassed},
    // A guess of the answer, which could only make it come sooner.
    {"prediction", Use::kPassed, At::kChat},

    {"logit_bias", Use::kNothing},
    {"suffix", Use::kNothing, At::kCompletions},
    {"functions", Use::kNothing, At::kChat},
    {"function_call", Use::kNothing, At::kChat},
    {"modalities", Use::kNothing, At::kChat},
    {"audio", Use::kNothing, At::kChat},
    {"web_search_options", Use::kNothing, At::kChat},
    {"reasoning_effort", Use::kNothing, At::kChat},
    {"verbosity", Use::kNothing, At::kChat},
};

struct Nothing {
  std::string_view name;
  const char* needed;  // what a value may be, besides null
  bool (*holds)(const BodyJson&);
};

constexpr Nothing kNothings[] = {
    {"logit_bias", "null or {}", [](const BodyJson& v) { return v.is_object() && v.empty(); }},
    {"suffix", "null or \"\"", [](const BodyJson& v) { return v == ""; }},
    {"functions", "null or []", [](const BodyJson& v) { return v.is_array() && v.empty(); }},
    {"function_call", R"(null, "none" or "auto")",
     [](const BodyJson& v) { return v == "none" || v == "auto"; }},
    {"modalities", R"(null or ["text"])",
     [](const BodyJson& v) { return v.is_array() && v.size() == 1 && v[0] == "text"; }},
    {"verbosity", R"(null or "medium")", [](const BodyJson& v) { return v == "medium"; }},
};

void check_asks_nothing(const std::string& name, const BodyJson& value) {
  const auto rule = std::find_if(std::begin(kNothings), std::end(kNothings),
                                 [&](const Nothing& n) { return n.name == name; });
  const bool known = rule != std::end(kNothings);
  if (known && rule->holds(value)) return;
  throw ApiError(Code::kUnsupported,
                 cat(name, " is ", shown(value), ", which is not supported here: it must be ",
                     known ? rule->needed : "null", ", or left out"),
                 name);
}

[[noreturn]] void refuse_name(const std::string& name, std::span<const std::string_view> known,
                              const std::string& where, const std::string& param) {
  // A longer name than any near one: the distance would cost its length for nothing.
  constexpr std::size_t kLongest = 64;
  std::string near;
  if (name.size() <= kLongest) {
    near = nearest_within(std::max<std::size_t>(2, name.size() / 3), name, known.data(),
                          known.data() + known.size());
  }
  throw ApiError(Code::kUsage,
                 cat("unknown member \"", where, shown_text(name), "\"",
                     near.empty() ? ": leave it out" : "; did you mean \"" + near + "\"?"),
                 param.empty() ? shown_text(name) : param);
}

bool is_at(const Member& member, Endpoint endpoint) {
  return member.at == At::kBoth || (member.at == At::kChat) == (endpoint == Endpoint::kChat);
}

}  // namespace

void check_members(const BodyJson& body, Endpoint endpoint) {
  for (const auto& [name, value] : body.items()) {
    const auto found = std::find_if(std::begin(kMembers), std::end(kMembers),
                                    [&name = name](const Member& m) { return m.name == name; });
    if (found == std::end(kMembers)) {
      std::vector<std::string_view> known;
      for (const Member& m : kMembers) {
        if (is_at(m, endpoint)) known.push_back(m.name);
      }
      refuse_name(name, known, "", "");
    }
    if (value.is_null()) continue;
    if (!is_at(*found, endpoint)) {
      throw ApiError(Code::kUsage,
                     cat("\"", name, "\" is a member of requests to ",
                         found->at == At::kChat ? "/v1/chat/completions" : "/v1/completions",
                         ": ask there, or leave it out"),
                     name);
    }
    if (found->use == Use::kNothing) check_asks_nothing(name, value);
  }
}

void check_names(const BodyJson& object, std::span<const std::string_view> known,
                 const std::string& where, const std::string& param) {
  for (const auto& [name, value] : object.items()) {
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      refuse_name(name, known, where, param);
    }
  }
}

}  // namespace cachalot::serve
