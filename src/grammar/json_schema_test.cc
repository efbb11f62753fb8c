#include "grammar/json_schema.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/error.h"
#include "grammar/accepts.h"
#include "grammar/automaton.h"
#include "grammar/json_rules.h"

namespace cachalot::grammar {
namespace {

using Texts = std::vector<std::string>;

void expect(const std::string& schema, const Texts& yes, const Texts& no) {
  SCOPED_TRACE(schema);
  Grammar g;
  g.set_root(add_json_schema(g, schema));
  const Automaton automaton = compile(g);
  for (const std::string& text : yes) EXPECT_TRUE(accepts(automaton, text)) << text;
  for (const std::string& text : no) EXPECT_FALSE(accepts(automaton, text)) << text;
}

void expect_refused(const std::string& schema, Code code, const std::string& part) {
  SCOPED_TRACE(schema);
  try {
    Grammar g;
    g.set_root(add_json_schema(g, schema));
    compile(g);
    FAIL() << "taken";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code) << e.what();
    EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
    EXPECT_LT(std::string(e.what()).size(), 1000U);
  }
}

TEST(JsonSchemaTest, AnyValueIsJsonInOneLine) {
  expect("true",
         {"{}", "[]", R"({"a": [1, -2.5e-7, true, null], "b": {"c": ""}})", "\"x\"", "0", "-0.0",
          R"("\u00e9\n\ud83d\ude00 \"é😀")"},
         {"",           " 1",          "1 ",          "{ }",
          R"({"a":1})", "[1,2]",       "[1, ]",       R"({"a": })",
          "01",         "1.",          ".5",          "+1",
          "1e",         "1e400",       "NaN",         "'a'",
          R"("\x")",    R"("\ud83d")", R"("\ude00")", R"("\ud83d\u0041")",
          "\"\n\"",     "\"\x1f\"",    "\"\xc3\"",    "1234567890123456789"});
  expect("{}", {"[[[{}]]]"}, {"[[[{}]]"});
  Grammar g;
  g.set_root(add_json_object(g));
  EXPECT_TRUE(accepts(compile(g), R"({"a": {"b": [{}]}})"));
  EXPECT_FALSE(accepts(compile(g), "[]"));
}

TEST(JsonSchemaTest, TypesAndNullable) {
  expect(R"({"type":"null"})", {"null"}, {"0", "\"null\""});
  expect(R"({"type":["boolean","null"]})", {"null", "true", "false"}, {"0"});
  expect(R"({"type":"integer"})", {"0", "-1", "999999999999999999"},
         {"-0", "1.0", "1e2", "00", "1000000000000000000", "true"});
  expect(R"({"type":"number"})", {"0", "-1.50", "1E+10", "2e05"}, {"\"1\"", "-"});
  expect(R"({"type":"string","nullable":true})", {"null", "\"\""}, {"0"});
  expect_refused(R"({"type":"text"})", Code::kUsage, "#/type: \"text\" is no type");
  expect_refused(R"({"properties":{"a":{"type":7}}})", Code::kUsage, "#/properties/a/type");
  expect_refused(R"({"items":{"items":3}})", Code::kUsage, "#/items/items: a schema is");
}

TEST(JsonSchemaTest, TypesAreInferredFromTheirKeywords) {
  expect(R"({"properties":{"a":{}}})", {"{}", R"({"a": 1})"}, {"1", R"({"b": 1})"});
  expect(R"({"items":{"minimum":3}})", {"[]", "[3, 4.5]"}, {"{}", "[2]", R"(["a"])"});
  expect(R"({"minLength":1})", {"\"a\""}, {"\"\"", "1"});
}

TEST(JsonSchemaTest, IntegersLieInTheirBounds) {
  const auto in = [](long low, long high) {
    const std::string schema =
        cat(R"({"type":"integer","minimum":)", low, R"(,"maximum":)", high, "}");
    Grammar g;
    g.set_root(add_json_schema(g, schema));
    const Automaton a = compile(g);
    for (long i = -1200; i <= 1200; ++i) {
      ASSERT_EQ(accepts(a, std::to_string(i)), low <= i && i <= high) << schema << " " << i;
    }
  };
  for (const auto& [low, high] : std::vector<std::pair<long, long>>{{0, 0},
                                                                    {0, 9},
                                                                    {1, 10},
                                                                    {7, 7},
                                                                    {13, 87},
                                                                    {99, 101},
                                                                    {-5, 5},
                                                                    {-100, -1},
                                                                    {-1, 0},
                                                                    {-1099, 1000},
                                                                    {10, 999},
                                                                    {-10, -10},
                                                                    {100, 120},
                                                                    {-1200, 1200},
                                                                    {195, 1005}}) {
    in(low, high);
  }
}

TEST(JsonSchemaTest, BoundsOfIntegersAreExact) {
  expect(R"({"type":"integer","minimum":-2.5,"exclusiveMaximum":3})", {"-2", "0", "2"},
         {"-3", "3"});
  expect(R"({"type":"integer","exclusiveMinimum":-1,"maximum":1.5})", {"0", "1"}, {"-1", "2"});
  expect(R"({"type":"integer","minimum":123456789012345678})",
         {"123456789012345678", "999999999999999999"}, {"123456789012345677", "0", "-1"});
  expect(R"({"type":"integer","minimum":-9223372036854775808,"maximum":9223372036854775807})",
         {"-999999999999999999", "0"}, {});
  expect(R"({"type":"integer","maximum":1e300})", {"5"}, {});
  expect(R"({"type":"number","multipleOf":1,"minimum":4})", {"4", "5"}, {"4.0", "3"});
  expect_refused(R"({"type":"integer","minimum":5,"maximum":4})", Code::kUsage, "nothing");
  expect_refused(R"({"type":"integer","minimum":1e30})", Code::kUnsupported, "#: only numbers");
  expect_refused(R"({"properties":{"age":{"minimum":"x"}}})", Code::kUsage,
                 "#/properties/age/minimum: it must be a number");
  expect_refused(R"({"exclusiveMinimum":true,"minimum":3})", Code::kUnsupported, "draft 4");
  expect_refused(R"({"multipleOf":0.5})", Code::kUnsupported, "#/multipleOf");
  expect_refused(R"({"minimum":1e999})", Code::kUsage, "not JSON");
}

TEST(JsonSchemaTest, NumbersLieInTheirBounds) {
  expect(R"({"type":"number","minimum":0,"maximum":1})",
         {"0", "1", "0.5", "0.0", "1.0", "1.00", "0.99999"}, {"1.01", "-0.1", "2", "1e0", "-1"});
  expect(R"({"type":"number","minimum":-1.25,"maximum":2.5})",
         {"-1.25", "-1.250", "-1.2", "-1", "-0.5", "0", "2.5", "2.49", "2", "2.50"},
         {"-1.251", "-1.3", "-2", "2.51", "2.6", "3"});
  expect(R"({"type":"number","exclusiveMinimum":0,"exclusiveMaximum":0.1})",
         {"0.01", "0.099", "0.00001"}, {"0", "0.0", "0.1", "0.10", "0.2", "1"});
  expect(R"({"type":"number","minimum":1.5})", {"1.5", "1.50", "1.6", "2", "100.1"},
         {"1.49", "1", "0", "-2"});
  expect(R"({"type":"number","exclusiveMaximum":-3})", {"-3.1", "-4", "-3.0001"},
         {"-3", "-3.0", "-2.9", "3"});
  expect(R"({"type":"number","minimum":0.25,"maximum":0.25})", {"0.25", "0.250"},
         {"0.2", "0.251", "0.26", "0"});
  // Read as a double this is 1.
  expect(R"({"type":"number","exclusiveMaximum":1})", {"0.9999999"}, {"0.99999999999999999999"});
  // No double, but rounded to one that is less.
  expect(R"({"type":"number","minimum":-24518617334520415})", {"-24518617334520412"},
         {"-24518617334520415"});
  expect(R"({"type":"number","minimum":-24518617334520416})", {"-24518617334520416.0"},
         {"-24518617334520417"});
  expect_refused(R"({"type":"number","exclusiveMinimum":1,"maximum":1})", Code::kUsage, "nothing");
  expect_refused(R"({"type":"number","minimum":1e-200})", Code::kUnsupported, "digits behind");
}

TEST(JsonSchemaTest, LengthsCountCharacters) {
  expect(R"({"type":"string","minLength":2,"maxLength":3})",
         {"\"ab\"", "\"é😀x\"", R"("\n\"")", R"("\ud83d\ude00a")", R"("\u0041bc")"},
         {"\"a\"", "\"abcd\"", R"("\ud83d\ude00")", "\"\""});
  expect(R"({"type":"string","maxLength":0})", {"\"\""}, {"\"a\""});
  expect(R"({"type":"string","maxLength":2147483647})", {"\"abc\""}, {"\"a"});
  expect_refused(R"({"type":"string","minLength":2,"maxLength":1})", Code::kUsage, "nothing");
  expect_refused(R"({"minLength":-1})", Code::kUsage, "#/minLength: it must be a whole number");
  expect_refused(R"({"minLength":200000})", Code::kUnsupported, "#/minLength");
}

TEST(JsonSchemaTest, Patterns) {
  expect(R"({"type":"string","pattern":"^[a-z]+$"})", {"\"abc\""}, {"\"\"", "\"aB\""});
  expect(R"({"type":"string","pattern":"b"})", {"\"abc\"", "\"b\""}, {"\"ac\""});
  expect(R"({"pattern":"^\"\\\\?$"})", {R"("\"")", R"("\"\\")"}, {"\"\"\""});
  expect(R"({"type":"string","pattern":"^[a-z]{2,4}$","minLength":1,"maxLength":9})", {"\"ab\""},
         {"\"a\"", "\"abcde\""});
  expect(R"({"pattern":"^a","allOf":[{"pattern":"^a"}]})", {"\"ab\""}, {"\"b\""});
  expect_refused(R"({"pattern":"^[a-z]+$","maxLength":4})", Code::kUnsupported, "#/pattern");
  expect_refused(R"({"pattern":"^a","allOf":[{"pattern":"b$"}]})", Code::kUnsupported,
                 "#/allOf/0/pattern: two patterns");
  expect_refused(R"({"properties":{"a":{"pattern":"("}}})", Code::kUsage, "#/properties/a/pattern");
}

