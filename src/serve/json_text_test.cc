#include "serve/json_text.h"

#include <gtest/gtest.h>

#include "serve/json_body.h"

namespace cachalot::serve {
namespace {

using Texts = std::map<std::string, std::string>;

TEST(JsonTextTest, WritesWhatStandsAtItsPathsAndNothingElse) {
  const JsonPath paths[] = {{"a"}, {"b", "[]", "c"}};
  EXPECT_EQ(ordered_texts(R"({"x":{"a":1},"b":[{"c":[]},{"d":2},{"c":{"z":1,"a":[1,2]}}],"a":"q"})",
                          paths),
            (Texts{{"a", "\"q\""}, {"b[0].c", "[]"}, {"b[2].c", R"({"z": 1, "a": [1, 2]})"}}));
  EXPECT_EQ(ordered_texts(R"({"b":{"c":1},"c":[[1]]})", paths), Texts());
}

TEST(JsonTextTest, ValuesStayWhatTheyWere) {
  const JsonPath paths[] = {{"v"}};
  for (const std::string value :
       {"null", "true", "false", "0", "-1", "18446744073709551615", "1.10", "1e5", "-0.0", "\"\"",
        R"("\"\\\n\u0001")", "\"é\"", "{}", "[]", R"({"a": {"b": [[], {}, [null]]}, "": 1})"}) {
    const Texts texts = ordered_texts("{\"v\": " + value + "}", paths);
    EXPECT_EQ(texts.at("v"), value);
    EXPECT_EQ(BodyJson::parse(texts.at("v")), BodyJson::parse(value));
  }
  EXPECT_EQ(ordered_texts("{\"v\":[ 1 ,\n2 ]}", paths).at("v"), "[1, 2]");
  EXPECT_EQ(ordered_texts(R"({"\u0076": 1})", paths).at("v"), "1");
}

}  // namespace
}  // namespace cachalot::serve
