// Values of a body as one line of JSON in the order in which they were written: BodyJson sorts the
// members of an object, but a schema's order is the order in which a model is to write them.
//
// Threads: pure functions.
// Errors:  none for a body that parse_json_body took.
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace cachalot::serve {

// Names of members from the outside in; "[]" stands for each value of a list.
using JsonPath = std::vector<std::string>;

// The values that stand at one of `paths`, written as Python's json.dumps writes them: ", " between
// values and ": " behind names, numbers as they were. By their place: "tools[2].parameters".
std::map<std::string, std::string> ordered_texts(std::string_view body,
                                                 std::span<const JsonPath> paths);

}  // namespace cachalot::serve
