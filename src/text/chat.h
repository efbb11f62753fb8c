// Chat messages to the text a DeepSeek model was trained to answer.
//
// Formats are built in (V2, V3 and V3-0324, R1 and R1-0528, V3.1). The Jinja template in
// tokenizer_config.json is not run: it is taken apart, and only where every piece of it is known is
// its format used; otherwise it is refused, for a wrong prompt makes a model quietly worse.
// DeepSeek's templates differ in how they join system messages, whether they drop earlier thoughts,
// how they open the answer, and how calls of tools are written: those are read off.
//
// Threads: values.
// Errors:  kUnsupported for an unknown template, or for tools or thoughts that a format does not
//          have; kUsage for messages of another form.
// Source:  chat_template of the tokenizer_config.json of deepseek-ai/DeepSeek-V3, -V3-0324, -R1,
//          -R1-0528, -V3.1 and -V3.1-Terminus, https://huggingface.co/deepseek-ai
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace cachalot::text {

struct ToolCall {
  std::string id;
  std::string name;
  std::string arguments;  // as the model wrote them: JSON, where it did well
};

struct ChatMessage {
  std::string role;  // system, user, assistant, tool
  std::string content;
  std::vector<ToolCall> tool_calls = {};  // of an assistant
  std::string tool_call_id = {};          // of a tool: the call that this is the result of
};

// A function that the model may ask for.
struct Tool {
  std::string name;         // is_tool_name
  std::string description;  // may be empty
  std::string parameters;   // a JSON Schema of one line
  bool strict = false;      // a schema that calls cannot be held to is refused, not passed over
};
bool is_tool_name(std::string_view name) noexcept;  // 1 to 64 of a-z, A-Z, 0-9, _ and -

// [{"role": ..., "content": "..." or [{"type": "text", "text": "..."}]}, ...]; an assistant may
// have "tool_calls": [{"id", "type": "function", "function": {"name", "arguments"}}], which
// messages of role "tool" with their "tool_call_id" answer, each once. The results come out in the
// order of the calls, for the formats do not name whose they are.
std::vector<ChatMessage> parse_messages(std::string_view json);

// How a model writes calls of tools.
enum class ToolForm : std::uint8_t {
  kNone,  // it does not
  kV3,    // function, separator, name, a fenced block of JSON; calls on lines of their own
  kV31,   // name, separator, JSON; calls one behind the other
};

// The tokens around calls and their results.
inline constexpr std::string_view kCallsBegin = "<｜tool▁calls▁begin｜>";
inline constexpr std::string_view kCallsEnd = "<｜tool▁calls▁end｜>";
inline constexpr std::string_view kCallBegin = "<｜tool▁call▁begin｜>";
inline constexpr std::string_view kCallEnd = "<｜tool▁call▁end｜>";
inline constexpr std::string_view kCallSeparator = "<｜tool▁sep｜>";
// Of a call in V3's form, around its arguments.
inline constexpr std::string_view kCallType = "function";
inline constexpr std::string_view kFenceOpen = "\n```json\n";
inline constexpr std::string_view kFenceClose = "\n```";
inline constexpr std::string_view kThoughtBegin = "<think>";
inline constexpr std::string_view kThoughtEnd = "</think>";
inline constexpr std::string_view kAnswerEnd = "<｜end▁of▁sentence｜>";  // of all formats but V2's

struct RenderOptions {
  bool add_generation_prompt = true;
  std::optional<bool> thinking = {};  // none: as the model does unless it is asked
  std::span<const Tool> tools = {};   // told behind the system prompt
};

class ChatFormat {
 public:
  enum class Family : std::uint8_t {
    kV2,   // "User: ...\n\nAssistant: ..."
    kV3,   // <｜User｜>...<｜Assistant｜>...
    kV31,  // <｜User｜>...<｜Assistant｜></think>..., or <think> to begin with thoughts
  };
  static ChatFormat v2();
  static ChatFormat v3();
  static ChatFormat v3_0324();
  static ChatFormat r1();
  static ChatFormat r1_0528();
  static ChatFormat v3_1();
  static ChatFormat named(std::string_view name);  // "v2", "v3", "v3-0324", "r1", "r1-0528", "v3.1"
  // From the Jinja source; `source` says in messages where it came from.
  static ChatFormat recognise(std::string_view jinja, const std::string& source);
  static ChatFormat of(const Tokenizer& tokenizer);

  // `bos` and `eos` are the tokens' texts; see below for a tokenizer's own.
  std::string render(std::span<const ChatMessage> messages, const RenderOptions& options,
                     std::string_view bos, std::string_view eos) const;
  std::string render(std::span<const ChatMessage> messages, const RenderOptions& options,
                     const Tokenizer& tokenizer) const;
  // What a model is to write behind render(before, options with add_generation_prompt) so that its
  // message is `answer`: content, calls, and the token that ends it. Thoughts are kept (it is only
  // history that drops them); where the prompt has begun them and `answer` has none, they are
  // ended at once. kUsage for a message that is not an assistant's.
  std::string answer(std::span<const ChatMessage> before, const ChatMessage& answer,
                     const RenderOptions& options, std::string_view eos) const;
  // The name of `named`, with what deviates from it.
  std::string name() const;
  ToolForm tools() const noexcept { return tools_; }
  bool drops_thoughts() const noexcept { return drops_thoughts_; }
  // Each prompt says whether the answer begins with thoughts.
  bool chooses_thoughts() const noexcept { return family_ == Family::kV31; }
  // What was rendered ends inside <think>.
  bool opens_thought(std::span<const ChatMessage> messages, const RenderOptions& options) const;
  // The answer has thoughts before it: they were opened, or the model opens them itself.
  bool thinks_first(std::span<const ChatMessage> messages, const RenderOptions& options) const;

  bool operator==(const ChatFormat&) const = default;

 private:
  friend class TemplateReader;
  // <｜Assistant｜> belongs to the user's message and R1 opens its thoughts itself.
  bool always_thinks() const noexcept {
    return opens_thought_ || (opens_after_user_ && drops_thoughts_);
  }
  void check(std::span<const ChatMessage> messages, const RenderOptions& options) const;
  std::string system_text(std::span<const ChatMessage> messages, std::span<const Tool> tools) const;
  std::string render_v2(std::span<const ChatMessage> messages, std::string_view eos) const;
  std::string render_v3(std::span<const ChatMessage> messages, const RenderOptions& options) const;
  std::string render_v31(std::span<const ChatMessage> messages, const RenderOptions& options) const;
  std::string calls_text(std::span<const ToolCall> calls) const;

  Family family_ = Family::kV3;
  ToolForm tools_ = ToolForm::kNone;
  bool joins_system_ = true;     // several system messages: joined by an empty line, or the last
  bool drops_thoughts_ = false;  // what an earlier answer has up to </think> is left out
  bool opens_thought_ = false;   // the answer begins with <think>
  bool opens_after_user_ =
      false;                    // a user's message ends with <｜Assistant｜>, which no answer has
  bool breaks_results_ = true;  // a line break between results of tools
};

// What a model is told about tools, behind its system prompt.
std::string tools_text(std::span<const Tool> tools, ToolForm form);

// The template written into tokenizer_config.json by what is trained here: V3's format, without
// tools.
const std::string& v3_chat_template();

}  // namespace cachalot::text
