// The JSON of messages, and whether results of tools belong to calls.
#include "text/chat_messages.h"

#include <algorithm>

#include "base/error.h"
#include "io/json_object.h"

namespace cachalot::text {

using nlohmann::json;

bool is_tool_name(std::string_view name) noexcept {
  constexpr std::size_t kLongest = 64;
  return !name.empty() && name.size() <= kLongest &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '_' || c == '-';
         });
}

[[noreturn]] static void refuse(std::size_t index, const std::string& why,
                                Code code = Code::kUsage) {
  throw Error(code, cat("message ", index, why));
}

static std::string content_of(const json& message, std::size_t index, bool may_lack) {
  const auto found = message.find("content");
  if (may_lack && (found == message.end() || found->is_null())) return {};
  if (found != message.end() && found->is_string()) return found->get<std::string>();
  if (found != message.end() && found->is_array()) {
    std::string text;
    for (const auto& part : *found) {
      if (!part.is_object() || part.value("type", json()) != "text" || !part.contains("text") ||
          !part["text"].is_string()) {
        refuse(index, ": only content of type \"text\" is supported", Code::kUnsupported);
      }
      text += part["text"].get<std::string>();
    }
    return text;
  }
  refuse(index, " needs a \"content\" that is a string");
}

// A string member of an object; nullptr where there is none.
static const std::string* string_of(const json& object, const char* name) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(name);
  return found != object.end() && found->is_string() ? &found->get_ref<const std::string&>()
                                                     : nullptr;
}

static ToolCall call_of(const json& item, std::size_t message, std::size_t call) {
  const auto refuse_call = [&](const char* needed) {
    refuse(message, cat(": tool call ", call, " needs ", needed));
  };
  if (!item.is_object()) refuse_call("to be an object");
  const std::string* id = string_of(item, "id");
  if (id == nullptr || id->empty()) refuse_call("an \"id\", which its result names");
  const std::string* type = string_of(item, "type");
  if (item.contains("type") && (type == nullptr || *type != "function")) {
    refuse_call("the \"type\" \"function\"");
  }
  if (!item.contains("function") || !item["function"].is_object()) {
    refuse_call("a \"function\": {\"name\", \"arguments\"}");
  }
  const std::string* name = string_of(item["function"], "name");
  if (name == nullptr || !is_tool_name(*name)) {
    refuse_call("a function \"name\" of 1 to 64 letters, digits, _ and -");
  }
  const std::string* arguments = string_of(item["function"], "arguments");
  if (arguments == nullptr) refuse_call("function \"arguments\" that are a string of JSON");
  return {*id, *name, *arguments};
}

static std::vector<ToolCall> calls_of(const json& message, std::size_t index) {
  const auto found = message.find("tool_calls");
  if (found == message.end() || found->is_null()) return {};
  if (!found->is_array()) refuse(index, ": tool_calls must be a list");
  if (!found->empty() && message["role"] != "assistant") {
    refuse(index, " has tool_calls, which only an assistant's message may have");
  }
  std::vector<ToolCall> calls;
  std::vector<std::string_view> ids;
  for (const json& item : *found) calls.push_back(call_of(item, index, calls.size()));
  for (const ToolCall& call : calls) ids.push_back(call.id);
  std::sort(ids.begin(), ids.end());
  if (std::adjacent_find(ids.begin(), ids.end()) != ids.end()) {
    refuse(index, " has two tool calls of one id, so that nobody knows whose a result is");
  }
  return calls;
}

static ChatMessage message_of(const json& item, std::size_t index) {
  const std::string* role = string_of(item, "role");
  if (role == nullptr) refuse(index, " must be an object with a \"role\"");
  ChatMessage message{.role = *role, .content = {}, .tool_calls = calls_of(item, index)};
  message.content = content_of(item, index, !message.tool_calls.empty());
  if (*role != "tool") return message;
  const std::string* id = string_of(item, "tool_call_id");
  if (id == nullptr || id->empty()) refuse(index, " needs the \"tool_call_id\" of its call");
  message.tool_call_id = *id;
  return message;
}

// The results of the calls of messages[at], which stand behind it: each call's once, put into the
// order of the calls.
static void order_results(std::vector<ChatMessage>& messages, std::size_t at) {
  const std::vector<ToolCall>& calls = messages[at].tool_calls;
  std::size_t end = at + 1;
  while (end < messages.size() && messages[end].role == "tool") ++end;
  const std::size_t results = end - at - 1;
  std::vector<std::pair<std::string_view, std::size_t>> by_id;
  for (std::size_t i = 0; i < calls.size(); ++i) by_id.emplace_back(calls[i].id, i);
  std::sort(by_id.begin(), by_id.end());
  std::vector<ChatMessage> ordered(calls.size());
  for (std::size_t m = at + 1; m < end; ++m) {
    const std::string_view id = messages[m].tool_call_id;
    const auto found = std::lower_bound(by_id.begin(), by_id.end(), std::pair(id, std::size_t{0}));
    if (found == by_id.end() || found->first != id) {
      refuse(m, " is the result of no tool call of the assistant's message before it");
    }
    if (!ordered[found->second].role.empty()) refuse(m, " is a second result of its tool call");
    ordered[found->second] = messages[m];
  }
  if (results < calls.size() && end < messages.size()) {
    refuse(at, cat(" has ", calls.size(), " tool calls, but ", results,
                   " results (role \"tool\") follow: each call needs one"));
  }
  std::erase_if(ordered, [](const ChatMessage& m) { return m.role.empty(); });
  std::move(ordered.begin(), ordered.end(), messages.begin() + static_cast<std::ptrdiff_t>(at) + 1);
}

std::vector<ChatMessage> messages_of(const json& list) {
  if (!list.is_array()) {
    throw Error(Code::kUsage,
                "messages must be a JSON array of {\"role\": ..., \"content\": ...} objects");
  }
  std::vector<ChatMessage> messages;
  for (const auto& item : list) messages.push_back(message_of(item, messages.size()));
  for (std::size_t m = 0; m < messages.size(); ++m) {
    if (!messages[m].tool_calls.empty()) order_results(messages, m);
    const bool follows =
        m > 0 && (messages[m - 1].role == "tool" || !messages[m - 1].tool_calls.empty());
    if (messages[m].role == "tool" && !follows) {
      refuse(m, " is the result of a tool, but no tool call stands before it");
    }
  }
  return messages;
}

std::vector<ChatMessage> parse_messages(std::string_view text) {
  io::refuse_deep_json(text, "messages");
  return messages_of(json::parse(text.begin(), text.end(), nullptr, false));
}

}  // namespace cachalot::text
