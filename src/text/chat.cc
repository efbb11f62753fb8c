#include "text/chat.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "io/json_object.h"

namespace cachalot::text {

static constexpr std::string_view kUser = "<｜User｜>";
static constexpr std::string_view kAssistant = "<｜Assistant｜>";
static constexpr std::string_view kEnd = "<｜end▁of▁sentence｜>";
static constexpr std::string_view kThoughtEnd = "</think>";

static std::string content_of(const nlohmann::json& message, std::size_t index) {
  const auto found = message.find("content");
  if (found != message.end() && found->is_string()) return found->get<std::string>();
  if (found != message.end() && found->is_array()) {
    std::string text;
    for (const auto& part : *found) {
      if (!part.is_object() || part.value("type", nlohmann::json()) != "text" ||
          !part.contains("text") || !part["text"].is_string()) {
        throw Error(Code::kUnsupported, cat("message ", index,
                                            ": only content of type \"text\" is "
                                            "supported"));
      }
      text += part["text"].get<std::string>();
    }
    return text;
  }
  throw Error(Code::kUsage, cat("message ", index, " needs a \"content\" that is a string"));
}

std::vector<ChatMessage> parse_messages(std::string_view json) {
  io::refuse_deep_json(json, "messages");
  const auto list = nlohmann::json::parse(json.begin(), json.end(), nullptr, false);
  if (!list.is_array()) {
    throw Error(Code::kUsage,
                "messages must be a JSON array of {\"role\": ..., \"content\": ...} objects");
  }
  std::vector<ChatMessage> messages;
  for (const auto& item : list) {
    const std::size_t index = messages.size();
    if (!item.is_object() || !item.contains("role") || !item["role"].is_string()) {
      throw Error(Code::kUsage, cat("message ", index, " must be an object with a \"role\""));
    }
    if (item.contains("tool_calls") && !item["tool_calls"].is_null()) {
      throw Error(Code::kUnsupported, cat("message ", index,
                                          " has tool_calls; tools are not "
                                          "supported: leave them out"));
    }
    messages.push_back({item["role"].get<std::string>(), content_of(item, index)});
  }
  return messages;
}

ChatFormat ChatFormat::v2() {
  ChatFormat format;
  format.family_ = Family::kV2;
  format.joins_system_ = false;
  return format;
}
ChatFormat ChatFormat::v3() { return {}; }
ChatFormat ChatFormat::r1() {
  ChatFormat format;
  format.joins_system_ = false;
  format.drops_thoughts_ = true;
  format.opens_thought_ = true;
  return format;
}

ChatFormat ChatFormat::named(std::string_view name) {
  if (name == "v2") return v2();
  if (name == "v3") return v3();
  if (name == "r1") return r1();
  throw Error(Code::kUsage, cat("chat format '", name, "' does not exist: v2, v3 and r1 do"));
}

ChatFormat ChatFormat::of(const Tokenizer& tokenizer) {
  if (tokenizer.config().chat_template.empty()) {
    throw Error(
        Code::kUnsupported,
        "the model's tokenizer_config.json has no chat_template: it was not made for chats. "
        "Give it plain text, or name a format (v2, v3, r1).");
  }
  return recognise(tokenizer.config().chat_template, "the model's chat_template");
}

std::string ChatFormat::name() const {
  if (family_ == Family::kV2) return "v2";
  std::string name = opens_thought_ ? "r1" : "v3";
  const ChatFormat base = opens_thought_ ? r1() : v3();
  if (joins_system_ != base.joins_system_) {
    name += joins_system_ ? ", joins system messages" : ", last system message";
  }
  if (drops_thoughts_ != base.drops_thoughts_) {
    name += drops_thoughts_ ? ", drops earlier thoughts" : ", keeps earlier thoughts";
  }
  return name;
}

static void check_roles(std::span<const ChatMessage> messages) {
  for (const ChatMessage& message : messages) {
    if (message.role == "tool" || message.role == "function") {
      throw Error(Code::kUnsupported,
                  cat("role \"", message.role, "\": tools are not supported: leave them out"));
    }
    if (message.role != "system" && message.role != "user" && message.role != "assistant") {
      throw Error(Code::kUsage,
                  cat("role \"", message.role, "\" does not exist: system, user and assistant do"));
    }
  }
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

std::string ChatFormat::render_v3(std::span<const ChatMessage> messages) const {
  std::string system, turns;
  bool first_system = true;
  for (const ChatMessage& message : messages) {
    std::string_view content = message.content;
    if (message.role == "system") {
      if (!joins_system_) system.clear();
      if (joins_system_ && !first_system) system += "\n\n";
      system += content;
      first_system = false;
    } else if (message.role == "user") {
      turns += cat(kUser, content);
    } else {
      const std::size_t end = drops_thoughts_ ? content.rfind(kThoughtEnd) : std::string_view::npos;
      if (end != std::string_view::npos) content.remove_prefix(end + kThoughtEnd.size());
      turns += cat(kAssistant, content, kEnd);
    }
  }
  return system + turns;
}

std::string ChatFormat::render(std::span<const ChatMessage> messages, bool add_generation_prompt,
                               std::string_view bos, std::string_view eos) const {
  check_roles(messages);
  std::string text(bos);
  if (family_ == Family::kV2) {
    text += render_v2(messages, eos);
    if (add_generation_prompt) text += "Assistant:";
    return text;
  }
  text += render_v3(messages);
  if (add_generation_prompt) {
    text += kAssistant;
    if (opens_thought_) text += "<think>\n";
  }
  return text;
}

std::string ChatFormat::render(std::span<const ChatMessage> messages, bool add_generation_prompt,
                               const Tokenizer& tokenizer) const {
  const TokenizerConfig& config = tokenizer.config();
  return render(messages, add_generation_prompt, config.bos_token.value_or(""),
                config.eos_token.value_or(""));
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
