// Random schemas, random texts of their grammars, and a plain checker that knows nothing of how a
// grammar is made: every text is JSON that the schema accepts.
#include <gtest/gtest.h>

#include <random>
#include <string>

#include "base/error.h"
#include "grammar/accepts.h"
#include "grammar/automaton.h"
#include "grammar/json_rules.h"
#include "grammar/json_schema.h"
#include "grammar/sample_text_test.h"

namespace cachalot::grammar {
namespace {

// JSON Schema as it is written down, for the keywords that are made below.
class Checker {
 public:
  explicit Checker(const Json& root) : root_(root) {}

  bool holds(const Json& schema, const Json& value) const {
    if (schema.is_boolean()) return schema.get<bool>();
    for (const auto& [keyword, argument] : schema.items()) {
      if (!of_any(schema, keyword, argument, value)) return false;
      if (value.is_number() && !of_number(keyword, argument, value)) return false;
      if (value.is_string() && !of_string(keyword, argument, value)) return false;
      if (value.is_array() && !of_array(schema, keyword, argument, value)) return false;
      if (value.is_object() && !of_object(schema, keyword, argument, value)) return false;
    }
    return true;
  }

 private:
  static bool is_type(const std::string& type, const Json& v) {
    if (type == "integer") return v.is_number_integer();
    if (type == "number") return v.is_number();
    return type == v.type_name();
  }

  bool of_any(const Json& schema, const std::string& k, const Json& a, const Json& v) const {
    if (k == "$ref") return holds(root_.at(Json::json_pointer(a.get<std::string>().substr(1))), v);
    if (k == "type") {
      if (a.is_string()) return is_type(a, v) || (v.is_null() && schema.value("nullable", false));
      return std::any_of(a.begin(), a.end(), [&](const Json& type) { return is_type(type, v); });
    }
    if (k == "enum") return std::find(a.begin(), a.end(), v) != a.end();
    if (k == "const") return a == v;
    const auto part = [&](const Json& s) { return holds(s, v); };
    if (k == "allOf") return std::all_of(a.begin(), a.end(), part);
    if (k == "anyOf" || k == "oneOf") return std::any_of(a.begin(), a.end(), part);
    return true;
  }

  static bool of_number(const std::string& k, const Json& a, const Json& v) {
    if (k == "minimum") return v >= a;
    if (k == "maximum") return v <= a;
    if (k == "exclusiveMinimum") return v > a;
    if (k == "exclusiveMaximum") return v < a;
    return true;
  }

  static bool of_string(const std::string& k, const Json& a, const Json& v) {
    const std::string text = v;
    const auto n =
        std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
    if (k == "minLength") return n >= a.get<int>();
    if (k == "maxLength") return n <= a.get<int>();
    if (k != "pattern") return true;  // "^[ab]" with or without "$" is what is made
    const auto other = std::min(text.find_first_not_of("ab"), text.size());
    return a == "^[ab]" ? other > 0 : text.size() == 1 && other == 1;
  }

  bool of_array(const Json& schema, const std::string& k, const Json& a, const Json& v) const {
    if (k == "minItems") return v.size() >= a.get<std::size_t>();
    if (k == "maxItems") return v.size() <= a.get<std::size_t>();
    const std::size_t named = schema.contains("prefixItems") ? schema["prefixItems"].size() : 0;
    for (std::size_t i = 0; i < v.size(); ++i) {
      if (k == "prefixItems" && i < named && !holds(a[i], v[i])) return false;
      if (k == "items" && i >= named && !holds(a, v[i])) return false;
    }
    return true;
  }

  bool of_object(const Json& schema, const std::string& k, const Json& a, const Json& v) const {
    if (k == "minProperties") return v.size() >= a.get<std::size_t>();
    if (k == "maxProperties") return v.size() <= a.get<std::size_t>();
    if (k == "required") {
      return std::all_of(a.begin(), a.end(),
                         [&](const Json& name) { return v.contains(name.get<std::string>()); });
    }
    for (const auto& [name, member] : v.items()) {
      if (k == "properties" && a.contains(name) && !holds(a.at(name), member)) return false;
      if (k == "propertyNames" && !holds(a, name)) return false;
      const bool is_named = schema.contains("properties") && schema["properties"].contains(name);
      if (k == "additionalProperties" && !is_named && !holds(a, member)) return false;
    }
    return true;
  }

  const Json& root_;
};

class Schemas {
 public:
  explicit Schemas(unsigned seed) : random_(seed) {}

  Json root() {
    Json schema = Json::object();
    schema["$defs"] = {{"x", any(2)}, {"y", any(2)}};
    schema.update(any(3));
    return schema;
  }

 private:
  int below(int n) { return static_cast<int>(random_() % static_cast<unsigned>(n)); }
  bool one_in(int n) { return below(n) == 0; }

