#include "text/conversation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "testing/error_of.h"

namespace cachalot::text {
namespace {

using cachalot::testing::error_of;
using ::testing::HasSubstr;

constexpr std::string_view kEos = "<｜end▁of▁sentence｜>";

std::string refusal(std::string_view line, Code code = Code::kUsage) {
  SCOPED_TRACE(line);
  return error_of(code, [&] { parse_conversation(line); });
}

std::string one_message(const std::string& members) {
  return cat(R"({"messages": [{)", members, "}]}");
}

TEST(ParseConversationTest, ReadsMessagesAndWhichAreLearnt) {
  const Conversation c = parse_conversation(
      R"({"messages": [{"role": "developer", "content": "S"},
          {"role": "user", "content": "Q", "name": "Ann"},
          {"role": "assistant", "content": "A", "weight": 0, "refusal": null},
          {"role": "user", "content": [{"type": "text", "text": "Q2"}], "weight": null},
          {"role": "assistant", "content": "A2", "weight": 1},
          {"role": "assistant", "content": "A3", "annotations": []}],
          "parallel_tool_calls": false, "tools": null, "functions": []})");
  ASSERT_EQ(c.messages.size(), 6u);
  EXPECT_EQ(c.messages[0].role, "system");
  EXPECT_EQ(c.messages[3].content, "Q2");
  EXPECT_EQ(c.learnt, (std::vector<bool>{false, false, false, false, true, true}));
  EXPECT_TRUE(c.tools.empty());
}

TEST(ParseConversationTest, ReadsPromptAndCompletion) {
  const Conversation c = parse_conversation(R"({"completion": "b\u0000", "prompt": ""})");
  EXPECT_TRUE(c.messages.empty());
  EXPECT_EQ(c.prompt, "");
  EXPECT_EQ(c.completion, std::string_view("b\0", 2));
}

TEST(ParseConversationTest, ThoughtsStandBeforeTheContent) {
  const Conversation c = parse_conversation(
      R"({"messages": [{"role": "user", "content": "Q", "reasoning_content": null},
          {"role": "assistant", "content": "A", "reasoning_content": "hm"},
          {"role": "assistant", "content": "x</think>A", "reasoning_content": "hm"},
          {"role": "assistant", "content": "A", "reasoning_content": ""},
          {"role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls":
           [{"id": "a", "function": {"name": "f", "arguments": "{}"}}]}]})");
  EXPECT_EQ(c.messages[1].content, "<think>\nhm\n</think>\n\nA");
  EXPECT_EQ(c.messages[2].content, "x</think>A");  // it has thoughts already
  EXPECT_EQ(c.messages[3].content, "A");
  EXPECT_EQ(c.messages[4].content, "<think>\nhm\n</think>\n\n");
  EXPECT_EQ(c.messages[4].tool_calls.size(), 1u);
}

TEST(ParseConversationTest, ToolsAreWrittenOnOneLineInTheirOrder) {
  const Conversation c = parse_conversation(
      R"({"messages": [{"role": "user", "content": "Q"}], "tools": [
          {"type": "function", "function": {"name": "f", "description": "Does.", "strict": true,
           "parameters": {"type":"object","properties":{"z":{"type":"string"},
                          "a":{"enum":[1,2.5,null,"\u00e9\n"]}},"required":[]}}},
          {"function": {"parameters": null, "name": "g"}, "type": "function"}]})");
  ASSERT_EQ(c.tools.size(), 2u);
  EXPECT_EQ(c.tools[0].name, "f");
  EXPECT_EQ(c.tools[0].description, "Does.");
  EXPECT_TRUE(c.tools[0].strict);
  EXPECT_EQ(c.tools[0].parameters, R"({"type": "object", "properties": {"z": {"type": "string"}, )"
                                   R"("a": {"enum": [1, 2.5, null, "é\n"]}}, "required": []})");
  EXPECT_EQ(c.tools[1].parameters, R"({"type": "object", "properties": {}})");
  EXPECT_EQ(c.tools[1].description, "");
  EXPECT_FALSE(c.tools[1].strict);
}

