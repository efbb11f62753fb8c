#include "serve/openai_members.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "serve/testing.h"

namespace cachalot::serve {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

void check(const std::string& member, const std::string& value, Endpoint endpoint) {
  check_members(parse_json_body(cat("{\"", member, "\": ", value, "}")), endpoint);
}
std::string refused(Code code, const std::string& member, const std::string& value,
                    Endpoint endpoint = Endpoint::kChat) {
  return testing::error_of(code, member, [&] { check(member, value, endpoint); });
}

TEST(ApiMembersTest, WhatChangesNothingIsPassedOverWhateverItHolds) {
  for (const char* member : {"user", "metadata", "store", "service_tier", "safety_identifier",
                             "prompt_cache_key", "prompt_cache_retention"}) {
    for (const char* value : {"null", "true", "\"x\"", "{\"a\": [1]}"}) {
      EXPECT_NO_THROW(check(member, value, Endpoint::kChat)) << member;
      EXPECT_NO_THROW(check(member, value, Endpoint::kCompletions)) << member;
    }
  }
}

TEST(ApiMembersTest, WhatCannotBeObeyedMustAskForNothing) {
  struct Case {
    const char* member;
    std::vector<const char*> nothing, something;
  };
  const Case kCases[] = {
      {"logit_bias", {"null", "{}"}, {R"({"5": 1})", "[]", "0"}},
      {"functions", {"null", "[]"}, {"[1]"}},
      {"function_call", {"null", "\"none\"", "\"auto\""}, {R"({"name": "f"})"}},
      {"modalities", {"null", "[\"text\"]"}, {"[\"text\", \"audio\"]", "[]", "\"text\""}},
      {"audio", {"null"}, {"{}"}},
      {"web_search_options", {"null"}, {"{}"}},
      {"reasoning_effort", {"null"}, {"\"low\"", "\"none\""}},
      {"verbosity", {"null", "\"medium\""}, {"\"low\""}},
  };
  for (const Case& c : kCases) {
    for (const char* value : c.nothing) {
      EXPECT_NO_THROW(check(c.member, value, Endpoint::kChat)) << c.member << value;
    }
    for (const char* value : c.something) {
      EXPECT_THAT(refused(Code::kUnsupported, c.member, value), HasSubstr("it must be null"));
    }
  }
  EXPECT_NO_THROW(check("suffix", "\"\"", Endpoint::kCompletions));
  refused(Code::kUnsupported, "suffix", "\"x\"", Endpoint::kCompletions);
  refused(Code::kUnsupported, "logit_bias", R"({"5": 1})", Endpoint::kCompletions);
}

TEST(ApiMembersTest, AnUnknownMemberIsToldTheNearest) {
  EXPECT_THAT(refused(Code::kUsage, "temprature", "1"),
              HasSubstr("unknown member \"temprature\"; did you mean \"temperature\"?"));
  EXPECT_THAT(refused(Code::kUsage, "max_token", "1"), HasSubstr("\"max_tokens\""));
  // Nearest among those of the endpoint.
  EXPECT_THAT(refused(Code::kUsage, "promt", "1", Endpoint::kCompletions), HasSubstr("\"prompt\""));
  EXPECT_THAT(refused(Code::kUsage, "guided_grammar", "1"), HasSubstr("leave it out"));
  const std::string odd = testing::error_of(Code::kUsage, "a?b", [] {
    check_members(parse_json_body(R"({"a\nb": 1})"), Endpoint::kChat);
  });
  EXPECT_THAT(odd, HasSubstr("\"a?b\""));
}

TEST(ApiMembersTest, ALongNameIsCut) {
  const std::string name(100'000, 'x');
  const std::string text = testing::error_of(Code::kUsage, std::string(60, 'x') + "...",
                                             [&] { check(name, "1", Endpoint::kChat); });
  EXPECT_LT(text.size(), 200u);
}

TEST(ApiMembersTest, AMemberOfTheOtherEndpointIsSentThere) {
  EXPECT_THAT(refused(Code::kUsage, "prompt", "\"x\""), HasSubstr("/v1/completions"));
  EXPECT_THAT(refused(Code::kUsage, "messages", "[]", Endpoint::kCompletions),
              HasSubstr("/v1/chat/completions"));
  for (const char* name : {"tools", "tool_choice", "parallel_tool_calls", "chat_template_kwargs"}) {
    EXPECT_THAT(refused(Code::kUsage, name, "[]", Endpoint::kCompletions),
                HasSubstr("/v1/chat/completions"));
  }
  EXPECT_NO_THROW(check("suffix", "null", Endpoint::kChat));
}

TEST(ApiMembersTest, SmallObjectsHaveNamesToo) {
  static constexpr std::string_view kNames[] = {"include_usage", "other"};
  EXPECT_NO_THROW(check_names({{"other", 1}}, kNames, "o.", "o"));
  EXPECT_THAT(testing::error_of(Code::kUsage, "o",
                                [] {
                                  check_names({{"include_use", 1}}, kNames, "o.", "o");
                                }),
              HasSubstr("unknown member \"o.include_use\"; did you mean \"include_usage\"?"));
}

}  // namespace
}  // namespace cachalot::serve