TEST(JsonSchemaTest, FormatsOfTime) {
  expect(R"({"format":"date"})", {"\"2024-02-29\"", "\"2000-02-29\"", "\"1999-12-31\""},
         {"\"2023-02-29\"", "\"1900-02-29\"", "\"2024-04-31\"", "\"2024-13-01\"", "\"2024-1-1\"",
          "\"0000-01-01\"", "\"2024-01-00\""});
  expect(R"({"format":"time"})", {"\"23:59:59Z\"", "\"00:00:00.123+05:30\""},
         {"\"24:00:00Z\"", "\"12:60:00Z\"", "\"12:00:00\"", "\"12:00Z\""});
  expect(R"({"format":"date-time"})", {"\"2024-02-29T12:00:00Z\""},
         {"\"2024-02-30T12:00:00Z\"", "\"2024-02-29 12:00:00Z\""});
  expect(R"({"format":"duration"})", {"\"P1Y2M3DT4H5M6S\"", "\"PT1H\"", "\"P3W\"", "\"P1M\""},
         {"\"P\"", "\"PT\"", "\"P1Y3D\"", "\"1Y\"", "\"P1DT\""});
}

TEST(JsonSchemaTest, FormatsOfNames) {
  expect(R"({"format":"uuid"})", {"\"123e4567-e89b-12d3-A456-426614174000\""},
         {"\"123e4567e89b12d3a456426614174000\"", "\"123e4567-e89b-12d3-a456-42661417400\""});
  expect(R"({"format":"ipv4"})", {"\"0.0.0.0\"", "\"255.249.199.9\""},
         {"\"256.0.0.1\"", "\"1.2.3\"", "\"01.2.3.4\""});
  expect(
      R"({"format":"ipv6"})",
      {"\"::\"", "\"::1\"", "\"1::\"", "\"1:2:3:4:5:6:7:8\"", "\"fe80::1:2\"", "\"::ffff:1.2.3.4\"",
       "\"1:2:3:4:5:6:1.2.3.4\"", "\"1:2:3:4:5:6:7::\"", "\"::2:3:4:5:6:7:8\""},
      {"\"1:2:3:4:5:6:7\"", "\"1::2::3\"", "\":1\"", "\"1:2:3:4:5:6:7:8:9\"", "\"12345::\"",
       "\"1:2:3:4:5:6:7:1.2.3.4\"", "\":::\"", "\"1:2:3:4::5:6:7:8\""});
  expect(R"({"format":"email"})", {"\"a.b+c@example.org\""}, {"\"a@\"", "\"@b\"", "\"a..b@c\""});
  expect(R"({"format":"hostname"})", {"\"a\"", "\"x-1.example.org\""},
         {"\"-a\"", "\"a-\"", "\"a..b\"", "\"a_b\""});
  expect(R"({"format":"uri","minLength":1})",
         {"\"https://example.org:80/a/b?c=d#e\"", "\"mailto:a@b.c\"", "\"urn:x:%41\""},
         {"\"example.org\"", "\"https://a b\"", "\"://a\"", "\"a:%4\""});
  expect(R"({"format":"of-the-house","maxLength":2})", {"\"ab\""}, {"\"abc\""});
  expect(R"({"format":"uri","maxLength":3})", {"\"a:b\"", "\"abc\""}, {"\"http://a\""});
}

