// The members of a request that bind the form of its answer: response_format, structured_outputs,
// tools, tool_choice, and those that switch thoughts.
//
// Threads: pure functions.
// Errors:  ApiError with the member's name: kUsage for what is wrong, kUnsupported for what is
//          valid but cannot be promised.
// Source:  https://platform.openai.com/docs/api-reference/chat/create (tools, tool_choice,
//          response_format); https://docs.vllm.ai/en/latest/features/structured_outputs.html;
//          thinking: https://api-docs.deepseek.com/api/create-chat-completion
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "serve/json_body.h"
#include "text/chat.h"

namespace cachalot::serve {

// What the text of an answer is held to.
struct Form {
  enum class Kind : std::uint8_t { kFree, kJsonObject, kJsonSchema, kRegex, kChoice, kGrammar };
  Kind kind = Kind::kFree;
  std::string text = {};                  // schema (one line), expression or grammar
  std::vector<std::string> choices = {};  // kChoice: at least one
  std::string member = {};                // that asked for it: for messages
};

enum class ToolChoice : std::uint8_t {
  kNone,      // tools are not told to the model, and nothing is taken for a call
  kAuto,      // the model decides
  kRequired,  // one call at least
  kNamed,     // calls of one tool
};

struct ToolUse {
  std::vector<text::Tool> tools;
  ToolChoice choice = ToolChoice::kNone;
  std::string name;      // kNamed: one of `tools`
  bool parallel = true;  // more than one call
  bool on() const noexcept { return choice != ToolChoice::kNone; }
};

inline constexpr std::size_t kMaxTools = 128;
// Of one schema, expression or grammar, and of all schemas of tools together.
inline constexpr std::size_t kMaxFormBytes = std::size_t{128} << 10;
inline constexpr std::size_t kMaxToolBytes = std::size_t{256} << 10;
inline constexpr std::size_t kMaxFormChoices = 1024;

// `texts`: form_texts of the body.
using FormTexts = std::map<std::string, std::string>;
FormTexts form_texts(const Members& members, std::string_view body);

Form read_form(const Members& members, const FormTexts& texts);
ToolUse read_tools(const Members& members, const FormTexts& texts);
// chat_template_kwargs and thinking; none where neither says.
std::optional<bool> read_thinking(const Members& members);

}  // namespace cachalot::serve
