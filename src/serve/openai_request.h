// The bodies of POST /v1/chat/completions and /v1/completions, read into what the engine needs.
// They come from strangers: every member is checked before it is used. A member that this server
// does not know is an error that names the nearest one it does; members of the API that change
// nothing here (user, metadata, ...) are passed over; members that would change the answer and
// cannot be obeyed (logit_bias, functions, ...) are refused unless they ask for nothing.
//
// Threads: pure functions.
// Errors:  ApiError with the member's name: kUsage (wrong type, range, missing, unknown),
//          kUnsupported (valid in the API, but not here).
// Source:  https://platform.openai.com/docs/api-reference/chat/create and
//          https://platform.openai.com/docs/api-reference/completions/create;
//          top_k, min_p, repetition_penalty, ignore_eos and prompts of token ids as vLLM has them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "infer/request.h"
#include "serve/api_error.h"
#include "serve/openai_forms.h"
#include "text/chat.h"

namespace cachalot::serve {

enum class Endpoint : std::uint8_t { kChat, kCompletions };

using PromptText = std::variant<std::string, std::vector<std::int32_t>>;

struct ApiRequest {
  Endpoint endpoint = Endpoint::kChat;
  std::string model;                        // as asked for; empty where the member is missing
  std::vector<text::ChatMessage> messages;  // kChat: at least one
  std::vector<PromptText> prompts;          // kCompletions: 1 to kMaxPrompts
  infer::SamplerConfig sampling;            // but for its seed
  std::optional<std::uint64_t> seed;        // none: the server draws one
  std::optional<int> max_tokens;            // none: kChat as the context holds, kCompletions 16
  std::vector<std::string> stop;            // at most kMaxStops
  int n = 1;                                // choices of each prompt
  int logprobs = -1;                        // as infer::Request has it
  bool stream = false;
  bool include_usage = false;  // stream_options.include_usage
  bool echo = false;           // kCompletions: the prompt's text goes before the answer
  bool ignore_eos = false;
  Form form;                     // what the answer is held to
  ToolUse tools;                 // kChat
  std::optional<bool> thinking;  // kChat; none: as the model does unless it is asked
};

inline constexpr int kDefaultCompletionTokens = 16;
inline constexpr int kMaxPrompts = 64;
inline constexpr int kMaxStops = 16;
inline constexpr std::size_t kMaxStopBytes = 1024;  // of one: each byte of an answer is held to it

// What a request gets that does not say how to sample.
struct RequestDefaults {
  infer::SamplerConfig sampling{.temperature = 1};
};

// `body` as it came. The two read the same members where both endpoints have them.
ApiRequest parse_chat_request(std::string_view body, const RequestDefaults& defaults);
ApiRequest parse_completion_request(std::string_view body, const RequestDefaults& defaults);

// POST /tokenize: {"prompt": TEXT} or {"messages": [...]}, with what a chat's prompt depends on
// besides (tools, thinking); POST /detokenize: {"tokens": [...]}.
struct TokenizeRequest {
  std::optional<std::string> prompt;
  std::vector<text::ChatMessage> messages;
  bool add_generation_prompt = true;
  ToolUse tools;
  std::optional<bool> thinking;
};
TokenizeRequest parse_tokenize_request(std::string_view body);
std::vector<std::int32_t> parse_detokenize_request(std::string_view body);

}  // namespace cachalot::serve
