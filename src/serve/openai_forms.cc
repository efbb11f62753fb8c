#include "serve/openai_forms.h"

#include <algorithm>
#include <set>

#include "serve/json_text.h"
#include "serve/openai_members.h"

namespace cachalot::serve {

namespace {

constexpr const char* kFormat = "response_format";
constexpr const char* kStructured = "structured_outputs";

[[noreturn]] void refuse(const std::string& member, const std::string& why) {
  throw ApiError(Code::kUsage, why, member);
}
[[noreturn]] void refuse_at(const std::string& member, const std::string& where,
                            const BodyJson& met, std::string_view needed) {
  refuse(member, cat(where, " is ", shown(met), ", but it must be ", needed));
}

void check_size(const std::string& member, const std::string& where, std::size_t bytes) {
  if (bytes <= kMaxFormBytes) return;
  refuse(member, cat(where, " has ", bytes, " bytes, but at most ", kMaxFormBytes, " are taken"));
}

// A member that is a string, or not there (null stands for that).
std::optional<std::string> text_at(const BodyJson& object, const char* name,
                                   const std::string& where, const std::string& member) {
  const BodyJson* value = Members(object).find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) refuse_at(member, cat(where, ".", name), *value, "a string");
  return value->get<std::string>();
}
bool flag_at(const BodyJson& object, const char* name, const std::string& where,
             const std::string& member) {
  const BodyJson* value = Members(object).find(name);
  if (value == nullptr) return false;
  if (!value->is_boolean()) refuse_at(member, cat(where, ".", name), *value, "true or false");
  return value->get<bool>();
}

// A schema is an object, or true or false.
void check_schema(const std::string& member, const std::string& where, const BodyJson& schema) {
  if (schema.is_object() || schema.is_boolean()) return;
  refuse_at(member, where, schema, "a JSON Schema: an object");
}

std::string schema_text(const std::string& member, const std::string& where,
                        const FormTexts& texts) {
  const std::string& text = texts.at(where);
  check_size(member, where, text.size());
  return text;
}

Form format_form(const BodyJson& format, const FormTexts& texts) {
  static constexpr std::string_view kKnown[] = {"type", "json_schema"};
  static constexpr std::string_view kKnownSchema[] = {"name", "description", "schema", "strict"};
  constexpr const char* kNeeded = "{\"type\": \"text\", \"json_object\" or \"json_schema\"}";
  if (!format.is_object()) refuse_value(kFormat, format, kNeeded);
  check_names(format, kKnown, "response_format.", kFormat);
  const std::string type = text_at(format, "type", kFormat, kFormat).value_or("");
  const BodyJson* wrapped = Members(format).find("json_schema");
  if (wrapped != nullptr && type != "json_schema") {
    refuse(kFormat, "response_format has a json_schema, but its type is not \"json_schema\"");
  }
  if (type == "text") return {};
  if (type == "json_object") return {.kind = Form::Kind::kJsonObject, .member = kFormat};
  if (type != "json_schema") {
    refuse(kFormat, cat("response_format.type is ",
                        type.empty() ? "missing" : cat("\"", shown_text(type), "\""),
                        ", but it must be \"text\", \"json_object\" or \"json_schema\""));
  }
  const std::string where = "response_format.json_schema";
  if (wrapped == nullptr || !wrapped->is_object()) {
    refuse(kFormat, cat(where, " must be {\"name\": ..., \"schema\": {...}}"));
  }
  check_names(*wrapped, kKnownSchema, where + ".", kFormat);
  (void)text_at(*wrapped, "name", where, kFormat);
  (void)text_at(*wrapped, "description", where, kFormat);
  (void)flag_at(*wrapped, "strict", where, kFormat);  // it is strict in any case
  const BodyJson* schema = Members(*wrapped).find("schema");
  if (schema == nullptr) refuse(kFormat, cat(where, ".schema is missing"));
  check_schema(kFormat, where + ".schema", *schema);
  return {.kind = Form::Kind::kJsonSchema,
          .text = schema_text(kFormat, where + ".schema", texts),
          .member = kFormat};
}

std::vector<std::string> read_choices(const BodyJson& list) {
  if (!list.is_array() || list.empty() || list.size() > kMaxFormChoices) {
    refuse_at(kStructured, "structured_outputs.choice", list,
              cat("a list of 1 to ", kMaxFormChoices, " texts"));
  }
  std::size_t bytes = 0;
  std::vector<std::string> choices;
  for (const BodyJson& one : list) {
    if (!one.is_string()) {
      refuse_at(kStructured, cat("structured_outputs.choice[", choices.size(), "]"), one,
                "a string");
    }
    choices.push_back(one.get<std::string>());
    bytes += choices.back().size();
  }
  check_size(kStructured, "structured_outputs.choice", bytes);
  return choices;
}

Form structured_form(const BodyJson& given, const FormTexts& texts) {
  static constexpr std::string_view kKnown[] = {"json", "regex", "choice", "grammar"};
  if (!given.is_object()) refuse_value(kStructured, given, "an object");
  check_names(given, kKnown, "structured_outputs.", kStructured);
  const Members members(given);
  const auto there = std::count_if(std::begin(kKnown), std::end(kKnown),
                                   [&](std::string_view n) { return members.find(n) != nullptr; });
  if (there != 1) {
    refuse(kStructured, cat("structured_outputs has ", there,
                            " of json, regex, choice and grammar, but it must have one"));
  }
  Form form{.member = kStructured};
  const std::string where = kStructured;
  if (const BodyJson* choice = members.find("choice")) {
    form.kind = Form::Kind::kChoice;
    form.choices = read_choices(*choice);
    return form;
  }
  const BodyJson* json = members.find("json");
  if (json != nullptr && !json->is_string()) {
    check_schema(kStructured, where + ".json", *json);
    form.kind = Form::Kind::kJsonSchema;
    form.text = schema_text(kStructured, where + ".json", texts);
    return form;
  }
  form.kind = json != nullptr                    ? Form::Kind::kJsonSchema
              : members.find("regex") != nullptr ? Form::Kind::kRegex
                                                 : Form::Kind::kGrammar;
  const char* name = json != nullptr                   ? "json"
                     : form.kind == Form::Kind::kRegex ? "regex"
                                                       : "grammar";
  form.text = text_at(given, name, where, kStructured).value_or("");
  check_size(kStructured, cat(where, ".", name), form.text.size());
  return form;
}

text::Tool read_tool(const BodyJson& item, std::size_t index, const FormTexts& texts) {
  static constexpr std::string_view kKnown[] = {"type", "function"};
  static constexpr std::string_view kKnownFunction[] = {"name", "description", "parameters",
                                                        "strict"};
  const std::string at = cat("tools[", index, "]");
  if (!item.is_object()) {
    refuse_at("tools", at, item, R"({"type": "function", "function": {"name": ...}})");
  }
  check_names(item, kKnown, at + ".", "tools");
  const BodyJson* type = Members(item).find("type");
  if (type == nullptr || *type != "function") {
    throw ApiError(type != nullptr && type->is_string() ? Code::kUnsupported : Code::kUsage,
                   cat(at, ".type is ", type == nullptr ? "missing" : shown(*type),
                       ", but only \"function\" is supported here"),
                   "tools");
  }
  const std::string where = at + ".function";
  const BodyJson* function = Members(item).find("function");
  if (function == nullptr || !function->is_object()) {
    refuse("tools", cat(where, " must be an object with a \"name\""));
  }
  check_names(*function, kKnownFunction, where + ".", "tools");
  text::Tool tool;
  tool.name = text_at(*function, "name", where, "tools").value_or("");
  if (!text::is_tool_name(tool.name)) {
    refuse("tools", cat(where, ".name is \"", shown_text(tool.name),
                        "\", but it must be 1 to 64 letters, digits, _ and -"));
  }
  tool.description = text_at(*function, "description", where, "tools").value_or("");
  tool.strict = flag_at(*function, "strict", where, "tools");
  const BodyJson* parameters = Members(*function).find("parameters");
  // The API: without parameters a function has none.
  tool.parameters = R"({"type": "object", "properties": {}})";
  if (parameters != nullptr) {
    if (!parameters->is_object()) {
      refuse_at("tools", where + ".parameters", *parameters, "a JSON Schema: an object");
    }
    tool.parameters = schema_text("tools", where + ".parameters", texts);
  }
  return tool;
}

void read_choice(const Members& members, ToolUse& use) {
  constexpr const char* kNeeded =
      R"("none", "auto", "required" or {"type": "function", "function": {"name": ...}})";
  const BodyJson* choice = members.find("tool_choice");
  use.choice = use.tools.empty() ? ToolChoice::kNone : ToolChoice::kAuto;
  if (choice == nullptr || *choice == "auto") return;
  if (*choice == "none") {
    use.choice = ToolChoice::kNone;
    return;
  }
  if (*choice == "required") {
    use.choice = ToolChoice::kRequired;
  } else if (choice->is_object()) {
    static constexpr std::string_view kKnown[] = {"type", "function"};
    static constexpr std::string_view kKnownFunction[] = {"name"};
    check_names(*choice, kKnown, "tool_choice.", "tool_choice");
    const BodyJson* type = Members(*choice).find("type");
    const BodyJson* function = Members(*choice).find("function");
    if (type == nullptr || *type != "function" || function == nullptr || !function->is_object()) {
      refuse_value("tool_choice", *choice, kNeeded);
    }
    check_names(*function, kKnownFunction, "tool_choice.function.", "tool_choice");
    use.choice = ToolChoice::kNamed;
    use.name = text_at(*function, "name", "tool_choice.function", "tool_choice").value_or("");
  } else {
    refuse_value("tool_choice", *choice, kNeeded);
  }
  if (use.tools.empty()) {
    refuse("tool_choice", "tool_choice asks for a call, but there are no tools");
  }
  const bool known = std::any_of(use.tools.begin(), use.tools.end(),
                                 [&](const text::Tool& t) { return t.name == use.name; });
  if (use.choice == ToolChoice::kNamed && !known) {
    refuse("tool_choice",
           cat("tool_choice names \"", shown_text(use.name), "\", which is none of the tools"));
  }
}

}  // namespace

