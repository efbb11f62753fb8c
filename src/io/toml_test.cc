#include "io/toml.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace cachalot::io {
namespace {

Error error_of(const std::string& text) {
  try {
    parse_toml(text, "r.toml");
  } catch (const Error& e) {
    return e;
  }
  ADD_FAILURE() << "read without an error: " << text.substr(0, 100);
  return {Code::kInternal, ""};
}

TEST(Toml, BecomesAssignmentsInTheOrderOfTheFile) {
  const auto entries = parse_toml(
      "top = true\n[z]\nlr = 1e-3  # comment\nn = 1_000\n\n[a]\nname = \"x\"\nlist = [1, 2]\n"
      "b.c = -2\n[a.d]\ntexts = [\"p\", 'q']\nempty = []\n",
      "r.toml");
  const auto list = [](std::vector<FieldValue> items) { return FieldValue{std::move(items)}; };
  ASSERT_EQ(8u, entries.size());
  const struct {
    const char* path;
    FieldValue value;
    int line;
  } want[] = {
      {"top", {true}, 1},
      {"z.lr", {1e-3}, 3},
      {"z.n", {std::int64_t{1000}}, 4},
      {"a.name", {std::string("x")}, 7},
      {"a.list", list({{std::int64_t{1}}, {std::int64_t{2}}}), 8},
      {"a.b.c", {std::int64_t{-2}}, 9},
      {"a.d.texts", list({{std::string("p")}, {std::string("q")}}), 11},
      {"a.d.empty", list({}), 12},
  };
  for (std::size_t i = 0; i < entries.size(); ++i) {
    EXPECT_EQ(want[i].path, entries[i].path);
    EXPECT_EQ(want[i].value, entries[i].value) << want[i].path;
    EXPECT_EQ(want[i].line, entries[i].line) << want[i].path;
  }
  EXPECT_TRUE(parse_toml("", "r.toml").empty());
}

TEST(Toml, ErrorsNameFileAndLine) {
  const Error twice = error_of("[a]\nlr = 1\nlr = 2\n");
  EXPECT_EQ(Code::kFormat, twice.code());
  EXPECT_EQ(0u, std::string(twice.what()).find("r.toml:3:")) << twice.what();
  for (const char* bad :
       {"[a", "a = ", "a = 1 b = 2", "= 3", "a = \"\n", "a = 99999999999999999999", "\xff",
        "a = \"\xc3\"", "a = [1, ", "a = {b = 1"}) {
    EXPECT_EQ(Code::kFormat, error_of(bad).code()) << bad;
  }
}

TEST(Toml, WhatNoFieldCanHoldIsRefused) {
  for (const char* bad : {"a = 2020-01-01", "a = [[1]]", "[[a]]\nb = 1", "a = [{b = 1}]",
                          "\"a.b\" = 1", "\"\" = 1", "a = [07:32:00]"}) {
    EXPECT_EQ(Code::kUsage, error_of(bad).code()) << bad;
  }
}

TEST(Toml, AbsurdDepthIsRefusedNotRecursedInto) {
  std::string deep = "a";
  for (int i = 0; i < 200000; ++i) deep += ".a";
  EXPECT_EQ(Code::kFormat, error_of(deep + " = 1").code());
  EXPECT_EQ(Code::kFormat, error_of("[" + deep + "]\n").code());
  EXPECT_EQ(Code::kFormat, error_of("a = " + std::string(100000, '[')).code());
  // Keys of many dots inside tables inside lists, a line each.
  std::string lists = "x = ", dotted = "a";
  for (int i = 0; i < 900; ++i) dotted += ".a";
  for (int i = 0; i < 200; ++i) lists += "[\n{" + dotted + " = ";
  EXPECT_EQ(Code::kFormat, error_of(lists).code());
  std::string tables;
  for (int i = 0; i < 100000; ++i) tables += "{a=";
  EXPECT_EQ(Code::kFormat, error_of("a = " + tables).code());
}

}  // namespace
}  // namespace cachalot::io
