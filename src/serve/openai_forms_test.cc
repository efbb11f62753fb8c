#include "serve/openai_forms.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "serve/openai_request.h"
#include "serve/testing.h"

namespace cachalot::serve {
namespace {

using ::testing::HasSubstr;

std::string chat_body(const std::string& more) {
  return cat(R"({"messages": [{"role": "user", "content": "Hi"}], )", more, "}");
}
ApiRequest chat(const std::string& more) { return parse_chat_request(chat_body(more), {}); }
ApiRequest completion(const std::string& more) {
  return parse_completion_request(cat(R"({"prompt": "Hi", )", more, "}"), {});
}
std::string refused(const std::string& param, const std::string& more, Code code = Code::kUsage) {
  return testing::error_of(code, param, [&] { chat(more); });
}

std::string format(const std::string& value) { return cat("\"response_format\": ", value); }
std::string structured(const std::string& value) { return cat("\"structured_outputs\": ", value); }
std::string tool(const std::string& function) {
  return cat(R"({"type": "function", "function": )", function, "}");
}
const std::string kTools = cat("\"tools\": [", tool(R"({"name": "f"})"), "]");

TEST(ApiFormsTest, AResponseFormatIsTextJsonOrASchema) {
  EXPECT_EQ(chat("\"n\": 1").form.kind, Form::Kind::kFree);
  EXPECT_EQ(chat(format("null")).form.kind, Form::Kind::kFree);
  EXPECT_EQ(chat(format(R"({"type": "text"})")).form.kind, Form::Kind::kFree);
  EXPECT_EQ(chat(format(R"({"type": "json_object"})")).form.kind, Form::Kind::kJsonObject);
  const std::string schema = format(R"({"type": "json_schema", "json_schema": {"name": "n",
      "description": "d", "strict": true, "schema": {"type":"object","properties":
      {"z": {}, "a": {"enum": [1.50, -2, "\u00e9\n", null, true, []]}}}}})");
  for (const ApiRequest& r : {chat(schema), completion(schema)}) {
    EXPECT_EQ(r.form.kind, Form::Kind::kJsonSchema);
    EXPECT_EQ(r.form.member, "response_format");
    // In its own order, on one line, as Python writes it.
    EXPECT_EQ(r.form.text,
              "{\"type\": \"object\", \"properties\": {\"z\": {}, \"a\": {\"enum\": [1.50, -2, "
              "\"\u00e9\\n\", null, true, []]}}}");
  }
}

TEST(ApiFormsTest, AnotherResponseFormatIsRefused) {
  for (const char* value :
       {"\"text\"", "{}", "[]", R"({"type": 1})", R"({"type": "xml"})",
        R"({"type": "json_schema"})", R"({"type": "text", "json_schema": {}})",
        R"({"type": "json_schema", "json_schema": 1})",
        R"({"type": "json_schema", "json_schema": {}})",
        R"({"type": "json_schema", "json_schema": {"schema": 1}})",
        R"({"type": "json_schema", "json_schema": {"schema": {}, "strict": 1}})",
        R"({"type": "json_schema", "json_schema": {"schema": {}, "name": 1}})"}) {
    EXPECT_THAT(refused("response_format", format(value)), HasSubstr("response_format")) << value;
  }
  EXPECT_THAT(refused("response_format", format(R"({"type": "text", "x": 1})")),
              HasSubstr("unknown member \"response_format.x\""));
  EXPECT_THAT(refused("response_format", format(R"({"type": "json_schema", "json_schema":
                  {"schemas": {}}})")),
              HasSubstr("did you mean \"schema\"?"));
}

