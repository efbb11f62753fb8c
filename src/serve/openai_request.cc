#include "serve/openai_request.h"

#include <algorithm>
#include <limits>

#include "serve/json_body.h"
#include "serve/openai_members.h"
#include "serve/openai_messages.h"

namespace cachalot::serve {

namespace {

constexpr std::int64_t kMaxInt = std::numeric_limits<int>::max();

void read_sampling(const Members& members, infer::SamplerConfig& sampling) {
  sampling.temperature = members.number_where("temperature", sampling.temperature,
                                              "a number, 0 (the most likely token) or more",
                                              [](double x) { return x >= 0; });
  sampling.top_p =
      members.number_where("top_p", sampling.top_p, "a number above 0, at most 1 (off)",
                           [](double x) { return x > 0 && x <= 1; });
  sampling.min_p = members.number("min_p", sampling.min_p, 0, 1);
  // Logits are multiplied and divided by it: past this they would not stay finite numbers.
  sampling.repetition_penalty =
      members.number("repetition_penalty", sampling.repetition_penalty, 0.01, 100);
  sampling.presence_penalty = members.number("presence_penalty", sampling.presence_penalty, -2, 2);
  sampling.frequency_penalty =
      members.number("frequency_penalty", sampling.frequency_penalty, -2, 2);
  // -1 switches it off too, as in vLLM.
  if (const auto top_k = members.whole("top_k", -1, kMaxInt)) {
    sampling.top_k = static_cast<int>(std::max<std::int64_t>(*top_k, 0));
  }
}

std::optional<std::uint64_t> read_seed(const Members& members) {
  const BodyJson* value = members.find("seed");
  if (value == nullptr) return std::nullopt;
  if (value->is_number_unsigned()) return value->get<std::uint64_t>();
  const auto number = whole_number(*value, std::numeric_limits<std::int64_t>::min(),
                                   std::numeric_limits<std::int64_t>::max());
  if (!number) refuse_value("seed", *value, "a whole number of 64 bits");
  return static_cast<std::uint64_t>(*number);
}

std::optional<int> read_max_tokens(const Members& members, std::int64_t least) {
  const auto older = members.whole("max_tokens", least, kMaxInt);
  const auto newer = members.whole("max_completion_tokens", least, kMaxInt);
  if (older && newer && *older != *newer) {
    throw ApiError(Code::kUsage,
                   cat("max_tokens is ", *older, " and max_completion_tokens is ", *newer,
                       ", but they mean the same: give one of them"),
                   "max_completion_tokens");
  }
  const auto given = newer ? newer : older;
  if (!given) return std::nullopt;
  return static_cast<int>(*given);
}

std::vector<std::string> read_stops(const Members& members) {
  const BodyJson* value = members.find("stop");
  if (value == nullptr) return {};
  if (!value->is_string() && !value->is_array()) {
    refuse_value("stop", *value, "a string or a list of strings");
  }
  const BodyJson list = value->is_array() ? *value : BodyJson::array({*value});
  if (list.size() > static_cast<std::size_t>(kMaxStops)) {
    refuse_value("stop", list, cat("at most ", kMaxStops));
  }
  std::vector<std::string> stops;
  for (const BodyJson& stop : list) {
    const bool fits = stop.is_string() && !stop.get_ref<const std::string&>().empty() &&
                      stop.get_ref<const std::string&>().size() <= kMaxStopBytes;
    if (!fits) {
      throw ApiError(Code::kUsage,
                     cat("a stop string is ", shown(stop), ", but it must be a string of 1 to ",
                         kMaxStopBytes, " bytes"),
                     "stop");
    }
    stops.push_back(stop.get<std::string>());
  }
  return stops;
}

void read_stream(const Members& members, ApiRequest& request) {
  static constexpr std::string_view kOptions[] = {"include_usage", "include_obfuscation"};
  request.stream = members.flag("stream", false);
  const BodyJson* options = members.find("stream_options");
  if (options == nullptr) return;
  if (!options->is_object()) {
    refuse_value("stream_options", *options, R"({"include_usage": true or false})");
  }
  if (!request.stream) {
    throw ApiError(Code::kUsage,
                   "stream_options is there, but it needs \"stream\": true: set that, or leave "
                   "stream_options out",
                   "stream_options");
  }
  check_names(*options, kOptions, "stream_options.", "stream_options");
  const Members given(*options);
  const BodyJson* usage = given.find("include_usage");
  if (usage == nullptr) return;
  if (!usage->is_boolean()) {
    throw ApiError(
        Code::kUsage,
        cat("stream_options.include_usage is ", shown(*usage), ", but it must be true or false"),
        "stream_options");
  }
  request.include_usage = usage->get<bool>();
}

ApiRequest read_common(const BodyJson& body, Endpoint endpoint, const RequestDefaults& defaults) {
  check_members(body, endpoint);
  const Members members(body);
  ApiRequest request;
  request.endpoint = endpoint;
  request.model = members.text("model");
  request.sampling = defaults.sampling;
  read_sampling(members, request.sampling);
  request.seed = read_seed(members);
  request.max_tokens = read_max_tokens(members, endpoint == Endpoint::kChat ? 1 : 0);
  request.stop = read_stops(members);
  request.n = static_cast<int>(members.whole("n", 1, infer::kMaxChoices).value_or(1));
  request.ignore_eos = members.flag("ignore_eos", false);
  read_stream(members, request);
  return request;
}

// -1 without.
int read_chat_logprobs(const Members& members) {
  const BodyJson* wanted = members.find("logprobs");
  if (wanted != nullptr && !wanted->is_boolean()) {
    refuse_value("logprobs", *wanted, "true or false (top_logprobs says how many)");
  }
  const auto top = members.whole("top_logprobs", 0, infer::kMaxLogprobs);
  if (wanted != nullptr && wanted->get<bool>()) return static_cast<int>(top.value_or(0));
  if (top.value_or(0) > 0) {
    throw ApiError(Code::kUsage, cat("top_logprobs is ", *top, ", but it needs \"logprobs\": true"),
                   "top_logprobs");
  }
  return -1;
}

std::vector<std::int32_t> read_ids(const BodyJson& list, const std::string& member) {
  std::vector<std::int32_t> ids;
  ids.reserve(list.size());
  for (const BodyJson& value : list) {
    const auto id = whole_number(value, 0, std::numeric_limits<std::int32_t>::max());
    if (!id) {
      throw ApiError(Code::kUsage,
                     cat("value ", ids.size(), " of ", member, " is ", shown(value),
                         ", but it must be a token id: a whole number, 0 or more"),
                     member);
    }
    ids.push_back(static_cast<std::int32_t>(*id));
  }
  return ids;
}

// A string, token ids, or a list of either.
std::vector<PromptText> read_prompts(const Members& members) {
  const BodyJson* prompt = members.find("prompt");
  if (prompt == nullptr) {
    throw ApiError(Code::kUsage, "prompt is missing, but a completion needs a text to begin from",
                   "prompt");
  }
  constexpr const char* kNeeded =
      "a string, a list of token ids, or a list of strings or of lists of token ids";
  if (prompt->is_string()) return {prompt->get<std::string>()};
  if (!prompt->is_array() || prompt->empty()) refuse_value("prompt", *prompt, kNeeded);
  if (prompt->front().is_number()) return {read_ids(*prompt, "prompt")};
  if (prompt->size() > static_cast<std::size_t>(kMaxPrompts)) {
    refuse_value("prompt", *prompt, cat("at most ", kMaxPrompts, " prompts in one request"));
  }
  std::vector<PromptText> prompts;
  const bool texts = prompt->front().is_string();
  for (const BodyJson& one : *prompt) {
    if (texts ? !one.is_string() : !one.is_array() || one.empty()) {
      throw ApiError(Code::kUsage,
                     cat("prompt ", prompts.size(), " is ", shown(one), ", but it must be ",
                         texts ? "a string as the first one is" : kNeeded),
                     "prompt");
    }
    if (texts) {
      prompts.emplace_back(one.get<std::string>());
    } else {
      prompts.emplace_back(read_ids(one, "prompt"));
    }
  }
  return prompts;
}

}  // namespace

ApiRequest parse_chat_request(std::string_view body, const RequestDefaults& defaults) {
  const BodyJson json = parse_json_body(body);
  ApiRequest request = read_common(json, Endpoint::kChat, defaults);
  const Members members(json);
  request.logprobs = read_chat_logprobs(members);
  const BodyJson* messages = members.find("messages");
  if (messages == nullptr) {
    throw ApiError(Code::kUsage, "messages is missing, but a chat needs at least one message",
                   "messages");
  }
  request.messages = read_messages(*messages);
  const FormTexts texts = form_texts(members, body);
  request.form = read_form(members, texts);
  request.tools = read_tools(members, texts);
  request.thinking = read_thinking(members);
  if (request.tools.on() && request.form.kind != Form::Kind::kFree) {
    throw ApiError(Code::kUnsupported,
                   cat(request.form.member,
                       " binds the whole answer, which cannot be a call of a tool then: leave it "
                       "or tools out, or set tool_choice to \"none\""),
                   request.form.member);
  }
  return request;
}

ApiRequest parse_completion_request(std::string_view body, const RequestDefaults& defaults) {
  const BodyJson json = parse_json_body(body);
  ApiRequest request = read_common(json, Endpoint::kCompletions, defaults);
  const Members members(json);
  request.prompts = read_prompts(members);
  request.form = read_form(members, form_texts(members, body));
  request.echo = members.flag("echo", false);
  request.logprobs =
      static_cast<int>(members.whole("logprobs", 0, infer::kMaxLogprobs).value_or(-1));
  if (request.echo && request.logprobs >= 0) {
    throw ApiError(Code::kUnsupported,
                   "echo with logprobs asks for the log-probabilities of the prompt, which are "
                   "not computed here: leave one of them out",
                   "echo");
  }
  const auto best_of = members.whole("best_of", 1, infer::kMaxChoices);
  if (best_of && *best_of != request.n) {
    throw ApiError(Code::kUnsupported,
                   cat("best_of is ", *best_of, ", but answers are not ranked here: it must be n (",
                       request.n, "), or left out"),
                   "best_of");
  }
  return request;
}

TokenizeRequest parse_tokenize_request(std::string_view body) {
  static constexpr std::string_view kKnown[] = {"model",
                                                "prompt",
                                                "messages",
                                                "add_generation_prompt",
                                                "tools",
                                                "tool_choice",
                                                "chat_template_kwargs",
                                                "thinking"};
  const BodyJson json = parse_json_body(body);
  check_names(json, kKnown, "", "");
  const Members members(json);
  (void)members.text("model");
  const BodyJson* messages = members.find("messages");
  if ((messages == nullptr) == (members.find("prompt") == nullptr)) {
    throw ApiError(Code::kUsage,
                   cat(messages == nullptr ? "neither \"prompt\" nor \"messages\" is"
                                           : "\"prompt\" and \"messages\" are both",
                       " there: give one of them"),
                   "prompt");
  }
  TokenizeRequest request;
  if (messages == nullptr) {
    for (const char* name : {"tools", "tool_choice", "chat_template_kwargs", "thinking"}) {
      if (members.find(name) == nullptr) continue;
      throw ApiError(Code::kUsage, cat(name, " is for \"messages\": leave it out"), name);
    }
    request.prompt = members.text("prompt");
  } else {
    request.messages = read_messages(*messages);
    request.tools = read_tools(members, form_texts(members, body));
    request.thinking = read_thinking(members);
  }
  request.add_generation_prompt = members.flag("add_generation_prompt", true);
  return request;
}

std::vector<std::int32_t> parse_detokenize_request(std::string_view body) {
  static constexpr std::string_view kKnown[] = {"model", "tokens"};
  const BodyJson json = parse_json_body(body);
  check_names(json, kKnown, "", "");
  const Members members(json);
  (void)members.text("model");
  const BodyJson* tokens = members.find("tokens");
  if (tokens == nullptr) {
    throw ApiError(Code::kUsage, "tokens is missing, but token ids are needed", "tokens");
  }
  if (!tokens->is_array()) refuse_value("tokens", *tokens, "a list of token ids");
  return read_ids(*tokens, "tokens");
}

}  // namespace cachalot::serve
