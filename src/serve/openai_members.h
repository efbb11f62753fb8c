// Which members the bodies of the two endpoints may have, and what is done with each.
//
// Threads: pure functions.
// Errors:  ApiError with the member's name: kUsage for one that nobody knows (with the nearest that
//          is known) or that belongs to the other endpoint, kUnsupported for one that would change
//          the answer and cannot be obeyed.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "serve/json_body.h"
#include "serve/openai_request.h"

namespace cachalot::serve {

// Every member of `body` is known at `endpoint`; those that cannot be obeyed ask for nothing. What
// the others hold is not looked at here.
void check_members(const BodyJson& body, Endpoint endpoint);

// For objects with few members: throws for a member that is not one of `known`. `where` goes before
// its name in the message ("stream_options."), `param` is the error's.
void check_names(const BodyJson& object, std::span<const std::string_view> known,
                 const std::string& where, const std::string& param);

}  // namespace cachalot::serve