TEST(ApiFormsTest, StructuredOutputsHaveExactlyOneMember) {
  const Form json = completion(structured(R"({"json": {"b": 1, "a": 2}})")).form;
  EXPECT_EQ(json.kind, Form::Kind::kJsonSchema);
  EXPECT_EQ(json.text, R"({"b": 1, "a": 2})");
  EXPECT_EQ(chat(structured(R"({"json": "{ }"})")).form.text, "{ }");
  EXPECT_EQ(chat(structured(R"({"regex": "a+"})")).form.kind, Form::Kind::kRegex);
  const Form gbnf = chat(structured(R"({"grammar": "root ::= \"a\"", "regex": null})")).form;
  EXPECT_EQ(gbnf.kind, Form::Kind::kGrammar);
  EXPECT_EQ(gbnf.text, "root ::= \"a\"");
  EXPECT_EQ(gbnf.member, "structured_outputs");
  const Form choice = chat(structured(R"({"choice": ["yes", "no"]})")).form;
  EXPECT_EQ(choice.kind, Form::Kind::kChoice);
  EXPECT_EQ(choice.choices, (std::vector<std::string>{"yes", "no"}));
  for (const char* value :
       {"[]", "{}", R"({"json": null})", R"({"json": {}, "regex": "a"})", R"({"json": 1})",
        R"({"regex": 1})", R"({"grammar": ["a"]})", R"({"choice": []})", R"({"choice": [1]})",
        R"({"choice": "a"})", R"({"regexp": "a"})"}) {
    EXPECT_THAT(refused("structured_outputs", structured(value)), HasSubstr("structured_outputs"))
        << value;
  }
  EXPECT_THAT(refused("structured_outputs", cat(format(R"({"type": "json_object"})"), ", ",
                                                structured(R"({"regex": "a"})"))),
              HasSubstr("give one of them"));
}

TEST(ApiFormsTest, WhatIsTooLongIsRefused) {
  const std::string most(kMaxFormBytes, 'a');
  EXPECT_NO_THROW(chat(structured(cat(R"({"regex": ")", most, "\"}"))));
  EXPECT_THAT(refused("structured_outputs", structured(cat(R"({"regex": "a)", most, "\"}"))),
              HasSubstr("131073 bytes"));
  EXPECT_THAT(refused("structured_outputs", structured(cat(R"({"json": {"a": ")", most, "\"}}"))),
              HasSubstr("structured_outputs.json has"));
  EXPECT_THAT(
      refused("structured_outputs", structured(cat(R"({"choice": [")", most, "\", \"b\"]}"))),
      HasSubstr("131073 bytes"));
  std::string tools = "\"tools\": [";
  for (int i = 0; i < 3; ++i) {
    tools += cat(i > 0 ? "," : "", tool(cat(R"({"name": "f)", i, R"(", "parameters": {"a": ")",
                                            most.substr(0, 100'000), "\"}}")));
  }
  EXPECT_THAT(refused("tools", tools + "]"), HasSubstr("the parameters of all tools"));
}

TEST(ApiFormsTest, ToolsAreFunctions) {
  const ToolUse none = chat("\"tools\": []").tools;
  EXPECT_FALSE(none.on());
  EXPECT_TRUE(none.parallel);
  const ToolUse use = chat(cat(R"("parallel_tool_calls": false, "tools": [)",
                               tool(R"({"name": "get_time", "description": "Says it.",
                                   "strict": true, "parameters": {"type": "object",
                                   "properties": {"zone": {}, "at": {}}}})"),
                               ",", tool(R"({"name": "g", "parameters": null})"), "]"))
                          .tools;
  EXPECT_EQ(use.choice, ToolChoice::kAuto);
  EXPECT_FALSE(use.parallel);
  ASSERT_EQ(use.tools.size(), 2u);
  EXPECT_EQ(use.tools[0].name, "get_time");
  EXPECT_EQ(use.tools[0].description, "Says it.");
  EXPECT_TRUE(use.tools[0].strict);
  EXPECT_EQ(use.tools[0].parameters, R"({"type": "object", "properties": {"zone": {}, "at": {}}})");
  EXPECT_EQ(use.tools[1].parameters, R"({"type": "object", "properties": {}})");
  EXPECT_FALSE(use.tools[1].strict);
}

TEST(ApiFormsTest, ToolsOfAnotherFormAreRefused) {
  for (const std::string list :
       {"{}", "[1]", "[{}]", R"([{"type": "function"}])", R"([{"type": 1, "function": {}}])"}) {
    refused("tools", cat("\"tools\": ", list));
  }
  for (const char* function :
       {"{}", "1", R"({"name": ""})", R"({"name": "a b"})", R"({"name": 1})",
        R"({"name": "f", "parameters": []})", R"({"name": "f", "parameters": true})",
        R"({"name": "f", "description": 1})", R"({"name": "f", "strict": 1})",
        R"({"name": "f", "parameter": {}})"}) {
    EXPECT_THAT(refused("tools", cat("\"tools\": [", tool(function), "]")),
                HasSubstr("tools[0].function"))
        << function;
  }
  EXPECT_THAT(refused("tools", R"("tools": [{"type": "custom", "custom": {}}])"),
              HasSubstr("unknown member \"tools[0].custom\""));
  EXPECT_THAT(refused("tools", R"("tools": [{"type": "code"}])", Code::kUnsupported),
              HasSubstr("only \"function\""));
  EXPECT_THAT(refused("tools", cat("\"tools\": [", tool(R"({"name": "f"})"), ",",
                                   tool(R"({"name": "f"})"), "]")),
              HasSubstr("two tools are named \"f\""));
  std::string many = "\"tools\": [";
  for (std::size_t i = 0; i <= kMaxTools; ++i) {
    many += cat(i > 0 ? "," : "", tool(cat(R"({"name": "f)", i, "\"}")));
  }
  EXPECT_THAT(refused("tools", many + "]"), HasSubstr("at most 128"));
}