FormTexts form_texts(const Members& members, std::string_view body) {
  static const JsonPath kPaths[] = {{"tools", "[]", "function", "parameters"},
                                    {"response_format", "json_schema", "schema"},
                                    {"structured_outputs", "json"}};
  for (const JsonPath& path : kPaths) {
    if (members.find(path.front()) != nullptr) return ordered_texts(body, kPaths);
  }
  return {};
}

Form read_form(const Members& members, const FormTexts& texts) {
  Form form;
  if (const BodyJson* format = members.find(kFormat)) form = format_form(*format, texts);
  const BodyJson* structured = members.find(kStructured);
  if (structured == nullptr) return form;
  if (form.kind != Form::Kind::kFree) {
    refuse(kStructured,
           "response_format and structured_outputs both bind the answer: give one of them");
  }
  return structured_form(*structured, texts);
}

ToolUse read_tools(const Members& members, const FormTexts& texts) {
  ToolUse use;
  use.parallel = members.flag("parallel_tool_calls", true);
  if (const BodyJson* list = members.find("tools")) {
    if (!list->is_array()) refuse_value("tools", *list, "a list of tools");
    if (list->size() > kMaxTools) refuse_value("tools", *list, cat("at most ", kMaxTools));
    std::set<std::string> names;
    std::size_t bytes = 0;
    for (const BodyJson& item : *list) {
      use.tools.push_back(read_tool(item, use.tools.size(), texts));
      bytes += use.tools.back().parameters.size();
      if (!names.insert(use.tools.back().name).second) {
        refuse("tools", cat("two tools are named \"", use.tools.back().name,
                            "\": give each a name of its own"));
      }
    }
    if (bytes > kMaxToolBytes) {
      refuse("tools", cat("the parameters of all tools have ", bytes, " bytes, but at most ",
                          kMaxToolBytes, " are taken"));
    }
  }
  read_choice(members, use);
  return use;
}