TEST(JsonSchemaTest, EnumAndConst) {
  expect(R"({"enum":["a\"b",1,1.5,null,[1,{"x":true}],"é"]})",
         {R"("a\"b")", "1", "1.5", "null", R"([1, {"x": true}])", "\"é\""},
         {"2", R"([1,{"x":true}])", R"("\u00e9")"});
  expect(R"({"const":{"b":1,"a":[]}})", {R"({"b": 1, "a": []})"}, {R"({"a": [], "b": 1})"});
  expect(R"({"type":"string","enum":["a",1]})", {"\"a\""}, {"1"});
  expect(R"({"enum":[1,2,3,4.5],"minimum":2,"allOf":[{"type":"integer"}]})", {"2", "3"},
         {"1", "4.5"});
  expect(R"({"enum":["a","bb","ccc"],"minLength":2,"pattern":"^b"})", {"\"bb\""},
         {"\"a\"", "\"ccc\""});
  expect(R"({"enum":[1,"x"],"allOf":[{"enum":["x",2]}]})", {"\"x\""}, {"1", "2"});
  expect_refused(R"({"type":"string","enum":[1,2]})", Code::kUsage, "nothing");
  expect_refused(R"({"enum":[]})", Code::kUsage, "nothing");
  expect_refused(R"({"const":{"a":1},"required":["a"]})", Code::kUnsupported, "cannot be checked");
  expect_refused(R"({"const":123456789012345678901234567890})", Code::kUnsupported, "64 bits");
}