  Json any(int depth) {
    if (one_in(20)) return Json::object();
    Json schema = depth > 0 ? nested(depth) : scalar();
    if (depth > 0 && one_in(8)) schema["allOf"] = Json::array({any(depth - 1)});
    if (depth > 0 && one_in(8)) schema["oneOf"] = Json::array({any(depth - 1), any(depth - 1)});
    if (one_in(10)) schema["nullable"] = true;
    return schema;
  }

  Json nested(int depth) {
    switch (below(6)) {
      case 0:
        return {{"$ref", one_in(2) ? "#/$defs/x" : "#/$defs/y"}};
      case 1:
        return {{"anyOf", Json::array({any(depth - 1), any(depth - 1), any(depth - 1)})}};
      case 2:
        return array(depth);
      case 3:
        return scalar();
      default:
        return object(depth);
    }
  }

  Json scalar() {
    switch (below(5)) {
      case 0: {
        const Json values = Json::parse(R"(["a", "b\n", 1, -3, 2.5, null, true, {"a": [1]}])");
        Json some = Json::array({"é"});
        for (const Json& value : values) {
          if (one_in(2)) some.push_back(value);
        }
        return {{"enum", some}};
      }
      case 1:
        return string();
      case 2:
        return {{"type", Json::array({"boolean", "null", "integer"})}};
      default:
        return number();
    }
  }

  Json string() {
    Json schema = {{"type", "string"}};
    if (one_in(3)) {
      schema["pattern"] = one_in(2) ? "^[ab]" : "^[ab]$";
      return schema;
    }
    const int least = below(3);
    if (one_in(2)) schema["minLength"] = least;
    if (one_in(2)) schema["maxLength"] = least + below(4);
    return schema;
  }

  Json number() {
    static const double kSizes[] = {1, 10, 0.1, 1000, 0.003, 123456};
    const double low = kSizes[below(6)] * (below(200) - 100), high = low + below(50) * 0.25;
    Json schema = {{"type", one_in(2) ? "integer" : "number"}};
    if (one_in(2)) schema[one_in(2) ? "minimum" : "exclusiveMinimum"] = low;
    if (one_in(2)) schema[one_in(2) ? "maximum" : "exclusiveMaximum"] = high;
    return schema;
  }

  Json array(int depth) {
    Json schema = {{"type", "array"}};
    if (one_in(3)) schema["prefixItems"] = Json::array({any(depth - 1), any(depth - 1)});
    if (!one_in(3)) schema["items"] = one_in(6) ? Json(false) : any(depth - 1);
    const int least = below(3);
    if (one_in(3)) schema["minItems"] = least;
    if (one_in(3)) schema["maxItems"] = least + below(3);
    return schema;
  }

  Json object(int depth) {
    Json schema = {{"type", "object"}}, properties = Json::object(), required = Json::array();
    for (const char* name : {"a", "ab", "b", "\"", "é"}) {
      if (one_in(2)) properties[name] = any(depth - 1);
      if (one_in(4)) required.push_back(name);
    }
    if (!one_in(5)) schema["properties"] = properties;
    if (one_in(2)) schema["required"] = required;
    if (one_in(3)) schema["additionalProperties"] = one_in(2) ? Json(one_in(2)) : any(depth - 1);
    if (one_in(12)) schema["propertyNames"] = string();
    if (one_in(8)) schema["minProperties"] = below(3);
    if (one_in(8)) schema["maxProperties"] = below(6);
    return schema;
  }

  std::mt19937 random_;
};

TEST(JsonSchemaRandomTest, WhatTheGrammarLetsThroughTheSchemaAccepts) {
  int taken = 0, texts = 0;
  for (unsigned seed = 0; seed < 1500; ++seed) {
    const Json schema = Schemas(seed).root();
    Grammar g;
    std::optional<Automaton> automaton;
    try {
      g.set_root(add_json_schema(g, schema.dump()));
      automaton = compile(g);
    } catch (const Error& e) {
      ASSERT_TRUE(e.code() == Code::kUsage || e.code() == Code::kUnsupported) << e.what();
      continue;
    }
    ++taken;
    SampleText sample(g);
    for (unsigned i = 0; i < 20; ++i) {
      const std::optional<std::string> text = sample.make(seed * 100 + i, 10 * i);
      ASSERT_TRUE(text) << schema;
      ++texts;
      const Json value = Json::parse(*text, nullptr, /*allow_exceptions=*/false);
      ASSERT_FALSE(value.is_discarded()) << schema << "\n" << *text;
      ASSERT_TRUE(Checker(schema).holds(schema, value)) << schema << "\n" << *text;
      // The sampler and the automaton read the same grammar.
      if (i % 5 == 0) {
        ASSERT_TRUE(accepts(*automaton, *text)) << schema << "\n" << *text;
      }
    }
  }
  EXPECT_GT(taken, 500);
  EXPECT_GT(texts, 10'000);
}

}  // namespace
}  // namespace cachalot::grammar
