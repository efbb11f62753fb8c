// The two JSON shapes of safetensors files: an object, and an object of strings. Keys given twice
// are errors, never silently dropped.
//
// Threads: plain functions.
// Errors:  kFormat, beginning with `where`.
#pragma once

#include <simdjson.h>

#include <map>
#include <string>
#include <string_view>

namespace cachalot::io {

// What is returned points into `parser`. It has every key as often as the text has it.
simdjson::dom::object parse_json_object(simdjson::dom::parser& parser, std::string_view text,
                                        const std::string& where);
std::map<std::string, std::string> parse_string_map(const simdjson::dom::element& value,
                                                    const std::string& where);

// For messages: `text` with control characters as '?', so that a NUL cannot cut a message short nor
// an escape sequence reach a terminal.
std::string printable(std::string_view text);

// Throws kFormat where lists and objects lie more than 64 deep in each other: copies and texts of a
// nlohmann::json are made by recursion, so a file of brackets would overflow the stack.
void refuse_deep_json(std::string_view text, const std::string& where);

}  // namespace cachalot::io
