// Calls of tools and thoughts, as each format writes them and as templates say it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "testing/error_of.h"
#include "text/chat.h"

namespace cachalot::text {
namespace {

using cachalot::testing::error_of;

using ::testing::HasSubstr;

const std::vector<ChatMessage> kTalk = {
    {"system", "S"},
    {"user", "Q1"},
    {"assistant", "Look.", {{"a", "f", R"({"x": 1})"}, {"b", "g", "{}"}}},
    {"tool", "R1", {}, "a"},
    {"tool", "R2", {}, "b"},
    {"assistant", "", {{"c", "f", "{}"}}},
    {"tool", "R3", {}, "c"},
    {"assistant", "A1"},
    {"user", "Q2"}};

TEST(ChatToolsTest, V3WritesFencedCallsOnLinesOfTheirOwn) {
  const std::string calls =
      "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"x\": 1}\n```"
      "<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>g\n```json\n{}\n```"
      "<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜>";
  const std::string further =
      "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{}\n```"
      "<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜>";
  const std::string results =
      "<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>R1<｜tool▁output▁end｜>\n<"
      "｜tool▁output▁begin｜>R2"
      "<｜tool▁output▁end｜><｜tool▁outputs▁end｜>";
  const std::string last =
      "<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>R3<｜tool▁output▁end｜><｜tool▁outputs▁end｜>"
      "A1"
      "<｜end▁of▁sentence｜><｜User｜>Q2<｜Assistant｜>";
  const std::string want =
      cat("<B>S<｜User｜>Q1<｜Assistant｜>Look.", calls, results, further, last);
  EXPECT_EQ(ChatFormat::v3().render(kTalk, {}, "<B>", ""), want);
  EXPECT_EQ(ChatFormat::v3_0324().render(kTalk, {}, "<B>", ""), want);
  EXPECT_EQ(ChatFormat::r1_0528().render(kTalk, {}, "<B>", ""), want);
  EXPECT_EQ(ChatFormat::r1().render(kTalk, {}, "<B>", ""), want + "<think>\n");
}

TEST(ChatToolsTest, V31ChainsCallsAndClosesThoughts) {
  EXPECT_EQ(
      ChatFormat::v3_1().render(kTalk, {}, "<B>", ""),
      "<B>S<｜User｜>Q1<｜Assistant｜></think>Look.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f"
      "<｜tool▁sep｜>{\"x\": 1}<｜tool▁call▁end｜><｜tool▁call▁begin｜>g<｜tool▁sep｜>{}"
      "<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜><｜tool▁output▁begin｜>R1"
      "<｜tool▁output▁end｜><｜tool▁output▁begin｜>R2<｜tool▁output▁end｜><｜tool▁calls▁begin｜>"
      "<｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
      "<｜end▁of▁sentence｜><｜tool▁output▁begin｜>R3<｜tool▁output▁end｜>A1<｜end▁of▁sentence｜>"
      "<｜User｜>Q2<｜Assistant｜></think>");
}

TEST(ChatToolsTest, AnAnswerFollowsResultsWithoutAnOpening) {
  const std::span talk(kTalk.data(), 5);  // up to the two results
  EXPECT_TRUE(ChatFormat::v3().render(talk, {}, "", "").ends_with("<｜tool▁outputs▁end｜>"));
  EXPECT_TRUE(ChatFormat::r1().render(talk, {}, "", "").ends_with("<｜tool▁outputs▁end｜>"));
  EXPECT_TRUE(ChatFormat::v3_1().render(talk, {}, "", "").ends_with("R2<｜tool▁output▁end｜>"));
  EXPECT_FALSE(ChatFormat::r1().opens_thought(talk, {}));
  EXPECT_FALSE(ChatFormat::r1_0528().thinks_first(talk, {}));
  EXPECT_FALSE(ChatFormat::v3_1().opens_thought(talk, {.thinking = true}));
}

const std::vector<ChatMessage> kThoughts = {{"user", "Q1"},
                                            {"assistant", "<think>a</think>b</think>A1"},
                                            {"assistant", "A2"},
                                            {"user", "Q2"}};

TEST(ChatToolsTest, ThoughtsAreOpenedClosedAndDroppedAsEachFormatHasIt) {
  EXPECT_EQ(
      ChatFormat::v3_1().render(kThoughts, {}, "", ""),
      "<｜User｜>Q1<｜Assistant｜></think>b</think>A1<｜end▁of▁sentence｜>A2<｜end▁of▁sentence｜>"
      "<｜User｜>Q2<｜Assistant｜></think>");
  EXPECT_TRUE(ChatFormat::v3_1()
                  .render(kThoughts, {.thinking = true}, "", "")
                  .ends_with("<｜User｜>Q2<｜Assistant｜><think>"));
  EXPECT_EQ(ChatFormat::r1_0528().render(kThoughts, {}, "", ""),
            "<｜User｜>Q1<｜Assistant｜>A1<｜end▁of▁sentence｜>A2<｜end▁of▁sentence｜><｜User｜>Q2"
            "<｜Assistant｜>");
  EXPECT_EQ(
      ChatFormat::v3_1().render(kThoughts, {.add_generation_prompt = false}, "", ""),
      "<｜User｜>Q1<｜Assistant｜></think>b</think>A1<｜end▁of▁sentence｜>A2<｜end▁of▁sentence｜>"
      "<｜User｜>Q2");
  // Nobody has asked anything: V3.1 opens no answer, V3-0324 does.
  const std::span answered(kThoughts.data(), 2);
  EXPECT_TRUE(ChatFormat::v3_1().render(answered, {}, "", "").ends_with("<｜end▁of▁sentence｜>"));
  EXPECT_TRUE(ChatFormat::v3_0324().render(answered, {}, "", "").ends_with("｜><｜Assistant｜>"));
}

TEST(ChatToolsTest, WhoBeginsWithThoughts) {
  struct Case {
    ChatFormat format;
    std::optional<bool> thinking;
    bool opens, first;
  };
  const Case kCases[] = {
      {ChatFormat::v2(), {}, false, false},     {ChatFormat::v3(), false, false, false},
      {ChatFormat::r1(), {}, true, true},       {ChatFormat::r1(), true, true, true},
      {ChatFormat::r1_0528(), {}, false, true}, {ChatFormat::v3_1(), {}, false, false},
      {ChatFormat::v3_1(), true, true, true}};
  for (const Case& c : kCases) {
    const RenderOptions options{.thinking = c.thinking};
    EXPECT_EQ(c.format.opens_thought(kThoughts, options), c.opens) << c.format.name();
    EXPECT_EQ(c.format.thinks_first(kThoughts, options), c.first) << c.format.name();
    const std::string text = c.format.render(kThoughts, options, "", "");
    EXPECT_EQ(text.ends_with("<think>") || text.ends_with("<think>\n"), c.opens);
    EXPECT_FALSE(c.format.opens_thought(kThoughts,
                                        {.add_generation_prompt = false, .thinking = c.thinking}));
  }
}

TEST(ChatToolsTest, WhatAFormatDoesNotHaveIsRefused) {
  const RenderOptions on{.thinking = true}, off{.thinking = false};
  for (const char* name : {"v2", "v3", "v3-0324"}) {
    EXPECT_THAT(error_of(Code::kUnsupported,
                         [&] { ChatFormat::named(name).render(kThoughts, on, "", ""); }),
                HasSubstr("has no thoughts"));
  }
  for (const char* name : {"r1", "r1-0528"}) {
    EXPECT_THAT(error_of(Code::kUnsupported,
                         [&] { ChatFormat::named(name).render(kThoughts, off, "", ""); }),
                HasSubstr("always begins with thoughts"));
  }
  const Tool tools[] = {{"f", "", "{}"}};
  for (const ChatFormat& format :
       {ChatFormat::v2(), ChatFormat::recognise(v3_chat_template(), "t")}) {
    EXPECT_EQ(format.tools(), ToolForm::kNone);
    const auto refused = [&](std::span<const ChatMessage> messages, const RenderOptions& options) {
      EXPECT_THAT(error_of(Code::kUnsupported, [&] { format.render(messages, options, "", ""); }),
                  HasSubstr("has no calls of tools"));
    };
    refused(kTalk, {});
    refused(kThoughts, {.tools = tools});
    refused(std::span(kTalk.data() + 3, 1), {});
  }
}

TEST(ChatToolsTest, ToolsAreToldBehindTheSystemPrompt) {
  const Tool tools[] = {{"get_time", "Says the time.", R"({"type": "object"})"}, {"g", "", "{}"}};
  const std::string head =
      "\n\n## Tools\nYou have access to the following tools:\n\n### get_time\nDescription: Says "
      "the "
      "time.\n\nParameters: {\"type\": \"object\"}\n\n### g\nDescription: \n\nParameters: {}\n\n"
      "IMPORTANT: ALWAYS adhere to this exact format for tool use:\n";
  const ChatMessage system[] = {{"system", "S"}, {"user", "Q"}};
  EXPECT_THAT(
      ChatFormat::v3_1().render(system, {.tools = tools}, "<B>", ""),
      ::testing::AllOf(::testing::StartsWith(
                           "<B>S" + head +
                           "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>tool_call_name<｜tool▁sep｜>"
                           "tool_call_arguments<｜tool▁call▁end｜>{{additional_tool_calls}}"
                           "<｜tool▁calls▁end｜>\n\nWhere:\n"),
                       ::testing::EndsWith("<｜User｜>Q<｜Assistant｜></think>")));
  EXPECT_THAT(
      ChatFormat::v3().render(std::span(system + 1, 1), {.tools = tools}, "<B>", ""),
      ::testing::StartsWith(
          "<B>" + head +
          "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>tool_call_name\n"
          "```json\ntool_call_arguments\n```<｜tool▁call▁end｜>"));
}

TEST(ChatToolsTest, NamesOfTools) {
  for (const char* name : {"f", "get_weather-2", "A"}) EXPECT_TRUE(is_tool_name(name));
  EXPECT_TRUE(is_tool_name(std::string(64, 'x')));
  EXPECT_FALSE(is_tool_name(std::string(65, 'x')));
  for (const char* name : {"", "a b", "a\n", "é", "a.b", "<"}) EXPECT_FALSE(is_tool_name(name));
}

constexpr const char* kCall =
    R"({"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}})";

