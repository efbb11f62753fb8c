#include "serve/openai_answer.h"

namespace cachalot::serve {

std::string dump(const Json& json) {
  return json.dump(-1, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace);
}

std::string event(const Json& json) { return "data: " + dump(json) + "\n\n"; }

void Usage::add(const infer::Timings& timings) noexcept {
  prompt_tokens += timings.prompt_tokens;
  completion_tokens += timings.new_tokens;
  reused_tokens += timings.reused_tokens;
  hit_tokens += timings.hit_tokens();
  miss_tokens += timings.miss_tokens();
}

Json Usage::to_json() const {
  return {{"prompt_tokens", prompt_tokens},
          {"completion_tokens", completion_tokens},
          {"total_tokens", prompt_tokens + completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", reused_tokens}}},
          {"prompt_cache_hit_tokens", hit_tokens},
          {"prompt_cache_miss_tokens", miss_tokens}};
}

Json timings_json(const infer::Result& result) {
  const infer::Timings& t = result.timings;
  const infer::MtpStats mtp = result.mtp();
  const infer::CertainStats certain = result.certain();
  return {{"prompt_tokens", t.prompt_tokens},
          {"prompt_per_second", t.prefill_tokens_per_s()},
          {"predicted_tokens", t.new_tokens},
          {"predicted_per_second", t.decode_tokens_per_s()},
          {"queue_s", t.queue_seconds},
          {"first_token_s", t.first_token_seconds},
          {"drafted", mtp.drafted},
          {"accepted", mtp.accepted},
          {"certain_drafted", certain.drafted},
          {"certain_accepted", certain.accepted}};
}

Json finish_reason(infer::Finish finish) {
  switch (finish) {
    case infer::Finish::kLength:
    case infer::Finish::kContext:
    case infer::Finish::kCacheFull:
      return "length";
    case infer::Finish::kEos:
    case infer::Finish::kStopped:
      return "stop";
    case infer::Finish::kCancelled:
    case infer::Finish::kError:
      return nullptr;
  }
  return nullptr;
}

Json finish_reason(infer::Finish finish, const ToolCallSplitter& calls) {
  Json reason = finish_reason(finish);
  if (calls.calls() == 0 || reason.is_null()) return reason;
  if (!calls.whole()) return "length";
  if (reason == "stop") return "tool_calls";
  return reason;
}

// What one piece of a text brought, or all of them.
struct Said {
  std::string reasoning;
  ToolCallSplitter::Part rest;
};

static void add(ToolCallSplitter::Part& sum, ToolCallSplitter::Part part) {
  sum.content += part.content;
  for (ToolCallSplitter::Delta& d : part.calls) {
    if (sum.calls.empty() || sum.calls.back().index != d.index) {
      sum.calls.push_back(std::move(d));
    } else {
      sum.calls.back().arguments += d.arguments;
    }
  }
}

static Said said_by(ThoughtSplitter& thoughts, ToolCallSplitter& calls, std::string_view text) {
  ThoughtSplitter::Part part = thoughts.push(text);
  return {std::move(part.reasoning), calls.push(part.content)};
}

static Said last_said(ThoughtSplitter& thoughts, ToolCallSplitter& calls, std::string_view text) {
  Said said = said_by(thoughts, calls, text);
  const ThoughtSplitter::Part rest = thoughts.finish();
  said.reasoning += rest.reasoning;
  add(said.rest, calls.push(rest.content));
  add(said.rest, calls.finish());
  return said;
}

// A delta: what nothing came for is left out.
static Json delta_of(Said said) {
  Json delta = Json::object();
  if (!said.reasoning.empty()) delta["reasoning_content"] = std::move(said.reasoning);
  if (!said.rest.content.empty()) delta["content"] = std::move(said.rest.content);
  for (ToolCallSplitter::Delta& call : said.rest.calls) {
    Json told = {{"index", call.index}};
    Json function = Json::object();
    if (!call.name.empty()) {
      told["id"] = std::move(call.id);
      told["type"] = "function";
      function["name"] = std::move(call.name);
    }
    function["arguments"] = std::move(call.arguments);
    told["function"] = std::move(function);
    delta["tool_calls"].push_back(std::move(told));
  }
  return delta;
}

Answer::Answer(AnswerConfig config, const text::Tokenizer& tokenizer, int choices)
    : config_(std::move(config)), tokenizer_(tokenizer) {
  for (std::size_t i = 0; i < static_cast<std::size_t>(choices); ++i) {
    progress_.push_back({ThoughtSplitter(config_.opens_thought),
                         ToolCallSplitter(config_.tools, config_.call_id),
                         TextOffsets(tokenizer, echo_of(i))});
  }
}

std::string_view Answer::echo_of(std::size_t choice) const {
  return choice < config_.echo.size() ? std::string_view(config_.echo[choice]) : "";
}

Json Answer::envelope(std::string_view object, Json choices) const {
  return {{"id", config_.id},
          {"object", object},
          {"created", config_.created},
          {"model", config_.model},
          {"choices", std::move(choices)}};
}

Json Answer::chunk(int choice, Json said, Json logprobs, Json finish) const {
  const bool chat = config_.endpoint == Endpoint::kChat;
  Json choices = Json::array();
  choices.push_back({{"index", choice},
                     {chat ? "delta" : "text", std::move(said)},
                     {"logprobs", std::move(logprobs)},
                     {"finish_reason", std::move(finish)}});
  return envelope(chat ? "chat.completion.chunk" : "text_completion", std::move(choices));
}

std::optional<Json> Answer::first_chunk(int choice) {
  if (config_.endpoint == Endpoint::kChat) {
    return chunk(choice, {{"role", "assistant"}, {"content", ""}}, nullptr, nullptr);
  }
  const std::string_view echo = echo_of(static_cast<std::size_t>(choice));
  if (echo.empty()) return std::nullopt;
  return chunk(choice, echo, nullptr, nullptr);
}

std::optional<Json> Answer::token_chunk(int choice, const infer::NewToken& token) {
  Progress& progress = progress_[static_cast<std::size_t>(choice)];
  const bool chat = config_.endpoint == Endpoint::kChat;
  Json said =
      chat ? delta_of(said_by(progress.thoughts, progress.calls, token.text)) : Json(token.text);
  Json logprobs;
  if (config_.logprobs && token.logprobs != nullptr) {
    const std::span tokens(&token.token, 1);
    const std::span values(token.logprobs, 1);
    logprobs = chat ? chat_logprobs(tokens, values, tokenizer_)
                    : completion_logprobs(tokens, values, tokenizer_, progress.offsets);
  }
  const bool silent = chat ? said.empty() : token.text.empty();
  if (silent && logprobs.is_null()) return std::nullopt;
  return chunk(choice, std::move(said), std::move(logprobs), nullptr);
}

Json Answer::last_chunk(int choice, const infer::Choice& ended) {
  if (config_.endpoint == Endpoint::kCompletions) {
    return chunk(choice, ended.untold(), nullptr, finish_reason(ended.finish));
  }
  Progress& progress = progress_[static_cast<std::size_t>(choice)];
  Json said = delta_of(last_said(progress.thoughts, progress.calls, ended.untold()));
  return chunk(choice, std::move(said), nullptr, finish_reason(ended.finish, progress.calls));
}

Json Answer::usage_chunk(const Usage& usage, const Json& timings) const {
  const bool chat = config_.endpoint == Endpoint::kChat;
  Json json = envelope(chat ? "chat.completion.chunk" : "text_completion", Json::array());
  json["usage"] = usage.to_json();
  json["timings"] = timings;
  return json;
}

// `finish`: why it ended, which its calls have a part in.
Json Answer::whole_message(const infer::Choice& choice, Json& finish) const {
  ThoughtSplitter thoughts(config_.opens_thought);
  ToolCallSplitter splitter(config_.tools, config_.call_id);
  Said said = last_said(thoughts, splitter, choice.text);
  finish = finish_reason(choice.finish, splitter);
  Json message = {{"role", "assistant"}, {"content", std::move(said.rest.content)}};
  if (!said.reasoning.empty()) message["reasoning_content"] = std::move(said.reasoning);
  message["refusal"] = nullptr;
  if (said.rest.calls.empty()) return message;
  if (message["content"] == "") message["content"] = nullptr;
  for (ToolCallSplitter::Delta& call : said.rest.calls) {
    message["tool_calls"].push_back(
        {{"id", std::move(call.id)},
         {"type", "function"},
         {"function", {{"name", std::move(call.name)}, {"arguments", std::move(call.arguments)}}}});
  }
  return message;
}

Json Answer::whole_choice(int index, const infer::Choice& choice) const {
  const bool with_logprobs = config_.logprobs && choice.logprobs.size() == choice.tokens.size();
  if (config_.endpoint == Endpoint::kCompletions) {
    const std::string_view echo = echo_of(static_cast<std::size_t>(index));
    TextOffsets offsets(tokenizer_, echo);
    Json logprobs;
    if (with_logprobs) {
      logprobs = completion_logprobs(choice.tokens, choice.logprobs, tokenizer_, offsets);
    }
    return {{"index", index},
            {"text", std::string(echo) + choice.text},
            {"logprobs", std::move(logprobs)},
            {"finish_reason", finish_reason(choice.finish)}};
  }
  Json finish;
  Json message = whole_message(choice, finish);
  Json logprobs;
  if (with_logprobs) logprobs = chat_logprobs(choice.tokens, choice.logprobs, tokenizer_);
  return {{"index", index},
          {"message", std::move(message)},
          {"logprobs", std::move(logprobs)},
          {"finish_reason", std::move(finish)}};
}

Json Answer::whole(std::span<const infer::Choice> choices, const Usage& usage,
                   const Json& timings) {
  Json list = Json::array();
  for (std::size_t i = 0; i < choices.size(); ++i) {
    list.push_back(whole_choice(static_cast<int>(i), choices[i]));
  }
  const bool chat = config_.endpoint == Endpoint::kChat;
  Json json = envelope(chat ? "chat.completion" : "text_completion", std::move(list));
  json["usage"] = usage.to_json();
  json["timings"] = timings;
  return json;
}

}  // namespace cachalot::serve
