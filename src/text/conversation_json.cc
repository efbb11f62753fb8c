// Lines of conversations, which may be anyone's.
#include <algorithm>

#include "base/error.h"
#include "base/nearest.h"
#include "text/chat_messages.h"
#include "text/conversation.h"
#include "text/strict_json.h"

namespace cachalot::text {

namespace {

using Json = nlohmann::ordered_json;

constexpr int kShown = 60;  // characters of a stranger's text in a message

constexpr std::string_view kForms =
    R"({"messages": [...], "tools": [...]} or {"prompt": "...", "completion": "..."})";

[[noreturn]] void refuse(const std::string& why, Code code = Code::kUsage) {
  throw Error(code, why);
}

class LineCheck final : public StrictJsonCheck<Json> {
 public:
  bool key(std::string& name) override {
    StrictJsonCheck::key(name);
    // Json looks names up one by one.
    constexpr std::size_t kMostMembers = 4096;
    if (members_here() > kMostMembers) {
      refuse(cat("an object has more than ", kMostMembers, " members: leave some of them out"));
    }
    return true;
  }

 private:
  void refuse_twice(const std::string& name) override {
    refuse(cat("\"", shown_text(name, kShown), "\" is there twice: leave one of them out"));
  }
};

Json parse_object(std::string_view line) {
  require_json_text(line, "the line");
  LineCheck check;
  if (!Json::sax_parse(line, &check)) {
    refuse(cat("the line is not JSON: it cannot be read from byte ", check.at(), " of ",
               line.size(), " on"));
  }
  Json object = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) refuse(cat("the line must be a JSON object: ", kForms));
  return object;
}

// nullptr where the member is missing or null.
const Json* member(const Json& object, const char* name) {
  const auto found = object.find(name);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

void check_members(const Json& line) {
  static constexpr std::string_view kKnown[] = {"messages", "tools",      "parallel_tool_calls",
                                                "prompt",   "completion", "functions"};
  for (const auto& [name, value] : line.items()) {
    if (std::find(std::begin(kKnown), std::end(kKnown), name) != std::end(kKnown)) continue;
    const std::string shown = shown_text(name, kShown);
    const std::string near = nearest_within(3, shown, std::begin(kKnown), std::end(kKnown));
    refuse(cat("the line has an unknown member \"", shown, "\"",
               near.empty() ? "" : cat(" (did you mean \"", near, "\"?)"), ": a conversation is ",
               kForms, ". jq -c '{messages}' FILE writes such lines alone."));
  }
  const auto has = [&](const char* name) { return line.contains(name); };
  const bool pair = has("prompt") || has("completion");
  const bool chat = has("messages") || has("tools") || has("functions");
  if (pair && (chat || has("parallel_tool_calls"))) {
    refuse(cat("the line mixes two forms of conversations: it must be ", kForms,
               ". jq -c '{messages}' FILE writes lines of messages alone."));
  }
  if (!pair && !has("messages")) refuse(cat("the line has no \"messages\": it must be ", kForms));
  const Json* functions = member(line, "functions");
  if (functions != nullptr && !(functions->is_array() && functions->empty())) {
    refuse("\"functions\" is not supported here: write \"tools\"", Code::kUnsupported);
  }
}

std::string text_of(const Json& line, const char* name) {
  const auto found = line.find(name);
  if (found == line.end() || !found->is_string()) {
    refuse(cat("the line needs a \"", name, "\" that is a string: it must be ", kForms));
  }
  return found->get<std::string>();
}

// Members that say something about the text, but would be passed over.
void refuse_others(const Json& message, std::size_t index) {
  for (const char* name : {"function_call", "audio", "reasoning", "thinking"}) {
    if (member(message, name) == nullptr) continue;
    const std::string_view instead =
        std::string_view(name) == "function_call" ? ": write \"tool_calls\""
        : std::string_view(name) == "audio"       ? ": leave the conversation out"
                                                  : ": write \"reasoning_content\"";
    refuse(cat("message ", index, " has \"", name, "\", which is not read", instead),
           Code::kUnsupported);
  }
  // Misspelt, these would change what is learnt without a word.
  static constexpr std::string_view kTelling[] = {"weight", "reasoning_content", "tool_calls",
                                                  "tool_call_id"};
  for (const auto& [name, value] : message.items()) {
    const std::string near =
        nearest_within(2, shown_text(name, kShown), std::begin(kTelling), std::end(kTelling));
    if (!near.empty() && near != name) {
      refuse(cat("message ", index, " has an unknown member \"", shown_text(name, kShown),
                 "\": did you mean \"", near, "\"?"));
    }
  }
}

std::string role_of(const Json& message, std::size_t index) {
  const Json* role = message.is_object() ? member(message, "role") : nullptr;
  if (role == nullptr || !role->is_string()) {
    refuse(cat("message ", index, " must be an object with a \"role\""));
  }
  const auto& name = role->get_ref<const std::string&>();
  if (name == "developer") return "system";
  if (name == "system" || name == "user" || name == "assistant" || name == "tool") return name;
  refuse(cat("message ", index, " has the role \"", shown_text(name, kShown),
             "\", but it must be system, developer, user, assistant or tool"));
}

bool learns(const Json& message, const std::string& role, std::size_t index) {
  const Json* weight = member(message, "weight");
  if (weight == nullptr) return role == "assistant";
  if (role != "assistant") {
    refuse(cat("message ", index, " has a \"weight\", which only an assistant's message may have"));
  }
  if (!weight->is_number_integer() || (*weight != 0 && *weight != 1)) {
    refuse(cat("message ", index, " has a \"weight\" that is neither 0 nor 1"));
  }
  return *weight == 1;
}

std::string thoughts_of(const Json& message, const std::string& role, std::size_t index) {
  const Json* thoughts = member(message, "reasoning_content");
  if (thoughts == nullptr) return {};
  if (!thoughts->is_string()) {
    refuse(cat("message ", index, " needs a \"reasoning_content\" that is a string"));
  }
  std::string text = thoughts->get<std::string>();
  if (text.empty()) return {};
  if (role != "assistant") {
    refuse(cat("message ", index,
               " has \"reasoning_content\", which only an assistant's message may have"));
  }
  if (text.find(kThoughtEnd) != std::string::npos) {
    refuse(cat("message ", index, " has \"reasoning_content\" with ", kThoughtEnd,
               " in it, which ends thoughts"));
  }
  return text;
}

void read_messages(const Json& list, Conversation& out) {
  if (!list.is_array() || list.empty()) {
    refuse(R"("messages" must be a list of at least one {"role": ..., "content": ...} object)");
  }
  nlohmann::json plain = nlohmann::json::array();
  std::vector<std::string> thoughts;
  for (const Json& message : list) {
    const std::size_t index = plain.size();
    nlohmann::json kept;
    const std::string role = role_of(message, index);
    refuse_others(message, index);
    out.learnt.push_back(learns(message, role, index));
    thoughts.push_back(thoughts_of(message, role, index));
    kept["role"] = role;
    for (const char* name : {"content", "tool_calls", "tool_call_id"}) {
      if (const Json* value = member(message, name)) kept[name] = *value;
    }
    plain.push_back(std::move(kept));
  }
  out.messages = messages_of(plain);
  // Results of tools may have changed places among themselves, assistants have not.
  for (std::size_t m = 0; m < thoughts.size(); ++m) {
    std::string& content = out.messages[m].content;
    if (thoughts[m].empty() || content.find(kThoughtEnd) != std::string::npos) continue;
    content = cat(kThoughtBegin, "\n", thoughts[m], "\n", kThoughtEnd, "\n\n", content);
  }
}

}  // namespace

Conversation parse_conversation(std::string_view line) {
  const Json object = parse_object(line);
  check_members(object);
  Conversation conversation;
  if (object.contains("messages")) {
    read_messages(object["messages"], conversation);
    if (const Json* tools = member(object, "tools")) conversation.tools = tools_of(*tools);
  } else {
    conversation.prompt = text_of(object, "prompt");
    conversation.completion = text_of(object, "completion");
  }
  return conversation;
}

}  // namespace cachalot::text
