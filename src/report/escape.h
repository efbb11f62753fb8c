// The one place where text becomes part of a page. Names come from model folders, profiles and
// command lines, and are hostile until they have passed through here.
//
// Threads: pure functions.
// Errors:  none: what is not UTF-8, control characters and characters that turn the direction of
//          writing become U+FFFD.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace cachalot::report {

using Json = nlohmann::ordered_json;

// For text between tags and for values in double or single quotes.
std::string html(std::string_view text);

// For between <script type="application/json"> and </script>: JSON in ASCII without < > &, so that
// no string in it can end the element, open a comment or be an entity. Parses to `value` (but for
// bytes that are not UTF-8).
std::string script_json(const Json& value);

}  // namespace cachalot::report
