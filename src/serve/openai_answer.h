// Answers in the form of the OpenAI API: whole, or piece by piece as server-sent events.
//
// Owns:    how far each choice of a stream has come; borrows the tokenizer.
// Threads: one at a time. Of a stream first_chunk, token_chunk and last_chunk come for each choice
//          in that order.
// Errors:  none: bytes that are not UTF-8 become U+FFFD where JSON is dumped (dump()).
// Source:  https://platform.openai.com/docs/api-reference/chat/object (whole),
//          https://platform.openai.com/docs/api-reference/chat/streaming and
//          https://platform.openai.com/docs/api-reference/completions/object; reasoning_content,
//          prompt_cache_hit_tokens and prompt_cache_miss_tokens:
//          https://api-docs.deepseek.com/api/create-chat-completion
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "infer/request.h"
#include "serve/api_error.h"
#include "serve/openai_logprobs.h"
#include "serve/openai_request.h"
#include "serve/thoughts.h"
#include "serve/tool_calls.h"
#include "text/tokenizer.h"

namespace cachalot::serve {

// One line of JSON, valid UTF-8.
std::string dump(const Json& json);
// "data: {...}\n\n", one event of a stream.
std::string event(const Json& json);
inline constexpr std::string_view kLastEvent = "data: [DONE]\n\n";

// Sums over all requests of one answer (several prompts are several engine requests).
struct Usage {
  std::int64_t prompt_tokens = 0, completion_tokens = 0, reused_tokens = 0;
  std::int64_t hit_tokens = 0, miss_tokens = 0;
  void add(const infer::Timings& timings) noexcept;
  // {"prompt_tokens", "completion_tokens", "total_tokens",
  //  "prompt_tokens_details": {"cached_tokens"},
  //  "prompt_cache_hit_tokens", "prompt_cache_miss_tokens"}
  Json to_json() const;
};

// {"prompt_tokens", "prompt_per_second", "predicted_tokens", "predicted_per_second", "queue_s",
//  "first_token_s", "drafted", "accepted", "certain_drafted", "certain_accepted"}: of one engine
// request, for people who look at speed.
Json timings_json(const infer::Result& result);

// kLength, kContext, kCacheFull: "length"; kEos, kStopped: "stop"; kCancelled, kError: null, which
// an answer that arrives never has.
Json finish_reason(infer::Finish finish);
// With calls of tools: "tool_calls" where they are whole and the text ended by itself, "length"
// where it ended in the middle of one.
Json finish_reason(infer::Finish finish, const ToolCallSplitter& calls);

struct AnswerConfig {
  Endpoint endpoint = Endpoint::kChat;
  std::string id;            // "chatcmpl-..." or "cmpl-..."
  std::int64_t created = 0;  // seconds since 1970
  std::string model = {};
  bool logprobs = false;
  bool opens_thought = false;          // the chat format began the answer with <think>
  std::vector<std::string> echo = {};  // per choice, text that goes before it; empty: none
  text::ToolForm tools = text::ToolForm::kNone;  // what is a call of a tool; kNone: nothing
  std::function<std::string()> call_id = random_call_id;
};

class Answer {
 public:
  Answer(AnswerConfig config, const text::Tokenizer& tokenizer, int choices);

  // kChat: {"role": "assistant", "content": ""}; kCompletions: the echoed prompt, if there is one.
  std::optional<Json> first_chunk(int choice);
  // nullopt where the token brings neither text nor log-probabilities.
  std::optional<Json> token_chunk(int choice, const infer::NewToken& token);
  // What was held back (text that no token told, unfinished thoughts), with the reason of the end.
  Json last_chunk(int choice, const infer::Choice& ended);
  // After the last choice where the client asked: no choices, but the sums and the last request's
  // timings.
  Json usage_chunk(const Usage& usage, const Json& timings) const;
  // The answer in one piece; choices in order.
  Json whole(std::span<const infer::Choice> choices, const Usage& usage, const Json& timings);

 private:
  struct Progress {  // of one choice of a stream
    ThoughtSplitter thoughts;
    ToolCallSplitter calls;
    TextOffsets offsets;
  };
  std::string_view echo_of(std::size_t choice) const;
  Json envelope(std::string_view object, Json choices) const;
  // `said`: a delta (kChat) or text (kCompletions).
  Json chunk(int choice, Json said, Json logprobs, Json finish) const;
  Json whole_choice(int index, const infer::Choice& choice) const;
  Json whole_message(const infer::Choice& choice, Json& finish) const;
  AnswerConfig config_;
  const text::Tokenizer& tokenizer_;
  std::vector<Progress> progress_;
};

}  // namespace cachalot::serve
