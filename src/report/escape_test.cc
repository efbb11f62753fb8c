#include "report/escape.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace cachalot::report {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

const std::string kReplaced = "\xEF\xBF\xBD";

TEST(EscapeHtmlTest, EveryCharacterThatMeansSomething) {
  EXPECT_EQ("&lt;b onclick=&quot;x&quot;&gt;&amp;amp;&#39;", html("<b onclick=\"x\">&amp;'"));
  EXPECT_EQ("&lt;/script&gt;&lt;!--", html("</script><!--"));
  EXPECT_EQ("plain: 1.5 GB, 10 %\tb\nc", html("plain: 1.5 GB, 10 %\tb\nc"));
  EXPECT_EQ("", html(""));
}

TEST(EscapeHtmlTest, OtherLanguagesStay) {
  for (const std::string text : {"Größe", "模型", "кашалот", "🐋", "e\xCC\x81"})
    EXPECT_EQ(text, html(text));
}

TEST(EscapeHtmlTest, BytesThatAreNoTextAreReplaced) {
  EXPECT_EQ("a" + kReplaced + "b", html("a\xFF"
                                        "b"));
  EXPECT_THAT(html("\xC0\xBCscript>"), Not(HasSubstr("\xC0")));       // overlong '<'
  EXPECT_THAT(html("\xED\xA0\x80"), Not(HasSubstr("\xED\xA0\x80")));  // half of a pair
  EXPECT_EQ("x" + kReplaced, html("x\xE2\x80"));                      // cut off
}

TEST(EscapeHtmlTest, ControlAndDirectionCharactersAreReplaced) {
  EXPECT_EQ("a" + kReplaced + "b", html(std::string("a\0b", 3)));
  EXPECT_EQ(kReplaced + kReplaced, html("\x1B\x7F"));
  EXPECT_EQ(kReplaced + "[31m", html("\xC2\x9B[31m"));
  EXPECT_EQ("v3" + kReplaced + "gpj", html("v3\xE2\x80\xAEgpj"));
  EXPECT_EQ(kReplaced + kReplaced, html("\xE2\x81\xA6\xE2\x80\x8F"));
  EXPECT_EQ("\xE2\x80\x94 \xE2\x82\xAC",
            html("\xE2\x80\x94 \xE2\x82\xAC"));  // their neighbours stay
}

TEST(ScriptJsonTest, NothingEndsTheScript) {
  const Json value = {{"</script><script>alert(1)</script>", "<!-- ]]> & &lt; \" ' \\ </SCRIPT"}};
  const std::string text = script_json(value);
  for (const char c : {'<', '>', '&'}) EXPECT_THAT(text, Not(HasSubstr(std::string(1, c))));
  EXPECT_EQ(value, Json::parse(text));
}

TEST(ScriptJsonTest, LineSeparatorsAndOtherLanguagesAreAsciiAndComeBack) {
  const Json value = {
      {"a", "x\xE2\x80\xA8y\xE2\x80\xA9z"}, {"b", "模型 🐋"}, {"c", std::string("\0", 1)}};
  const std::string text = script_json(value);
  for (const char c : text) EXPECT_TRUE(c >= 0x20 && c < 0x7F) << text;
  EXPECT_THAT(text, HasSubstr("\\u2028"));
  EXPECT_EQ(value, Json::parse(text));
}

TEST(ScriptJsonTest, NumbersAreThoseOfPlainJson) {
  const Json value = {
      {"x", 0.1 + 0.2}, {"n", 9007199254740993}, {"none", nullptr}, {"list", {1, 2.5}}};
  EXPECT_EQ(value, Json::parse(script_json(value)));
  EXPECT_EQ(value.dump(), script_json(value));
}

TEST(ScriptJsonTest, BytesThatAreNoTextDoNotThrow) {
  EXPECT_EQ("\"a\\ufffd\"", script_json(Json("a\xFF")));
}

}  // namespace
}  // namespace cachalot::report
