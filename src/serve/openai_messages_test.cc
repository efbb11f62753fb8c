#include "serve/openai_messages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "serve/testing.h"

namespace cachalot::serve {
namespace {

using ::testing::HasSubstr;

std::vector<text::ChatMessage> read(const char* list) {
  return read_messages(BodyJson::parse(list));
}
std::string refused(const char* list, Code code = Code::kUsage) {
  return testing::error_of(code, "messages", [&] { read(list); });
}

TEST(ApiMessagesTest, ReadsRolesAndContent) {
  const auto messages = read(R"([
      {"role": "developer", "content": "be brief"},
      {"role": "system", "content": ""},
      {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
      {"role": "assistant", "content": "c"}])");
  ASSERT_EQ(messages.size(), 4u);
  EXPECT_EQ(messages[0].role, "system");
  EXPECT_EQ(messages[0].content, "be brief");
  EXPECT_EQ(messages[1].content, "");
  EXPECT_EQ(messages[2].role, "user");
  EXPECT_EQ(messages[2].content, "ab");
  EXPECT_EQ(messages[3].role, "assistant");
}

TEST(ApiMessagesTest, AnAnswerOfThisServerMayComeBackAsItWas) {
  const auto messages = read(R"([{"role": "assistant", "content": "c", "reasoning_content": "hm",
      "refusal": null, "annotations": [], "tool_calls": null, "audio": null, "name": "x"},
      {"role": "assistant", "content": "d", "tool_calls": []}])");
  ASSERT_EQ(messages.size(), 2u);
  EXPECT_EQ(messages[0].content, "c");
  EXPECT_EQ(messages[1].content, "d");
}

TEST(ApiMessagesTest, ReadsCallsAndTheirResults) {
  const auto messages = read(R"([
      {"role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": [
        {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
      {"role": "tool", "content": "4", "tool_call_id": "a", "name": "f"}])");
  ASSERT_EQ(messages.size(), 2u);
  ASSERT_EQ(messages[0].tool_calls.size(), 1u);
  EXPECT_EQ(messages[0].tool_calls[0].name, "f");
  EXPECT_EQ(messages[0].content, "");
  EXPECT_EQ(messages[1].role, "tool");
  EXPECT_EQ(messages[1].tool_call_id, "a");
}

TEST(ApiMessagesTest, RefusesCallsAndResultsOfAnotherForm) {
  EXPECT_THAT(refused(R"([{"role": "tool", "content": "4", "tool_call_id": "a"}])"),
              HasSubstr("no tool call stands before it"));
  EXPECT_THAT(refused(R"([{"role": "assistant", "tool_calls": [{"id": "a", "type": "function",
                  "function": {"name": "f", "arguments": {}}}]}])"),
              HasSubstr("\"arguments\" that are a string"));
  EXPECT_THAT(refused(R"([{"role": "assistant", "tool_calls": [{"ids": "a"}]}])"),
              HasSubstr("unknown member \"messages[0].tool_calls[0].ids\"; did you mean \"id\"?"));
  EXPECT_THAT(refused(R"([{"role": "assistant", "tool_calls": [{"function": {"nome": "a"}}]}])"),
              HasSubstr("tool_calls[0].function.nome"));
  EXPECT_THAT(refused(R"([{"role": "user", "content": "x", "tool_call_id": "a"}])"),
              HasSubstr("which only the role \"tool\" has"));
  refused(R"([{"role": "assistant", "content": null, "tool_calls": []}])");
}

TEST(ApiMessagesTest, RefusesWhatIsNoText) {
  for (const char* list :
       {R"([{"role": "function", "content": "4"}])",
        R"([{"role": "assistant", "content": "", "function_call": {"name": "f"}}])",
        R"([{"role": "assistant", "content": "", "refusal": "no"}])",
        R"([{"role": "assistant", "content": "Sure: ", "prefix": true}])",
        R"([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}])"}) {
    EXPECT_THAT(refused(list, Code::kUnsupported), HasSubstr("support")) << list;
  }
}

TEST(ApiMessagesTest, RefusesOtherForms) {
  EXPECT_THAT(refused("[]"), HasSubstr("at least one"));
  EXPECT_THAT(refused("{}"), HasSubstr("messages is an object"));
  EXPECT_THAT(refused(R"(["Hi"])"), HasSubstr("messages[0] is \"Hi\""));
  EXPECT_THAT(refused(R"([{"content": "Hi"}])"), HasSubstr("messages[0] needs a \"role\""));
  EXPECT_THAT(refused(R"([{"role": 1, "content": "Hi"}])"), HasSubstr("needs a \"role\""));
  EXPECT_THAT(refused(R"([{"role": "us\u001ber", "content": "Hi"}])"), HasSubstr("\"us?er\""));
  EXPECT_THAT(refused(R"([{"role": "user", "content": "a"}, {"role": "user"}])"),
              HasSubstr("message 1 needs a \"content\""));
  refused(R"([{"role": "user", "content": null}])");
  refused(R"([{"role": "user", "content": 5}])");
  EXPECT_THAT(refused(R"([{"role": "user", "contents": "a"}])"),
              HasSubstr("unknown member \"messages[0].contents\"; did you mean \"content\"?"));
}

}  // namespace
}  // namespace cachalot::serve