std::string called(const std::string& calls, const std::string& after = "") {
  return cat(R"([{"role": "assistant", "content": null, "tool_calls": )", calls, "}", after, "]");
}

TEST(ChatToolsTest, MessagesHaveCallsAndTheirResultsInOrder) {
  const auto messages = parse_messages(
      called(cat("[", kCall, R"(, {"id": "b", "function": {"name": "g", "arguments": "{"}}])"),
             R"(, {"role": "tool", "content": "2", "tool_call_id": "b"},
         {"role": "tool", "content": [{"type": "text", "text": "1"}], "tool_call_id": "a"},
         {"role": "user", "content": "x", "tool_calls": []})"));
  ASSERT_EQ(messages.size(), 4u);
  ASSERT_EQ(messages[0].tool_calls.size(), 2u);
  EXPECT_EQ(messages[0].content, "");
  EXPECT_EQ(messages[0].tool_calls[1].id, "b");
  EXPECT_EQ(messages[0].tool_calls[1].name, "g");
  EXPECT_EQ(messages[0].tool_calls[1].arguments, "{");  // as the model left it
  EXPECT_EQ(messages[1].content, "1");
  EXPECT_EQ(messages[2].content, "2");
  EXPECT_EQ(messages[2].tool_call_id, "b");
  // The last message's calls may wait for their results.
  EXPECT_EQ(parse_messages(called(cat("[", kCall, "]"))).size(), 1u);
}

TEST(ChatToolsTest, CallsAndResultsThatDoNotFitAreRefused) {
  const auto refused = [](const std::string& text) {
    return error_of(Code::kUsage, [&] { parse_messages(text); });
  };
  const std::string one = cat("[", kCall, "]");
  const std::string result = R"(, {"role": "tool", "content": "1", "tool_call_id": "a"})";
  EXPECT_THAT(refused(called(one, R"(, {"role": "user", "content": "x"})")),
              HasSubstr("has 1 tool calls, but 0 results"));
  EXPECT_THAT(refused(called(one, R"(, {"role": "tool", "content": "1", "tool_call_id": "z"})")),
              HasSubstr("message 1 is the result of no tool call"));
  EXPECT_THAT(refused(called(one, result + result)), HasSubstr("message 2 is a second result"));
  EXPECT_THAT(refused(called(one, R"(, {"role": "tool", "content": "1"})")),
              HasSubstr("needs the \"tool_call_id\""));
  EXPECT_THAT(refused(cat("[", result.substr(2), "]")), HasSubstr("no tool call stands before it"));
  EXPECT_THAT(refused(called(cat("[", kCall, ",", kCall, "]"))),
              HasSubstr("two tool calls of one"));
  EXPECT_THAT(refused(cat(R"([{"role": "user", "content": "x", "tool_calls": )", one, "}]")),
              HasSubstr("only an assistant's"));
  for (const char* calls :
       {"{}", "[1]", "[{}]", R"([{"id": ""}])", R"([{"id": "a"}])",
        R"([{"id": "a", "function": 1}])",
        R"([{"id": "a", "function": {"name": "a b", "arguments": ""}}])",
        R"([{"id": "a", "function": {"name": "f", "arguments": {}}}])",
        R"([{"id": "a", "type": "code", "function": {"name": "f", "arguments": ""}}])"}) {
    EXPECT_THAT(refused(called(calls)), HasSubstr("message 0: tool")) << calls;
  }
}

}  // namespace
}  // namespace cachalot::text