TEST(ParseConversationTest, LinesOfAnotherFormAreRefused) {
  EXPECT_THAT(refusal(""), HasSubstr("not JSON"));
  EXPECT_THAT(refusal(R"({"messages": [)"), HasSubstr("from byte"));
  EXPECT_THAT(refusal("\xFF"), HasSubstr("not UTF-8"));
  EXPECT_THAT(refusal(std::string(100, '[')), HasSubstr("deep"));
  EXPECT_THAT(refusal("[]"), HasSubstr("must be a JSON object"));
  EXPECT_THAT(refusal("{}"), HasSubstr("no \"messages\""));
  EXPECT_THAT(refusal(R"({"message": []})"), HasSubstr("did you mean \"messages\"?"));
  EXPECT_THAT(refusal(R"({"text": "x"})"), HasSubstr("unknown member \"text\""));
  EXPECT_THAT(refusal(R"({"messages": [], "messages": []})"), HasSubstr("there twice"));
  EXPECT_THAT(refusal(R"({"messages": []})"), HasSubstr("at least one"));
  EXPECT_THAT(refusal(R"({"messages": 1})"), HasSubstr("must be a list"));
  EXPECT_THAT(refusal(R"({"tools": []})"), HasSubstr("no \"messages\""));
  EXPECT_THAT(refusal(R"({"prompt": "a"})"), HasSubstr("needs a \"completion\""));
  EXPECT_THAT(refusal(R"({"completion": "a"})"), HasSubstr("needs a \"prompt\""));
  EXPECT_THAT(refusal(R"({"prompt": [], "completion": "a"})"), HasSubstr("that is a string"));
  for (const char* other : {"messages", "tools", "functions", "parallel_tool_calls"}) {
    EXPECT_THAT(refusal(cat(R"({"prompt": "a", "completion": "b", ")", other, R"(": []})")),
                HasSubstr("mixes two forms"));
  }
  EXPECT_THAT(refusal(R"({"messages": [], "functions": [{}]})", Code::kUnsupported),
              HasSubstr("write \"tools\""));
  std::string many = R"({"messages": [{"role": "user", "content": "x")";
  for (int i = 0; i < 4100; ++i) many += cat(", \"m", i, "\": 0");
  EXPECT_THAT(refusal(many + "}]}"), HasSubstr("more than 4096 members"));
}

TEST(ParseConversationTest, MessagesOfAnotherFormAreRefused) {
  EXPECT_THAT(refusal(R"({"messages": [1]})"), HasSubstr("message 0 must be an object"));
  EXPECT_THAT(refusal(one_message(R"("content": "x")")), HasSubstr("\"role\""));
  EXPECT_THAT(refusal(one_message(R"("role": "narra\ttor", "content": "x")")),
              HasSubstr("role \"narra?tor\""));
  EXPECT_THAT(refusal(one_message(R"("role": "user")")), HasSubstr("\"content\""));
  EXPECT_THAT(refusal(one_message(R"("role": "user", "content": "x", "weight": 1)")),
              HasSubstr("only an assistant"));
  for (const char* weight : {"2", "-1", "0.5", "1.0", "true", "\"1\"", "18446744073709551615"}) {
    EXPECT_THAT(
        refusal(one_message(cat(R"("role": "assistant", "content": "x", "weight": )", weight))),
        HasSubstr("neither 0 nor 1"));
  }
  const auto with = [](const std::string& member, const char* role = "assistant") {
    return one_message(cat(R"("role": ")", role, R"(", "content": "x", )", member));
  };
  EXPECT_THAT(refusal(with(R"("wieght": 0)")), HasSubstr("did you mean \"weight\"?"));
  EXPECT_THAT(refusal(with(R"("reasoning_content": 1)")), HasSubstr("a string"));
  EXPECT_THAT(refusal(with(R"("reasoning_content": "hm")", "user")), HasSubstr("only an assist"));
  EXPECT_THAT(refusal(with(R"("reasoning_content": "a</think>b")")), HasSubstr("ends thoughts"));
  EXPECT_THAT(refusal(with(R"("reasoning": "hm")"), Code::kUnsupported),
              HasSubstr("write \"reasoning_content\""));
  EXPECT_THAT(refusal(with(R"("function_call": {})"), Code::kUnsupported),
              HasSubstr("write \"tool_calls\""));
  EXPECT_THAT(refusal(with(R"("tool_calls": 1)")), HasSubstr("must be a list"));
  EXPECT_THAT(refusal(one_message(R"("role": "tool", "content": "x", "tool_call_id": "a")")),
              HasSubstr("no tool call stands before it"));
}

