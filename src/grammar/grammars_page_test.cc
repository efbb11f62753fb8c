// The examples of docs/grammars.md are read as the page says they are.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "base/error.h"
#include "grammar/accepts.h"
#include "grammar/automaton.h"
#include "grammar/gbnf.h"
#include "grammar/json_schema.h"
#include "grammar/regex.h"

namespace cachalot::grammar {
namespace {

std::vector<std::string> lines_of_page() {
  std::ifstream file(std::filesystem::path(CACHALOT_SOURCE_DIR) / "docs" / "grammars.md");
  EXPECT_TRUE(file) << "docs/grammars.md";
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

// The fenced blocks of that language, without their last line end.
std::vector<std::string> blocks(const std::string& language) {
  std::vector<std::string> found;
  bool inside = false;
  for (const std::string& line : lines_of_page()) {
    if (!inside && line == "```" + language) {
      inside = true;
      found.emplace_back();
    } else if (inside && line == "```") {
      inside = false;
      if (!found.back().empty()) found.back().pop_back();
    } else if (inside) {
      found.back() += line + "\n";
    }
  }
  return found;
}

// What stands in `backticks` in the line that begins so.
std::vector<std::string> quoted(const std::string& beginning) {
  std::vector<std::string> found;
  for (const std::string& line : lines_of_page()) {
    if (!line.starts_with(beginning)) continue;
    std::istringstream parts(line);
    std::string part;
    for (int i = 0; std::getline(parts, part, '`'); ++i) {
      if (i % 2 == 1) found.push_back(part);
    }
  }
  return found;
}

Automaton regex(const std::string& pattern) {
  Grammar grammar;
  grammar.set_root(add_regex(grammar, pattern, RegexMatch::kAnywhere, CharForm::kPlain));
  return compile(grammar);
}

std::string refusal(const std::string& pattern) {
  try {
    Grammar grammar;
    add_regex(grammar, pattern, RegexMatch::kWhole, CharForm::kPlain);
    return "";
  } catch (const Error& e) {
    return e.what();
  }
}

TEST(GrammarsPageTest, JsonSchema) {
  const std::vector<std::string> examples = blocks("json-schema");
  ASSERT_EQ(examples.size(), 1u);
  Grammar grammar;
  grammar.set_root(add_json_schema(grammar, examples[0]));
  const Automaton automaton = compile(grammar);
  EXPECT_TRUE(accepts(automaton, R"({"name": "Ann", "kind": "orca", "length_m": 7.5})"));
  EXPECT_TRUE(accepts(automaton,
                      R"({"name": "Ann", "kind": "orca", "length_m": 7.5, )"
                      R"("seen": "2024-02-29", "calves": [{"name": "B", "kind": "orca", )"
                      R"("length_m": 2}]})"));
  EXPECT_FALSE(accepts(automaton, R"({"name": "Ann", "kind": "orca", "length_m": 41})"));
  EXPECT_FALSE(accepts(automaton, R"({"kind": "orca", "name": "Ann", "length_m": 7})"));
  // What the page says is refused.
  for (const std::string keyword :
       {"not", "contains", "if", "dependentSchemas", "unevaluatedProperties", "$dynamicRef"}) {
    Grammar g;
    const std::string value = keyword[0] == '$' ? "\"#a\"" : R"({"type": "string"})";
    EXPECT_THROW(add_json_schema(g, "{\"type\": \"array\", \"" + keyword + "\": " + value + "}"),
                 Error)
        << keyword;
  }
}

TEST(GrammarsPageTest, RegularExpressions) {
  const std::vector<std::string> examples = blocks("regex");
  ASSERT_EQ(examples.size(), 4u);
  EXPECT_TRUE(accepts(regex(examples[0]), "2024-02-29"));
  EXPECT_FALSE(accepts(regex(examples[0]), "on 2024-02-29"));
  EXPECT_TRUE(accepts(regex(examples[1]), "a.b@c.org"));
  EXPECT_TRUE(accepts(regex(examples[2]), "Émile Zola"));
  EXPECT_FALSE(accepts(regex(examples[2]), "Émile zola"));
  for (const char* text : {"-x", "x.", "none", "a,none,b"}) {
    EXPECT_TRUE(accepts(regex(examples[3]), text)) << text;
  }
  EXPECT_FALSE(accepts(regex(examples[3]), "x-,nonesuch"));
}

TEST(GrammarsPageTest, WhatIsListedIsRead) {
  int read = 0;
  for (const char* row : {"| `a`", "| `.`", "| `[abc]`", "| `\\d`", "| `\\D`", "| `\\p", "| `\\n`",
                          "| `\\x41`", "| `\\.`", "| `ab`", "| `a*`", "| `a*?`", "| `^`"}) {
    for (const std::string& pattern : quoted(row)) {
      EXPECT_EQ(refusal(pattern), "") << pattern;
      ++read;
    }
  }
  EXPECT_GT(read, 50);
}

TEST(GrammarsPageTest, WhatIsRefusedIsRefused) {
  int refused = 0;
  for (const char* row : {"- what looks", "- what depends", "- what tells", "- flags"}) {
    for (const std::string& pattern : quoted(row)) {
      EXPECT_NE(refusal(pattern).find("not supported"), std::string::npos) << pattern;
      ++refused;
    }
  }
  EXPECT_EQ(refused, 12);
  for (const char* pattern : {"\\A", "\\Z", "\\a", "(?P<name>a)", "[\\w-.]", "a{,3}", "a**"}) {
    EXPECT_NE(refusal(pattern), "") << pattern;
  }
  EXPECT_EQ(refusal("[\\w\\-.]"), "");
}

TEST(GrammarsPageTest, Gbnf) {
  const std::vector<std::string> examples = blocks("gbnf");
  ASSERT_EQ(examples.size(), 3u);
  const Automaton answer = compile(parse_gbnf(examples[0]));
  EXPECT_TRUE(accepts(answer, "Yes (90%)"));
  EXPECT_TRUE(accepts(answer, "It depends: on the sea (7%)"));
  EXPECT_FALSE(accepts(answer, "Yes (101%)"));
  const Automaton list = compile(parse_gbnf(examples[1]));
  EXPECT_TRUE(accepts(list, "- a whale\n- 52 'Hz'\n"));
  EXPECT_FALSE(accepts(list, "- a  whale\n"));
  const Automaton nested = compile(parse_gbnf(examples[2]));
  EXPECT_TRUE(accepts(nested, "[[1, -2.5], [], null]"));
  EXPECT_FALSE(accepts(nested, "[1, 2"));
}

}  // namespace
}  // namespace cachalot::grammar