TEST(JsonSchemaTest, ObjectsWriteTheirPropertiesInOrder) {
  const std::string abc = R"({"type":"object","properties":{"a":{"type":"integer"},)"
                          R"("b":{"type":"boolean"},"c":{"type":"null"}},"required":["b"]})";
  expect(abc,
         {R"({"b": true})", R"({"a": 1, "b": true})", R"({"b": true, "c": null})",
          R"({"a": 1, "b": false, "c": null})"},
         {"{}", R"({"a": 1})", R"({"a": 1, "c": null})", R"({"b": true, "a": 1})",
          R"({"b": true, "d": 1})", R"({"b": true, })", R"({, "b": true})",
          R"({"b": true, "b": true})"});
  expect(R"({"properties":{"a":{"const":1},"b":{"const":2}}})",
         {"{}", R"({"a": 1})", R"({"b": 2})", R"({"a": 1, "b": 2})"},
         {R"({"b": 2, "a": 1})", R"({"a": 1,"b": 2})", R"({"a": 1 "b": 2})"});
  expect(R"({"properties":{"a\"\n":true}})", {R"({"a\"\n": 1})"}, {R"({"a": 1})"});
  expect(R"({"type":"object"})", {"{}", R"({"x": 1})"}, {"[]"});
  expect(R"({"type":"object","properties":{}})", {"{}", R"({"x": 1})"}, {"[]"});
  expect(R"({"properties":{"a":false,"b":{"const":1}}})", {"{}", R"({"b": 1})"}, {R"({"a": 1})"});
  expect_refused(R"({"properties":{"a":false},"required":["a"]})", Code::kUsage, "nothing");
  expect_refused(R"({"required":true})", Code::kUsage, "#/required: it must be a list");
}