TEST(ApiFormsTest, AChoiceOfTools) {
  const auto choice = [](const std::string& value) {
    return chat(cat(kTools, ", \"tool_choice\": ", value)).tools;
  };
  EXPECT_EQ(choice("null").choice, ToolChoice::kAuto);
  EXPECT_EQ(choice("\"auto\"").choice, ToolChoice::kAuto);
  EXPECT_FALSE(choice("\"none\"").on());
  EXPECT_EQ(choice("\"required\"").choice, ToolChoice::kRequired);
  const ToolUse named = choice(tool(R"({"name": "f"})"));
  EXPECT_EQ(named.choice, ToolChoice::kNamed);
  EXPECT_EQ(named.name, "f");
  for (const char* value : {"\"any\"", "1", "{}", R"({"type": "function"})",
                            R"({"type": "function", "function": {"name": "g"}})",
                            R"({"type": "function", "function": {"name": 1}})",
                            R"({"type": "allowed_tools", "function": {"name": "f"}})"}) {
    refused("tool_choice", cat(kTools, ", \"tool_choice\": ", value));
  }
  EXPECT_FALSE(chat("\"tool_choice\": \"auto\"").tools.on());
  EXPECT_THAT(refused("tool_choice", "\"tool_choice\": \"required\""),
              HasSubstr("there are no tools"));
}

TEST(ApiFormsTest, AFormAndToolsExcludeEachOther) {
  const std::string json = format(R"({"type": "json_object"})");
  EXPECT_THAT(refused("response_format", cat(kTools, ", ", json), Code::kUnsupported),
              HasSubstr("tool_choice to \"none\""));
  EXPECT_NO_THROW(chat(cat(kTools, ", ", format(R"({"type": "text"})"))));
  EXPECT_EQ(chat(cat(kTools, R"(, "tool_choice": "none", )", json)).form.kind,
            Form::Kind::kJsonObject);
}

TEST(ApiFormsTest, ThinkingHasThreeNames) {
  EXPECT_EQ(chat("\"n\": 1").thinking, std::nullopt);
  EXPECT_EQ(chat(R"("chat_template_kwargs": {})").thinking, std::nullopt);
  EXPECT_EQ(chat(R"("chat_template_kwargs": {"thinking": true})").thinking, true);
  EXPECT_EQ(chat(R"("chat_template_kwargs": {"enable_thinking": false})").thinking, false);
  EXPECT_EQ(chat(R"("thinking": {"type": "enabled"})").thinking, true);
  EXPECT_EQ(chat(R"("thinking": {"type": "disabled"},
                     "chat_template_kwargs": {"thinking": false})")
                .thinking,
            false);
  refused("thinking", R"("thinking": {"type": "disabled"},
                          "chat_template_kwargs": {"thinking": true})");
  for (const char* value :
       {"true", "{}", R"({"type": "on"})", R"({"type": 1})", R"({"kind": 1})"}) {
    refused("thinking", cat("\"thinking\": ", value));
  }
  for (const char* value : {"true", R"({"thinking": 1})", R"({"think": true})"}) {
    refused("chat_template_kwargs", cat("\"chat_template_kwargs\": ", value));
  }
}

TEST(ApiFormsTest, TokenizeTakesWhatAPromptDependsOn) {
  const TokenizeRequest r = parse_tokenize_request(
      chat_body(cat(kTools, R"(, "chat_template_kwargs": {"thinking": true})")));
  EXPECT_TRUE(r.tools.on());
  EXPECT_EQ(r.thinking, true);
  testing::error_of(Code::kUsage, "tools",
                    [] { parse_tokenize_request(cat(R"({"prompt": "x", )", kTools, "}")); });
}

}  // namespace
}  // namespace cachalot::serve
