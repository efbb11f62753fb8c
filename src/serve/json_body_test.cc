#include "serve/json_body.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "serve/testing.h"
#include "text/utf8.h"

namespace cachalot::serve {
namespace {

using ::testing::HasSubstr;

std::string refused(std::string_view body, const std::string& param = "") {
  return testing::error_of(Code::kUsage, param, [&] { parse_json_body(body); });
}

TEST(JsonBodyTest, ReadsAnObject) {
  EXPECT_EQ(parse_json_body(R"( {"a": [1, {"a": 2}], "b": "é"} )")["b"], "é");
  EXPECT_TRUE(parse_json_body("{}").empty());
}

TEST(JsonBodyTest, SaysWhereItStopsBeingJson) {
  EXPECT_THAT(refused(R"({"a": x})"), HasSubstr("byte 7 of 8"));
  EXPECT_THAT(refused("{\"a\": \"\xFF\"}"), HasSubstr("not UTF-8: byte 8 of 10"));
  for (const char* body : {"", " ", "{", "{}x", R"({"a": 1,})", R"({"a": NaN})", R"({"a": 1e999})",
                           R"({"a": "\ud800"})", "{\"a\": \"\n\"}", "{'a': 1}"}) {
    EXPECT_THAT(refused(body), HasSubstr("not JSON")) << body;
  }
  EXPECT_THAT(refused(std::string_view("{}\0", 3)), HasSubstr("not JSON"));
}

TEST(JsonBodyTest, OnlyAnObjectWillDo) {
  EXPECT_THAT(refused("[1, 2]"), HasSubstr("a list of 2 values, but it must be a JSON object"));
  EXPECT_THAT(refused("null"), HasSubstr("null"));
  EXPECT_THAT(refused("\"{}\""), HasSubstr("must be a JSON object"));
}

TEST(JsonBodyTest, RefusesAMemberThatIsThereTwice) {
  EXPECT_THAT(refused(R"({"n": 1, "m": 2, "n": 1})", "n"), HasSubstr("\"n\" is there twice"));
  EXPECT_THAT(refused(R"({"a": [{"x": 1, "\u0078": 2}]})", "x"), HasSubstr("twice"));
  // The same name in objects beside and within each other is fine.
  EXPECT_NO_THROW(parse_json_body(R"({"a": {"a": 1}, "b": [{"a": 1}, {"a": 1}]})"));
}

TEST(JsonBodyTest, RefusesWhatLiesTooDeep) {
  const std::string deep(100'000, '[');
  EXPECT_THAT(refused("{\"a\": " + deep), HasSubstr("deep"));
  // 63 lists in the object are 64 levels, which is as deep as it may be.
  const std::string most = "{\"a\": " + std::string(63, '[') + std::string(63, ']') + "}";
  EXPECT_NO_THROW(parse_json_body(most));
  EXPECT_THAT(refused("{\"a\": [" + most + "]}"), HasSubstr("deep"));
}

TEST(JsonBodyTest, ManyMembersAreNoTroubleToFind) {
  std::string body = "{\"m0\": 0";
  for (int i = 1; i < 100'000; ++i) body += cat(",\"m", i, "\":0");
  EXPECT_EQ(parse_json_body(body + "}").size(), 100'000u);
}

TEST(JsonBodyTest, ShowsStrangersTextCutAndCleaned) {
  EXPECT_EQ(shown("hot"), "\"hot\"");
  EXPECT_EQ(shown("a\x1B[31m\n\x7F"), "\"a?[31m??\"");
  const std::string long_text = shown_text(std::string(1000, 'x'));
  EXPECT_EQ(long_text, std::string(60, 'x') + "...");
  std::string wide;
  for (int i = 0; i < 100; ++i) wide += "é";
  EXPECT_TRUE(text::is_valid_utf8(shown_text(wide)));
  EXPECT_EQ(shown_text(wide).size(), 60 * 2 + 3u);
  EXPECT_EQ(shown(BodyJson::parse("2.5")), "2.5");
  EXPECT_EQ(shown(BodyJson::parse("true")), "true");
  EXPECT_EQ(shown(BodyJson::parse("[1]")), "a list of 1 value");
  EXPECT_EQ(shown(BodyJson::parse("{\"a\": 1}")), "an object");
}

TEST(JsonBodyTest, AFloatIsAWholeNumberWhereItIsExact) {
  const auto read = [](const char* text) {
    return whole_number(BodyJson::parse(text), INT64_MIN, INT64_MAX);
  };
  EXPECT_EQ(read("3"), 3);
  EXPECT_EQ(read("-3"), -3);
  EXPECT_EQ(read("3.0"), 3);
  EXPECT_EQ(read("1e3"), 1000);
  EXPECT_EQ(read("-0.0"), 0);
  EXPECT_EQ(read("9007199254740992.0"), std::int64_t{1} << 53);
  EXPECT_EQ(read("9223372036854775807"), INT64_MAX);
  EXPECT_EQ(read("-9223372036854775808"), INT64_MIN);
  for (const char* text : {"3.5", "1e300", "9007199254740994.0", "9223372036854775808",
                           "-9223372036854775809", "true", "\"3\"", "null", "[3]"}) {
    EXPECT_EQ(read(text), std::nullopt) << text;
  }
  EXPECT_EQ(whole_number(BodyJson(5), 0, 4), std::nullopt);
  EXPECT_EQ(whole_number(BodyJson(-1), 0, 4), std::nullopt);
  EXPECT_EQ(whole_number(BodyJson(4u), 0, 4), 4);
}

TEST(JsonBodyTest, MembersAreCheckedAsTheyAreRead) {
  const BodyJson json =
      parse_json_body(R"({"no": null, "yes": true, "word": "w", "three": 3, "half": 0.5})");
  const Members members(json);
  EXPECT_EQ(members.find("no"), nullptr);
  EXPECT_EQ(members.find("missing"), nullptr);
  EXPECT_TRUE(members.flag("yes", false));
  EXPECT_TRUE(members.flag("no", true));
  EXPECT_EQ(members.text("word"), "w");
  EXPECT_EQ(members.whole("three", 0, 3), 3);
  EXPECT_EQ(members.whole("missing", 0, 3), std::nullopt);
  EXPECT_EQ(members.number("half", 1, 0, 1), 0.5);
  EXPECT_EQ(members.number("three", 1, 0, 3), 3);
  EXPECT_EQ(members.number("missing", 7, 0, 1), 7);
  const auto refused = [](const std::string& name, auto&& run) {
    return testing::error_of(Code::kUsage, name, run);
  };
  EXPECT_EQ(refused("three", [&] { members.flag("three", false); }),
            "three is 3, but it must be true or false");
  EXPECT_EQ(refused("yes", [&] { members.text("yes"); }), "yes is true, but it must be a string");
  EXPECT_EQ(refused("three", [&] { members.whole("three", 0, 2); }),
            "three is 3, but it must be a whole number, 0 to 2");
  EXPECT_EQ(refused("word", [&] { members.number("word", 0, 0, 1); }),
            "word is \"w\", but it must be a number, 0 to 1");
  EXPECT_EQ(refused("yes", [&] { members.number("yes", 0, 0, 1); }),
            "yes is true, but it must be a number, 0 to 1");
}

}  // namespace
}  // namespace cachalot::serve