TEST(JsonSchemaTest, OtherMembers) {
  expect(R"({"properties":{"ab":{"const":1},"abc":{"const":1},"é":{}},"additionalProperties":)"
         R"({"type":"integer"}})",
         {"{}", R"({"ab": 1, "abc": 1, "x": 5})", R"({"a": 5})", R"({"abd": 5, "abcd": 5})",
          R"({"": 5})", R"({"è": 5})", R"({"abc": 1, "xyz": 5, "zyx": 6})"},
         {R"({"x": 5, "ab": 1})", R"({"ab": 2})", R"({"abc": 2})", R"({"é": 1, "é": 2})",
          R"({"x": "a"})", R"({"a\u0062": 5})", R"({"x": 5, })"});
  expect(R"({"additionalProperties":{"type":"null"}})", {"{}", R"({"a\"": null})"},
         {R"({"a": 1})"});
  expect(R"({"additionalProperties":false})", {"{}"}, {R"({"a": 1})"});
  expect(R"({"required":["z"],"properties":{"a":{"const":1}},"additionalProperties":true})",
         {R"({"z": 0})", R"({"a": 1, "z": [], "q": 1})"}, {"{}", R"({"a": 1})"});
  expect(R"({"required":["z"],"properties":{"a":{"const":1}}})", {R"({"a": 1, "z": 0})"},
         {R"({"z": 0, "q": 1})"});
  expect(R"({"properties":{"q\"x":{"const":1}},"additionalProperties":true})",
         {R"({"q\"x": 1, "q": 2, "r": 3})"}, {R"({"q"x": 1})", R"({"q\"x": 2})"});
  expect_refused(R"({"required":["z"],"additionalProperties":false})", Code::kUsage, "nothing");
  expect(R"({"propertyNames":{"pattern":"^[a-c]$"},"additionalProperties":{"type":"null"}})",
         {R"({"a": null, "b": null})"}, {R"({"d": null})", R"({"a": 1})"});
  expect(R"({"propertyNames":{"enum":["a","b",3]}})", {R"({"a": 1})", "{}"}, {R"({"c": 1})"});
  expect(R"({"patternProperties":{"^x-":{"type":"integer"}},"additionalProperties":false})",
         {"{}", R"({"x-1": 2, "x-": 3})"}, {R"({"y": 1})", R"({"x-1": null})"});
  expect_refused(R"({"properties":{"a":{}},"patternProperties":{"b":{}}})", Code::kUnsupported,
                 "#/patternProperties");
  expect_refused(R"({"properties":{"a":{}},"propertyNames":{"maxLength":3}})", Code::kUnsupported,
                 "#/propertyNames");
}