std::optional<bool> read_thinking(const Members& members) {
  std::optional<bool> thinking;
  const auto say = [&](bool value, const char* member) {
    if (thinking && *thinking != value) {
      refuse(member, "the request says both that the model is to think and that it is not to");
    }
    thinking = value;
  };
  constexpr const char* kKwargs = "chat_template_kwargs";
  if (const BodyJson* kwargs = members.find(kKwargs)) {
    static constexpr std::string_view kKnown[] = {"thinking", "enable_thinking"};
    if (!kwargs->is_object()) refuse_value(kKwargs, *kwargs, R"({"thinking": true or false})");
    check_names(*kwargs, kKnown, "chat_template_kwargs.", kKwargs);
    for (const char* name : {"thinking", "enable_thinking"}) {
      if (Members(*kwargs).find(name) != nullptr)
        say(flag_at(*kwargs, name, kKwargs, kKwargs), kKwargs);
    }
  }
  if (const BodyJson* given = members.find("thinking")) {
    static constexpr std::string_view kKnown[] = {"type"};
    constexpr const char* kNeeded = R"({"type": "enabled" or "disabled"})";
    if (!given->is_object()) refuse_value("thinking", *given, kNeeded);
    check_names(*given, kKnown, "thinking.", "thinking");
    const std::string type = text_at(*given, "type", "thinking", "thinking").value_or("");
    if (type != "enabled" && type != "disabled") refuse_value("thinking", *given, kNeeded);
    say(type == "enabled", "thinking");
  }
  return thinking;
}

}  // namespace cachalot::serve
