#include "text/strict_json.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace cachalot::text {
namespace {

using Json = nlohmann::json;

class Check final : public StrictJsonCheck<Json> {
 public:
  std::string twice;

 private:
  void refuse_twice(const std::string& name) override { twice = name; }
};

std::string refusal(std::string_view text) {
  try {
    require_json_text(text, "the body");
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kUsage);
    return e.what();
  }
  return "";
}

TEST(StrictJson, LooksAtTheTextFirst) {
  EXPECT_EQ(refusal("{\"a\": [1, \"\u00e4\"]}"), "");
  EXPECT_EQ(refusal(""), "");  // what is no JSON is for the parser to say
  EXPECT_EQ(refusal("ab\xFF"), "the body is not UTF-8: byte 3 of 3 begins no character");
  EXPECT_EQ(refusal(std::string_view("{}\0x", 4)), "the body is not JSON: byte 3 of 4 is NUL");
  EXPECT_NE(refusal(std::string(100, '[')), "");
}

TEST(StrictJson, FindsMembersThatComeTwiceInOneObject) {
  for (const char* text : {R"({"a": {"a": 1, "b": [{"a": 2}, {"a": 3}]}, "b": 1})", "[]", "1"}) {
    Check check;
    EXPECT_TRUE(Json::sax_parse(text, &check));
    EXPECT_EQ(check.twice, "") << text;
  }
  Check check;
  EXPECT_TRUE(Json::sax_parse(R"({"a": [{"b": 1, "c": 2.5, "b": null}]})", &check));
  EXPECT_EQ(check.twice, "b");
}

TEST(StrictJson, SaysWhereAParserStopped) {
  Check check;
  EXPECT_FALSE(Json::sax_parse(R"({"a": tru})", &check));
  EXPECT_EQ(check.at(), 10u);
}

TEST(StrictJson, ShowsWhatStrangersWrote) {
  EXPECT_EQ(shown_text("a\tb", 60), "a?b");
  EXPECT_EQ(shown_text("\u00e4\u00f6\u00fc", 2), "\u00e4\u00f6...");
  EXPECT_EQ(shown_text("", 2), "");
}

}  // namespace
}  // namespace cachalot::text
