// The JSON of tools.
#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/nearest.h"
#include "text/chat_messages.h"
#include "text/strict_json.h"

namespace cachalot::text {

using Json = nlohmann::ordered_json;

static constexpr int kShown = 60;  // characters of a stranger's text in a message

// One line, as Python's json.dumps writes it: what models have read in training.
static void write_line(const Json& value, std::string& out) {
  if (!value.is_structured()) {
    out += value.dump();
    return;
  }
  out += value.is_object() ? '{' : '[';
  bool first = true;
  for (const auto& [name, member] : value.items()) {
    if (!first) out += ", ";
    first = false;
    if (value.is_object()) out += Json(name).dump() + ": ";
    write_line(member, out);
  }
  out += value.is_object() ? '}' : ']';
}

static void check_names(const Json& object, std::span<const std::string_view> known,
                        const std::string& where) {
  for (const auto& [name, value] : object.items()) {
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    const std::string near =
        nearest_within(2, shown_text(name, kShown), known.data(), known.data() + known.size());
    throw Error(Code::kUsage,
                cat(where, " has an unknown member \"", shown_text(name, kShown), "\"",
                    near.empty() ? ": leave it out" : cat(": did you mean \"", near, "\"?")));
  }
}

// nullptr where the member is missing or null.
static const Json* member(const Json& object, const char* name) {
  const auto found = object.find(name);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

static Tool tool_of(const Json& item, std::size_t index) {
  static constexpr std::string_view kKnown[] = {"type", "function"};
  static constexpr std::string_view kKnownFunction[] = {"name", "description", "parameters",
                                                        "strict"};
  const std::string where = cat("tool ", index);
  const auto refuse = [&](const char* needed) {
    throw Error(Code::kUsage, cat(where, " needs ", needed));
  };
  if (!item.is_object()) refuse(R"(to be {"type": "function", "function": {"name": ...}})");
  check_names(item, kKnown, where);
  const Json* type = member(item, "type");
  if (type == nullptr || !type->is_string()) refuse("the \"type\" \"function\"");
  if (*type != "function") {
    throw Error(Code::kUnsupported, cat(where, " has the type \"",
                                        shown_text(type->get_ref<const std::string&>(), kShown),
                                        "\", but only \"function\" is supported here"));
  }
  const Json* function = member(item, "function");
  if (function == nullptr || !function->is_object()) {
    refuse("a \"function\": {\"name\", \"description\", \"parameters\"}");
  }
  check_names(*function, kKnownFunction, where + "'s function");
  const Json* name = member(*function, "name");
  if (name == nullptr || !name->is_string() || !is_tool_name(name->get_ref<const std::string&>())) {
    refuse("a function \"name\" of 1 to 64 letters, digits, _ and -");
  }
  Tool tool{.name = name->get<std::string>(),
            .description = {},
            .parameters = R"({"type": "object", "properties": {}})"};
  if (const Json* description = member(*function, "description")) {
    if (!description->is_string()) refuse("a function \"description\" that is a string");
    tool.description = description->get<std::string>();
  }
  if (const Json* strict = member(*function, "strict")) {
    if (!strict->is_boolean()) refuse("a function \"strict\" that is true or false");
    tool.strict = strict->get<bool>();
  }
  if (const Json* parameters = member(*function, "parameters")) {
    if (!parameters->is_object()) {
      refuse("function \"parameters\" that are a JSON Schema: an object");
    }
    tool.parameters.clear();
    write_line(*parameters, tool.parameters);
  }
  return tool;
}

std::vector<Tool> tools_of(const Json& list) {
  if (!list.is_array()) throw Error(Code::kUsage, "tools must be a list of tools");
  std::vector<Tool> tools;
  std::set<std::string> names;
  for (const Json& item : list) {
    tools.push_back(tool_of(item, tools.size()));
    if (!names.insert(tools.back().name).second) {
      throw Error(Code::kUsage, cat("two tools are named \"", tools.back().name,
                                    "\": give each a name of its own"));
    }
  }
  return tools;
}

}  // namespace cachalot::text