TEST(JsonSchemaTest, NumbersOfMembers) {
  expect(R"({"type":"object","minProperties":1,"maxProperties":2})",
         {R"({"a": 1})", R"({"a": 1, "b": 2})"}, {"{}", R"({"a": 1, "b": 2, "c": 3})"});
  expect(R"({"properties":{"a":{},"b":{}},"minProperties":1})",
         {R"({"a": 1})", R"({"b": 1})", R"({"a": 1, "b": 1})"}, {"{}"});
  expect(R"({"properties":{"a":{},"b":{}},"minProperties":2})", {R"({"a": 1, "b": 1})"},
         {"{}", R"({"a": 1})"});
  expect(R"({"properties":{"a":{},"b":{}},"required":["b"],"maxProperties":1})", {R"({"b": 1})"},
         {"{}", R"({"a": 1, "b": 1})"});
  expect(R"({"type":"object","maxProperties":0})", {"{}"}, {R"({"a": 1})"});
  expect_refused(R"({"type":"object","minProperties":2})", Code::kUnsupported, "#/minProperties");
  expect_refused(R"({"properties":{"a":{},"b":{}},"maxProperties":1})", Code::kUnsupported,
                 "#/maxProperties");
  expect_refused(R"({"properties":{"a":{}},"minProperties":2})", Code::kUsage, "nothing");
}

TEST(JsonSchemaTest, Arrays) {
  expect(R"({"type":"array"})", {"[]", "[1, [2]]"}, {"{}", "[1 2]"});
  expect(R"({"items":{"type":"integer"},"minItems":1,"maxItems":3})", {"[1]", "[1, 2, 3]"},
         {"[]", "[1, 2, 3, 4]", "[1, null]", "[1, ]"});
  expect(R"({"type":"array","minItems":2})", {"[1, 2]", "[1, 2, 3]"}, {"[]", "[1]"});
  expect(R"({"type":"array","maxItems":0})", {"[]"}, {"[1]"});
  expect(R"({"items":false})", {"[]"}, {"[1]"});
  const Texts pairs{"[1, null]", "[1, null, true]", "[]", "[1]"};
  expect(R"({"prefixItems":[{"const":1},{"type":"null"}],"items":{"type":"boolean"}})", pairs,
         {"[null]", "[1, 1]", "[1, null, 1]", "[1, true]"});
  expect(R"({"items":[{"const":1},{"type":"null"}],"additionalItems":{"type":"boolean"}})", pairs,
         {"[null]", "[1, null, 1]"});
  expect(R"({"prefixItems":[{"const":1},{"const":2}],"minItems":2,"maxItems":2})", {"[1, 2]"},
         {"[1]", "[]", "[1, 2, 3]"});
  expect(R"({"prefixItems":[{"const":1},{"const":2}],"items":false,"minItems":1})",
         {"[1]", "[1, 2]"}, {"[]", "[1, 2, 3]"});
  expect(R"({"prefixItems":[{"const":1}],"items":{"const":2},"minItems":3,"maxItems":4})",
         {"[1, 2, 2]", "[1, 2, 2, 2]"}, {"[1, 2]", "[1, 2, 2, 2, 2]"});
  expect(R"({"prefixItems":[{"const":1},{"const":2}],"maxItems":1})", {"[]", "[1]"}, {"[1, 2]"});
  expect(R"({"items":{"const":1},"uniqueItems":false})", {"[1, 1]"}, {"[2]"});
}

TEST(JsonSchemaTest, AnyOfAndOneOf) {
  expect(R"({"anyOf":[{"type":"string","maxLength":1},{"type":"integer"}]})", {"\"a\"", "12"},
         {"\"ab\"", "1.5"});
  expect(R"({"type":"object","properties":{"a":{"const":1},"b":{"const":2}},)"
         R"("oneOf":[{"required":["a"]},{"required":["b"]}]})",
         {R"({"a": 1})", R"({"b": 2})"}, {"{}", R"({"b": 1})"});
  expect(R"({"anyOf":[{"minimum":5},{"maximum":2}],"oneOf":[{"type":"integer"},{"const":1.5}]})",
         {"5", "2", "1.5"}, {"3", "5.5", "4"});
  expect(R"({"type":"integer","anyOf":[{"type":"string"},{"type":"number","minimum":3}]})", {"3"},
         {"2", "3.5", "\"a\""});
  expect_refused(R"({"anyOf":[]})", Code::kUsage, "#/anyOf: it must be a list of one or more");
}