TEST(ParseConversationTest, ToolsOfAnotherFormAreRefused) {
  const auto tools = [](const std::string& list, Code code = Code::kUsage) {
    return refusal(cat(R"({"messages": [{"role": "user", "content": "x"}], "tools": )", list, "}"),
                   code);
  };
  const auto function = [&](const std::string& text) {
    return tools(cat(R"([{"type": "function", "function": )", text, "}]"));
  };
  EXPECT_THAT(tools("{}"), HasSubstr("must be a list"));
  EXPECT_THAT(tools("[1]"), HasSubstr("tool 0 needs to be"));
  EXPECT_THAT(tools("[{}]"), HasSubstr("\"type\""));
  EXPECT_THAT(tools(R"([{"type": "web_search"}])", Code::kUnsupported), HasSubstr("web_search"));
  EXPECT_THAT(tools(R"([{"typ": "function"}])"), HasSubstr("did you mean \"type\"?"));
  EXPECT_THAT(function("1"), HasSubstr("needs a \"function\""));
  EXPECT_THAT(function(R"({"name": "a b"})"), HasSubstr("1 to 64 letters"));
  EXPECT_THAT(function(R"({"description": "d"})"), HasSubstr("1 to 64 letters"));
  EXPECT_THAT(function(R"({"name": "f", "description": 1})"), HasSubstr("description"));
  EXPECT_THAT(function(R"({"name": "f", "strict": 1})"), HasSubstr("true or false"));
  EXPECT_THAT(function(R"({"name": "f", "parameters": []})"), HasSubstr("an object"));
  EXPECT_THAT(function(R"({"name": "f", "parmeters": {}})"), HasSubstr("\"parameters\"?"));
  const std::string f = R"({"type": "function", "function": {"name": "f"}})";
  EXPECT_THAT(tools(cat("[", f, ", ", f, "]")), HasSubstr("two tools are named \"f\""));
}

Conversation talk(std::vector<ChatMessage> messages) {
  Conversation c;
  for (const ChatMessage& m : messages) c.learnt.push_back(m.role == "assistant");
  c.messages = std::move(messages);
  return c;
}

std::vector<Sample> samples(const Conversation& c, const ChatFormat& format,
                            std::string_view eos = kEos) {
  return samples_of(c, &format, "<B>", eos);
}

TEST(SamplesOfTest, TurnsGoOnInOneSample) {
  const Conversation c = talk({{"system", "S"},
                               {"user", "Q1"},
                               {"assistant", "A1"},
                               {"user", "Q2"},
                               {"assistant", "A2"},
                               {"user", "Q3"}});
  EXPECT_EQ(samples(c, ChatFormat::v3()),
            (std::vector<Sample>{{{"<B>S<｜User｜>Q1<｜Assistant｜>", false},
                                  {cat("A1", kEos), true},
                                  {"<｜User｜>Q2<｜Assistant｜>", false},
                                  {cat("A2", kEos), true}}}));
  EXPECT_EQ(samples(c, ChatFormat::v3_1()),
            (std::vector<Sample>{{{"<B>S<｜User｜>Q1<｜Assistant｜></think>", false},
                                  {cat("A1", kEos), true},
                                  {"<｜User｜>Q2<｜Assistant｜></think>", false},
                                  {cat("A2", kEos), true}}}));
  EXPECT_EQ(samples(c, ChatFormat::v2(), "<E>"),
            (std::vector<Sample>{{{"<B>S\n\nUser: Q1\n\nAssistant:", false},
                                  {" A1<E>", true},
                                  {"User: Q2\n\nAssistant:", false},
                                  {" A2<E>", true}}}));
}

TEST(SamplesOfTest, AnAnswerWithoutWeightIsRead) {
  Conversation c = talk({{"user", "Q1"}, {"assistant", "A1"}, {"user", "Q2"}, {"assistant", "A2"}});
  c.learnt[1] = false;
  EXPECT_EQ(
      samples(c, ChatFormat::v3()),
      (std::vector<Sample>{
          {{cat("<B><｜User｜>Q1<｜Assistant｜>A1", kEos, "<｜User｜>Q2<｜Assistant｜>"), false},
           {cat("A2", kEos), true}}}));
  c.learnt[3] = false;
  EXPECT_TRUE(samples(c, ChatFormat::v3()).empty());
}

// R1 drops the thoughts of A1, so the second answer's prompt is another text. The empty line behind
// them is not in it either: what a client was sent begins with A1.
TEST(SamplesOfTest, DroppedThoughtsBeginANewSample) {
  const Conversation c = talk({{"user", "Q1"},
                               {"assistant", "<think>\nhm\n</think>\n\nA1"},
                               {"user", "Q2"},
                               {"assistant", "A2"}});
  const std::string history = cat("Q1<｜Assistant｜>A1", kEos, "<｜User｜>Q2<｜Assistant｜>");
  EXPECT_EQ(samples(c, ChatFormat::r1()),
            (std::vector<Sample>{{{"<B><｜User｜>Q1<｜Assistant｜><think>\n", false},
                                  {cat("hm\n</think>\n\nA1", kEos), true}},
                                 {{cat("<B><｜User｜>", history, "<think>\n"), false},
                                  {cat("\n</think>\n\nA2", kEos), true}}}));
  EXPECT_EQ(
      samples(c, ChatFormat::r1_0528()),
      (std::vector<Sample>{{{"<B><｜User｜>Q1<｜Assistant｜>", false},
                            {cat("<think>\nhm\n</think>\n\nA1", kEos), true}},
                           {{cat("<B><｜User｜>", history), false}, {cat("A2", kEos), true}}}));
  // V3.1 is asked for thoughts where an answer has them.
  EXPECT_EQ(samples(c, ChatFormat::v3_1()),
            (std::vector<Sample>{{{"<B><｜User｜>Q1<｜Assistant｜><think>", false},
                                  {cat("\nhm\n</think>\n\nA1", kEos), true}},
                                 {{cat("<B><｜User｜>Q1<｜Assistant｜></think>A1", kEos,
                                       "<｜User｜>Q2<｜Assistant｜></think>"),
                                   false},
                                  {cat("A2", kEos), true}}}));
  // V3 knows no thoughts: they are text like any other.
  EXPECT_EQ(samples(c, ChatFormat::v3()).size(), 1u);
}

