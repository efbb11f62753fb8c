// The messages of a chat as the API has them.
//
// Threads: pure functions.
// Errors:  ApiError with param "messages": kUsage (form, role, unknown member), kUnsupported
//          (images, sound, the older function calls).
#pragma once

#include <vector>

#include "serve/json_body.h"
#include "text/chat.h"

namespace cachalot::serve {

// `list`: the member "messages", at least one. Role "developer" is read as "system". Left out: what
// names or explains a message, and the thoughts of earlier answers (reasoning_content).
std::vector<text::ChatMessage> read_messages(const BodyJson& list);

}  // namespace cachalot::serve
