#include "serve/openai_messages.h"

#include <string>
#include <string_view>

#include "serve/openai_members.h"

namespace cachalot::serve {

namespace {

const std::string kParam = "messages";

[[noreturn]] void refuse(Code code, std::size_t index, const std::string& why) {
  throw ApiError(code, cat("messages[", index, "]", why), kParam);
}

std::string role_of(const BodyJson& message, std::size_t index) {
  const auto found = message.find("role");
  if (found == message.end() || !found->is_string()) {
    refuse(Code::kUsage, index, " needs a \"role\": system, user, assistant or tool");
  }
  const auto& role = found->get_ref<const std::string&>();
  if (role == "developer") return "system";
  if (role == "system" || role == "user" || role == "assistant" || role == "tool") {
    return role;
  }
  if (role == "function") {
    refuse(Code::kUnsupported, index,
           " has the role \"function\", which is not supported here: use tool_calls and the role "
           "\"tool\"");
  }
  refuse(Code::kUsage, index,
         cat(" has the role ", shown(*found), ", but it must be system, user, assistant or tool"));
}

// Members that would be part of what the model reads, but cannot be.
void refuse_others(const BodyJson& message, std::size_t index) {
  static constexpr const char* kCannot[] = {"function_call", "refusal", "audio", "prefix"};
  for (const char* name : kCannot) {
    const auto found = message.find(name);
    if (found == message.end() || found->is_null() || *found == false) continue;
    if (found->is_array() && found->empty()) continue;
    refuse(Code::kUnsupported, index,
           cat(" has ", name, ", which is not supported here: leave it out"));
  }
}

// Only the names of members: what they hold is looked at where they are read.
void check_calls(const BodyJson& calls, std::size_t index) {
  static constexpr std::string_view kKnown[] = {"id", "type", "function", "index"};
  static constexpr std::string_view kKnownFunction[] = {"name", "arguments"};
  if (!calls.is_array()) return;
  std::size_t number = 0;
  for (const BodyJson& call : calls) {
    const std::string where = cat("messages[", index, "].tool_calls[", number++, "].");
    if (!call.is_object()) continue;
    check_names(call, kKnown, where, kParam);
    const auto function = call.find("function");
    if (function == call.end() || !function->is_object()) continue;
    check_names(*function, kKnownFunction, where + "function.", kParam);
  }
}

}  // namespace

std::vector<text::ChatMessage> read_messages(const BodyJson& list) {
  static constexpr std::string_view kKnown[] = {
      "role",    "content", "name",   "annotations",  "reasoning_content", "tool_calls",
      "refusal", "audio",   "prefix", "tool_call_id", "function_call"};
  if (!list.is_array()) {
    refuse_value(kParam, list, R"(a list of {"role": ..., "content": ...} objects)");
  }
  if (list.empty()) {
    throw ApiError(Code::kUsage, "messages is empty, but at least one message is needed", kParam);
  }
  BodyJson plain = BodyJson::array();
  for (const BodyJson& message : list) {
    const std::size_t index = plain.size();
    if (!message.is_object()) {
      refuse(Code::kUsage, index,
             cat(" is ", shown(message), R"(, but it must be {"role": ..., "content": ...})"));
    }
    check_names(message, kKnown, cat("messages[", index, "]."), kParam);
    BodyJson kept = {{"role", role_of(message, index)}};
    refuse_others(message, index);
    for (const char* name : {"content", "tool_calls", "tool_call_id"}) {
      const auto found = message.find(name);
      if (found != message.end()) kept[name] = *found;
    }
    if (kept.contains("tool_calls")) check_calls(kept["tool_calls"], index);
    if (kept.contains("tool_call_id") && !kept["tool_call_id"].is_null() &&
        kept["role"] != "tool") {
      refuse(Code::kUsage, index, " has a tool_call_id, which only the role \"tool\" has");
    }
    plain.push_back(std::move(kept));
  }
  try {
    return text::parse_messages(plain.dump());
  } catch (const Error& e) {
    throw ApiError(e.code(), cat("messages: ", e.what()), kParam);
  }
}

}  // namespace cachalot::serve
