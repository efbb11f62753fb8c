// Messages and tools of the chat API from JSON that has been parsed already.
//
// Threads: pure functions.
// Errors:  kUsage, kUnsupported, saying which message or tool; what strangers wrote is shown
//          printable.
#pragma once

#include <nlohmann/json.hpp>
#include <vector>

#include "text/chat.h"

namespace cachalot::text {

// What parse_messages (text/chat.h) makes of its text.
std::vector<ChatMessage> messages_of(const nlohmann::json& list);

// [{"type": "function", "function": {"name", "description"?, "parameters"?, "strict"?}}, ...], each
// name once. A tool's parameters are written as Python's json.dumps writes them (", " and ": "), in
// the order of their members: so a server tells them (serve/json_text.h). Without parameters a
// function has none: {"type": "object", "properties": {}}.
std::vector<Tool> tools_of(const nlohmann::ordered_json& list);

}  // namespace cachalot::text