TEST(SamplesOfTest, CallsAreLearntAndResultsAreRead) {
  Conversation c = talk({{"user", "Q"},
                         {"assistant", "<think>hm</think>", {{"a", "f", "{}"}}},
                         {"tool", "R", {}, "a"},
                         {"assistant", "A"}});
  c.tools = {{"f", "", "{}"}};
  const std::string calls =
      cat("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜>"
          "<｜tool▁calls▁end｜>",
          kEos);
  const std::string told = cat("<B>\n\n", tools_text(c.tools, ToolForm::kV31), "<｜User｜>Q");
  EXPECT_EQ(
      samples(c, ChatFormat::v3_1()),
      (std::vector<Sample>{{{told + "<｜Assistant｜><think>", false}, {"hm</think>" + calls, true}},
                           {{cat(told, "<｜Assistant｜></think>", calls,
                                 "<｜tool▁output▁begin｜>R<｜tool▁output▁end｜>"),
                             false},
                            {cat("A", kEos), true}}}));
  c.messages[1].content = "";
  EXPECT_EQ(samples(c, ChatFormat::v3_1()),
            (std::vector<Sample>{{{told + "<｜Assistant｜></think>", false},
                                  {calls, true},
                                  {"<｜tool▁output▁begin｜>R<｜tool▁output▁end｜>", false},
                                  {cat("A", kEos), true}}}));
  error_of(Code::kUnsupported, [&] { samples(c, ChatFormat::v2(), "<E>"); });
}

// V3.1 opens nothing between two answers: they are learnt one behind the other.
TEST(SamplesOfTest, AnswersInARowStayPiecesOfTheirOwn) {
  const Conversation c = talk({{"assistant", "A1"}, {"assistant", "A2"}});
  const ChatFormat format = ChatFormat::v3_1();
  EXPECT_EQ(samples_of(c, &format, "", kEos),
            (std::vector<Sample>{{{cat("A1", kEos), true}, {cat("A2", kEos), true}}}));
}

TEST(SamplesOfTest, PromptAndCompletionNeedNoFormat) {
  Conversation c;
  c.prompt = "P";
  c.completion = "C";
  EXPECT_EQ(samples_of(c, nullptr, "<B>", "<E>"),
            (std::vector<Sample>{{{"<B>P", false}, {"C<E>", true}}}));
  c.prompt.clear();
  c.completion.clear();
  EXPECT_EQ(samples_of(c, nullptr, "", "<E>"), (std::vector<Sample>{{{"<E>", true}}}));
}

TEST(SamplesOfTest, WhatCannotBeLearntIsRefused) {
  const Conversation c = talk({{"user", "Q"}, {"assistant", "A"}});
  EXPECT_THAT(error_of(Code::kUnsupported, [&] { samples_of(c, nullptr, "", kEos); }),
              HasSubstr("need none"));
  EXPECT_THAT(error_of(Code::kUnsupported, [&] { samples(c, ChatFormat::v3(), ""); }),
              HasSubstr("eos_token"));
  EXPECT_THAT(error_of(Code::kUnsupported, [&] { samples(c, ChatFormat::v3(), "<E>"); }),
              HasSubstr("end-of-sentence token is <E>"));
  const Conversation many = talk(std::vector<ChatMessage>(4097, {"user", "Q"}));
  EXPECT_THAT(error_of(Code::kUsage, [&] { samples(many, ChatFormat::v3()); }),
              HasSubstr("4097 messages, but at most 4096"));
  const Conversation large =
      talk({{"user", std::string(32 << 20, 'x')}, {"assistant", ""}, {"assistant", ""}});
  EXPECT_THAT(error_of(Code::kUsage, [&] { samples(large, ChatFormat::v3()); }),
              HasSubstr("more than 64 MiB"));
}

}  // namespace
}  // namespace cachalot::text