TEST(JsonSchemaTest, AllOfIsMerged) {
  expect(R"({"allOf":[{"properties":{"a":{"minimum":1}},"required":["a"]},)"
         R"({"properties":{"b":{"const":2},"a":{"type":"integer","maximum":3}},)"
         R"("required":["b"]}]})",
         {R"({"a": 1, "b": 2})", R"({"a": 3, "b": 2})"},
         {R"({"a": 0, "b": 2})", R"({"a": 4, "b": 2})", R"({"a": 1})", R"({"a": 1.5, "b": 2})"});
  expect(R"({"allOf":[{"properties":{"a":{}},"additionalProperties":false},)"
         R"({"properties":{"b":{}}}]})",
         {"{}", R"({"a": 1})"}, {R"({"b": 1})"});
  expect(R"({"allOf":[{"items":{"minimum":2}},{"items":{"maximum":3},"maxItems":2}]})",
         {"[2, 3]", "[]"}, {"[1]", "[4]", "[2, 2, 2]"});
  expect(R"({"type":["string","null"],"allOf":[{"type":["null","integer"]}]})", {"null"},
         {"\"a\"", "1"});
  expect(R"({"allOf":[true,{"type":"null"}]})", {"null"}, {"1"});
  expect_refused(R"({"allOf":[{"type":"null"},false]})", Code::kUsage, "nothing");
}

