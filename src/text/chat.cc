#include "text/chat.h"

#include <algorithm>

#include "base/error.h"

namespace cachalot::text {

static constexpr std::string_view kUser = "<｜User｜>";
static constexpr std::string_view kAssistant = "<｜Assistant｜>";
static constexpr std::string_view kResultsBegin = "<｜tool▁outputs▁begin｜>";
static constexpr std::string_view kResultsEnd = "<｜tool▁outputs▁end｜>";
static constexpr std::string_view kResultBegin = "<｜tool▁output▁begin｜>";
static constexpr std::string_view kResultEnd = "<｜tool▁output▁end｜>";

ChatFormat ChatFormat::v2() {
  ChatFormat format;
  format.family_ = Family::kV2;
  format.joins_system_ = false;
  return format;
}

ChatFormat ChatFormat::v3() {
  ChatFormat format;
  format.tools_ = ToolForm::kV3;
  return format;
}

ChatFormat ChatFormat::v3_0324() {
  ChatFormat format = v3();
  format.opens_after_user_ = true;
  return format;
}

ChatFormat ChatFormat::r1() {
  ChatFormat format = v3();
  format.joins_system_ = false;
  format.drops_thoughts_ = true;
  format.opens_thought_ = true;
  return format;
}

ChatFormat ChatFormat::r1_0528() {
  ChatFormat format = v3_0324();
  format.drops_thoughts_ = true;
  return format;
}

ChatFormat ChatFormat::v3_1() {
  ChatFormat format;
  format.family_ = Family::kV31;
  format.tools_ = ToolForm::kV31;
  format.drops_thoughts_ = true;
  return format;
}

ChatFormat ChatFormat::named(std::string_view name) {
  if (name == "v2") return v2();
  if (name == "v3") return v3();
  if (name == "v3-0324") return v3_0324();
  if (name == "r1") return r1();
  if (name == "r1-0528") return r1_0528();
  if (name == "v3.1") return v3_1();
  throw Error(Code::kUsage, cat("chat format '", name,
                                "' does not exist: v2, v3, v3-0324, r1, r1-0528 and v3.1 do"));
}

ChatFormat ChatFormat::of(const Tokenizer& tokenizer) {
  if (tokenizer.config().chat_template.empty()) {
    throw Error(
        Code::kUnsupported,
        "the model's tokenizer_config.json has no chat_template: it was not made for chats. "
        "Give it plain text, or name a format (v2, v3, v3-0324, r1, r1-0528, v3.1).");
  }
  return recognise(tokenizer.config().chat_template, "the model's chat_template");
}

std::string ChatFormat::name() const {
  if (family_ == Family::kV2) return "v2";
  std::string name = "v3";
  if (family_ == Family::kV31) {
    name = "v3.1";
  } else if (opens_after_user_) {
    name = drops_thoughts_ ? "r1-0528" : "v3-0324";
  } else if (opens_thought_) {
    name = "r1";
  }
  const ChatFormat base = named(name);
  if (joins_system_ != base.joins_system_) {
    name += joins_system_ ? ", joins system messages" : ", last system message";
  }
  if (drops_thoughts_ != base.drops_thoughts_) {
    name += drops_thoughts_ ? ", drops earlier thoughts" : ", keeps earlier thoughts";
  }
  if (tools_ != base.tools_) name += ", no tools";
  if (breaks_results_ != base.breaks_results_) name += ", results on one line";
  return name;
}

void ChatFormat::check(std::span<const ChatMessage> messages, const RenderOptions& options) const {
  bool uses_tools = !options.tools.empty();
  for (const ChatMessage& message : messages) {
    const std::string& role = message.role;
    if (role != "system" && role != "user" && role != "assistant" && role != "tool") {
      throw Error(Code::kUsage,
                  cat("role \"", role, "\" does not exist: system, user, assistant and tool do"));
    }
    uses_tools |= role == "tool" || !message.tool_calls.empty();
  }
  if (uses_tools && tools_ == ToolForm::kNone) {
    throw Error(Code::kUnsupported, cat("the chat format of this model (", name(),
                                        ") has no calls of tools: leave tools, and messages that "
                                        "call them or bring their results, out"));
  }
  if (!options.thinking || family_ == Family::kV31 || *options.thinking == always_thinks()) return;
  throw Error(Code::kUnsupported,
              cat("the chat format of this model (", name(),
                  always_thinks() ? ") always begins with thoughts: thinking cannot be switched off"
                                  : ") has no thoughts: thinking cannot be switched on",
                  "; leave it out"));
}

std::string ChatFormat::render_v2(std::span<const ChatMessage> messages,
                                  std::string_view eos) const {
  std::string text;
  for (const ChatMessage& message : messages) {
    if (message.role == "user") {
      text += cat("User: ", message.content, "\n\n");
    } else if (message.role == "assistant") {
      text += cat("Assistant: ", message.content, eos);
    } else {
      text += cat(message.content, "\n\n");
    }
  }
  return text;
}

std::string ChatFormat::system_text(std::span<const ChatMessage> messages,
                                    std::span<const Tool> tools) const {
  std::string system;
  bool first = true;
  for (const ChatMessage& message : messages) {
    if (message.role != "system") continue;
    if (!joins_system_) system.clear();
    if (joins_system_ && !first) system += "\n\n";
    system += message.content;
    first = false;
  }
  // The empty line stands there without a system prompt too: so the model card has it.
  if (!tools.empty()) system += cat("\n\n", tools_text(tools, tools_));
  return system;
}

std::string ChatFormat::calls_text(std::span<const ToolCall> calls) const {
  std::string text(kCallsBegin);
  for (const ToolCall& call : calls) {
    if (tools_ == ToolForm::kV31) {
      text += cat(kCallBegin, call.name, kCallSeparator, call.arguments, kCallEnd);
    } else {
      if (&call != calls.data()) text += '\n';
      text += cat(kCallBegin, kCallType, kCallSeparator, call.name, kFenceOpen, call.arguments,
                  kFenceClose, kCallEnd);
    }
  }
  return text += kCallsEnd;
}

// Where calls are concerned, the first templates of V3 and R1 forget things that the later ones
// (V3-0324, R1-0528) have: the end behind a single call, the content before calls, the end of
// results before further calls. They are written as the later ones have them.
std::string ChatFormat::render_v3(std::span<const ChatMessage> messages,
                                  const RenderOptions& options) const {
  std::string text;
  std::string_view before;  // role of the message before, system messages apart
  for (const ChatMessage& message : messages) {
    const bool after_results = before == "tool";
    std::string_view content = message.content;
    if (message.role == "system") continue;
    // A user's message closes nothing: so all templates have it.
    if (after_results && message.role == "assistant") text += kResultsEnd;
    if (message.role == "user") {
      text += cat(kUser, content, opens_after_user_ ? kAssistant : "");
    } else if (message.role == "tool") {
      if (!after_results) text += kResultsBegin;
      if (after_results && breaks_results_) text += '\n';
      text += cat(kResultBegin, content, kResultEnd);
    } else {
      const bool plain = !after_results && message.tool_calls.empty();
      const std::size_t thought = drops_thoughts_ && (plain || opens_after_user_)
                                      ? content.rfind(kThoughtEnd)
                                      : std::string_view::npos;
      if (thought != std::string_view::npos) content.remove_prefix(thought + kThoughtEnd.size());
      if (!opens_after_user_ && !after_results) text += kAssistant;
      text += content;
      if (!message.tool_calls.empty()) text += calls_text(message.tool_calls);
      text += kAnswerEnd;
    }
    before = message.role;
  }
  if (before == "tool") return text += kResultsEnd;  // which the answer follows as it is
  if (!options.add_generation_prompt || (opens_after_user_ && before == "user")) return text;
  text += kAssistant;
  if (opens_thought_) text += cat(kThoughtBegin, "\n");
  return text;
}

std::string ChatFormat::render_v31(std::span<const ChatMessage> messages,
                                   const RenderOptions& options) const {
  std::string text;
  std::string_view before;
  for (const ChatMessage& message : messages) {
    std::string_view content = message.content;
    if (message.role == "system") continue;
    if (message.role == "user") {
      text += cat(kUser, content);
    } else if (message.role == "tool") {
      text += cat(kResultBegin, content, kResultEnd);
    } else {
      if (before == "user") text += cat(kAssistant, kThoughtEnd);
      const bool plain = before != "tool" && message.tool_calls.empty();
      const std::size_t thought =
          drops_thoughts_ && plain ? content.find(kThoughtEnd) : std::string_view::npos;
      if (thought != std::string_view::npos) content.remove_prefix(thought + kThoughtEnd.size());
      text += content;
      if (!message.tool_calls.empty()) text += calls_text(message.tool_calls);
      text += kAnswerEnd;
    }
    before = message.role;
  }
  if (options.add_generation_prompt && before == "user") {
    text += cat(kAssistant, options.thinking.value_or(false) ? kThoughtBegin : kThoughtEnd);
  }
  return text;
}

static std::string_view last_role(std::span<const ChatMessage> messages) {
  std::string_view role;
  for (const ChatMessage& message : messages) {
    if (message.role != "system") role = message.role;
  }
  return role;
}

bool ChatFormat::opens_thought(std::span<const ChatMessage> messages,
                               const RenderOptions& options) const {
  if (!options.add_generation_prompt) return false;
  const std::string_view last = last_role(messages);
  if (family_ == Family::kV31) return options.thinking.value_or(false) && last == "user";
  return opens_thought_ && last != "tool";
}

bool ChatFormat::thinks_first(std::span<const ChatMessage> messages,
                              const RenderOptions& options) const {
  if (opens_thought(messages, options)) return true;
  return options.add_generation_prompt && always_thinks() && last_role(messages) != "tool";
}

std::string ChatFormat::render(std::span<const ChatMessage> messages, const RenderOptions& options,
                               std::string_view bos, std::string_view eos) const {
  check(messages, options);
  std::string text(bos);
  if (family_ == Family::kV2) {
    text += render_v2(messages, eos);
    if (options.add_generation_prompt) text += "Assistant:";
    return text;
  }
  text += system_text(messages, options.tools);
  return text +=
         family_ == Family::kV31 ? render_v31(messages, options) : render_v3(messages, options);
}

std::string ChatFormat::render(std::span<const ChatMessage> messages, const RenderOptions& options,
                               const Tokenizer& tokenizer) const {
  const TokenizerConfig& config = tokenizer.config();
  return render(messages, options, config.bos_token.value_or(""), config.eos_token.value_or(""));
}

// The layout of V3.1's model card, section ToolCall; V3's own templates do not say how tools are
// told: https://huggingface.co/deepseek-ai/DeepSeek-V3.1#toolcall
std::string tools_text(std::span<const Tool> tools, ToolForm form) {
  std::string text = "## Tools\nYou have access to the following tools:\n\n";
  for (const Tool& tool : tools) {
    text += cat("### ", tool.name, "\nDescription: ", tool.description,
                "\n\nParameters: ", tool.parameters, "\n\n");
  }
  constexpr std::string_view kName = "tool_call_name", kArguments = "tool_call_arguments";
  text += cat("IMPORTANT: ALWAYS adhere to this exact format for tool use:\n", kCallsBegin);
  if (form == ToolForm::kV31) {
    text += cat(kCallBegin, kName, kCallSeparator, kArguments, kCallEnd);
  } else {
    text += cat(kCallBegin, kCallType, kCallSeparator, kName, kFenceOpen, kArguments, kFenceClose,
                kCallEnd);
  }
  text += cat("{{additional_tool_calls}}", kCallsEnd, "\n\nWhere:\n");
  text += cat("\n- `", kName, "` is the name of one of the tools above, letter by letter");
  text += cat("\n- `", kArguments, "` is JSON of one line that the tool's Parameters accept");
  text += form == ToolForm::kV31
              ? "\n- further tool calls follow directly, with nothing between them"
              : "\n- further tool calls follow each on a new line";
  return text;
}

const std::string& v3_chat_template() {
  static const std::string text =
      "{%- set ns = namespace(system='', first=true) -%}"
      "{%- for m in messages -%}"
      "{%- if m['role'] == 'system' -%}"
      "{%- set ns.system = ns.system + ('' if ns.first else '\\n\\n') + m['content'] -%}"
      "{%- set ns.first = false -%}"
      "{%- endif -%}"
      "{%- endfor -%}"
      "{{- bos_token + ns.system -}}"
      "{%- for m in messages -%}"
      "{%- if m['role'] == 'user' -%}"
      "{{- '<｜User｜>' + m['content'] -}}"
      "{%- elif m['role'] == 'assistant' -%}"
      "{{- '<｜Assistant｜>' + m['content'] + eos_token -}}"
      "{%- elif m['role'] != 'system' -%}"
      "{{- raise_exception('this model knows the roles system, user and assistant') -}}"
      "{%- endif -%}"
      "{%- endfor -%}"
      "{%- if add_generation_prompt -%}{{- '<｜Assistant｜>' -}}{%- endif -%}";
  return text;
}

}  // namespace cachalot::text