TEST(JsonSchemaTest, RefsAreFollowedAndMayRecur) {
  expect(R"({"$defs":{"n":{"properties":{"v":{"type":"integer"},"next":{"anyOf":[)"
         R"({"$ref":"#/$defs/n"},{"type":"null"}]}},"required":["v","next"]}},"$ref":"#/$defs/n"})",
         {R"({"v": 1, "next": null})", R"({"v": 1, "next": {"v": 2, "next": null}})"},
         {R"({"v": 1})", R"({"v": 1, "next": {"v": 2}})"});
  expect(R"({"type":"array","items":{"$ref":"#"}})", {"[]", "[[], [[]]]"}, {"[1]"});
  expect(R"({"definitions":{"a/b ~":{"const":1}},"items":{"$ref":"#/definitions/a~1b%20~0"}})",
         {"[1, 1]"}, {"[2]"});
  expect(R"({"prefixItems":[{"const":7},{"$ref":"#/prefixItems/0"}],"minItems":2})", {"[7, 7]"},
         {"[7, 8]"});
  expect(R"({"$defs":{"a":{"type":"integer"}},"$ref":"#/$defs/a","minimum":3})", {"3"},
         {"2", "3.5"});
  expect_refused(R"({"$ref":"#"})", Code::kUsage, "only to itself");
  expect_refused(R"({"allOf":[{"$ref":"#"}]})", Code::kUsage, "only to itself");
  expect_refused(R"({"anyOf":[{"$ref":"#"},{"type":"null"}]})", Code::kUsage,
                 "#/anyOf/0: it leads only back");
  expect_refused(R"({"type":"null","anyOf":[{"$ref":"#"},{"type":"null"}]})", Code::kUsage,
                 "#/anyOf/0: it leads only back");
  expect_refused(
      R"({"$defs":{"a":{"anyOf":[{"$ref":"#/$defs/b"}]},"b":{"oneOf":[{"$ref":"#/$defs/a"}]}},)"
      R"("$ref":"#/$defs/a"})",
      Code::kUsage, "leads only back");
  expect_refused(R"({"$ref":"#/$defs/x"})", Code::kUsage, "#/$ref: \"#/$defs/x\" leads to nothing");
  expect_refused(R"({"$ref":"other.json"})", Code::kUnsupported, "not in this document");
  expect_refused(R"({"items":{"$ref":"#"},"minItems":1})", Code::kUsage, "nothing");
}

TEST(JsonSchemaTest, WhatCannotBePromisedIsRefusedByName) {
  for (const char* keyword :
       {"contains", "unevaluatedItems", "unevaluatedProperties", "dependencies",
        "dependentRequired", "dependentSchemas", "if", "$dynamicRef", "$recursiveRef", "not"}) {
    expect_refused(cat(R"({"items":{")", keyword, R"(":{"a":["b"]}}})"), Code::kUnsupported,
                   cat("#/items/", keyword, ": "));
  }
  expect_refused(R"({"uniqueItems":true})", Code::kUnsupported, "#/uniqueItems");
  expect(R"({"type":"null","title":"t","x-own":[1],"default":3,"examples":[1],"not":false,)"
         R"("$schema":"s","$id":"i","$comment":"c","deprecated":true,"then":{}})",
         {"null"}, {"1"});
  expect_refused(R"({"not":{}})", Code::kUsage, "nothing");
}

TEST(JsonSchemaTest, HostileTexts) {
  expect_refused("", Code::kUsage, "not JSON");
  expect_refused("{", Code::kUsage, "not JSON");
  expect_refused("3", Code::kUsage, "a schema is an object");
  expect_refused("{\"a\":\"\xff\"}", Code::kUsage, "not UTF-8");
  expect_refused(std::string("{}\0", 3), Code::kUsage, "NUL");
  expect_refused(R"({"type":"null","type":"null"})", Code::kUsage, "\"type\" twice");
  std::string deep;
  for (int i = 0; i < 100'000; ++i) deep += R"({"items":)";
  expect_refused(deep, Code::kUsage, "deep");
  const std::string name(1'000'000, 'n');
  expect_refused(cat(R"({"properties":{")", name, R"(":{"type":3}}})"), Code::kUsage, "nnn...");
  expect_refused(cat(R"({"properties":{")", name, name, R"(":{}}})"), Code::kUsage, "too large");
  // A name of which only the beginning counts.
  const std::string longer(100, 'n');
  expect(cat(R"({"properties":{")", longer, R"(":{"const":1}},"additionalProperties":true})"),
         {cat(R"({")", longer, R"(": 1, "n": 2})")}, {cat(R"({")", longer, R"(": 2})")});
}

// Each level has two alternatives of both that are below it: two to the power of 60 ways.
TEST(JsonSchemaTest, LargeSchemasStaySmall) {
  std::string defs = R"("d0":{"type":"null"})";
  for (int i = 1; i < 60; ++i) {
    defs += cat(R"(,"d)", i, R"(":{"properties":{"a":{"$ref":"#/$defs/d)", i - 1,
                R"("},"b":{"$ref":"#/$defs/d)", i - 1, R"("}}})");
  }
  Grammar g;
  g.set_root(add_json_schema(g, cat(R"({"$ref":"#/$defs/d59","$defs":{)", defs, "}}")));
  EXPECT_LT(g.size(), 3000U);

  std::string choices;
  for (int i = 0; i < 40; ++i) {
    choices += cat(i > 0 ? "," : "", R"({"anyOf":[{"minimum":)", i, R"(},{"maximum":)", i, "}]}");
  }
  expect_refused(cat(R"({"allOf":[)", choices, "]}"), Code::kUsage, "too large");

  std::string addresses;
  for (int i = 0; i < 2000; ++i) addresses += cat(i > 0 ? "," : "", R"({"format":"ipv6"})");
  Grammar formats;
  formats.set_root(add_json_schema(formats, cat(R"({"prefixItems":[)", addresses, "]}")));
  EXPECT_LT(formats.size(), 30'000U);
  EXPECT_TRUE(accepts(compile(formats), R"(["::1", "1::"])"));

  std::string properties;
  for (int i = 0; i < 300; ++i) properties += cat(i > 0 ? "," : "", "\"p", i, "\":{}");
  Grammar many;
  many.set_root(add_json_schema(many, cat(R"({"properties":{)", properties, "}}")));
  const Automaton automaton = compile(many);
  EXPECT_LT(automaton.nodes.size(), 10'000U);
  EXPECT_TRUE(accepts(automaton, R"({"p3": 1, "p299": 2})"));
  EXPECT_FALSE(accepts(automaton, R"({"p3": 1, "p2": 2})"));
}

}  // namespace
}  // namespace cachalot::grammar
