#include "base/fields.h"

#include <gtest/gtest.h>

#include <functional>

#include "base/fields_text.h"

namespace cachalot {
namespace {

enum class Shape : std::uint8_t { kRound, kSquare };

struct Inner {
  double lr = 0.1;
  int steps = 10;
  Shape shape = Shape::kSquare;
  void fields(FieldVisitor& f) {
    f("lr", lr, 0.0, 1.0, "learning rate");
    f("steps", steps, 1, kNoLimit, "steps to take");
    f("shape", shape, {{"round", Shape::kRound}, {"square", Shape::kSquare}}, "its shape");
  }
};

struct Outer {
  std::int64_t count = 5'000'000'000;
  bool fast = false;
  std::string name = "x";
  std::vector<std::string> files;
  std::vector<std::int64_t> sizes = {1, 2};
  std::vector<double> rates = {0.5};
  void fields(FieldVisitor& f) {
    f("count", count, -10, kNoLimit, "a count");
    f("fast", fast, "go fast");
    f("name", name, "a name");
    f("files", files, "some files");
    f("sizes", sizes, 0, 9, "some sizes");
    f("rates", rates, 0.0, 10.0, "some rates");
  }
};

struct Config {
  Outer outer;
  Inner inner;
  void fields(FieldVisitor& f) {
    f.section("outer", outer);
    f.section("inner", inner);
  }
};

std::string error_of(const std::function<void()>& action, Code code) {
  try {
    action();
  } catch (const Error& e) {
    EXPECT_EQ(code, e.code()) << e.what();
    return e.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

TEST(Fields, TextIsReadAsTheFieldSays) {
  Config config;
  const auto fields = fields_of(config);
  for (const char* text :
       {"inner.lr=2e-3", "inner.steps=7", "inner.shape=round", "outer.count=-10", "outer.fast=true",
        "outer.name=a=b, c", "outer.files=a.txt,b.txt", "outer.sizes=3,4,5", "outer.rates=1,2.5"}) {
    assign_text(fields, text, "--set");
  }
  EXPECT_EQ(2e-3, config.inner.lr);
  EXPECT_EQ(7, config.inner.steps);
  EXPECT_EQ(Shape::kRound, config.inner.shape);
  EXPECT_EQ(-10, config.outer.count);
  EXPECT_TRUE(config.outer.fast);
  EXPECT_EQ("a=b, c", config.outer.name);
  EXPECT_EQ((std::vector<std::string>{"a.txt", "b.txt"}), config.outer.files);
  EXPECT_EQ((std::vector<std::int64_t>{3, 4, 5}), config.outer.sizes);
  EXPECT_EQ((std::vector<double>{1, 2.5}), config.outer.rates);
  assign_text(fields, "outer.files=", "--set");
  EXPECT_TRUE(config.outer.files.empty());
  assign_text(fields, "inner.lr=1", "--set");  // an integer where a number is wanted
  EXPECT_EQ(1.0, config.inner.lr);
}

TEST(Fields, BadValuesAreRefusedAndChangeNothing) {
  for (const char* text :
       {"inner.lr=1.5", "inner.lr=nan", "inner.lr=inf", "inner.lr=-1", "inner.lr=1x",
        "inner.lr=", "inner.steps=0", "inner.steps=1.5", "inner.steps=2147483648",
        "inner.steps=1e3", "inner.steps=99999999999999999999", "inner.shape=triangle",
        "inner.shape=", "outer.fast=1", "outer.count=-11", "outer.sizes=1,x", "outer.sizes=1,10",
        "outer.rates=1,11", "outer.name=\xff"}) {
    Config config;
    const auto fields = fields_of(config);
    const std::string before = to_toml(fields);
    const std::string what = error_of([&] { assign_text(fields, text, "--set"); }, Code::kUsage);
    const std::string key(text, std::string(text).find('='));
    EXPECT_NE(std::string::npos, what.find(key)) << what;
    EXPECT_EQ(before, to_toml(fields)) << text;
  }
}

TEST(Fields, ABadValueSaysWhatWasNeeded) {
  Config config;
  const auto fields = fields_of(config);
  const auto what = error_of(
      [&] { assign(fields, "inner.lr", {2.0}, "demo.toml:3", Code::kConfig); }, Code::kConfig);
  EXPECT_EQ("demo.toml:3: inner.lr = 2.0 cannot be; needed is number, 0 .. 1 (learning rate).",
            what);
  const auto wrong = error_of(
      [&] { assign(fields, "inner.steps", {2.0}, "demo.toml:4", Code::kConfig); }, Code::kConfig);
  EXPECT_NE(std::string::npos, wrong.find("integer, at least 1")) << wrong;
}

TEST(Fields, UnknownKeysNameTheNearest) {
  Config config;
  const auto fields = fields_of(config);
  const auto hint = [&](const char* text) {
    return error_of([&] { assign_text(fields, text, "--set"); }, Code::kUsage);
  };
  EXPECT_NE(std::string::npos, hint("inner.stesp=3").find("'inner.steps'"));
  EXPECT_NE(std::string::npos, hint("lr=3").find("'inner.lr'"));        // no section
  EXPECT_NE(std::string::npos, hint("outer.lr=3").find("'inner.lr'"));  // the wrong section
  EXPECT_NE(std::string::npos, hint("qqqqqqqqqqqqqq=3").find("unknown key"));
  EXPECT_NE(std::string::npos, hint("qqqqqqqqqqqqqq=3").find("; the keys are "));
  EXPECT_NE(std::string::npos, hint("qqqqqqqqqqqqqq=3").find("inner.lr, inner.steps"));
  EXPECT_NE(std::string::npos, hint("inner.lr").find("not an assignment"));
  EXPECT_NE(std::string::npos, hint("=3").find("not an assignment"));
}

TEST(Fields, TomlAndJsonOfTheValues) {
  Config config;
  config.outer.name = "a \"b\"\\\n\x7f é";
  config.outer.files = {"p", "q r"};
  config.inner.lr = 1e-5;
  const auto fields = fields_of(config);
  EXPECT_EQ(R"([outer]
count = 5000000000
fast = false
name = "a \"b\"\\\u000A\u007F é"
files = ["p", "q r"]
sizes = [1, 2]
rates = [0.5]

[inner]
lr = 1e-05
steps = 10
shape = "square"
)",
            to_toml(fields));
  EXPECT_EQ(R"({"outer": {"count": 5000000000, "fast": false, "name": "a \"b\"\\\u000A\u007F é", )"
            R"("files": ["p", "q r"], "sizes": [1, 2], "rates": [0.5]}, )"
            R"("inner": {"lr": 1e-05, "steps": 10, "shape": "square"}})",
            to_json(fields));
}

TEST(Fields, NumbersKeepTheirTypeAndValue) {
  for (const double x : {0.0, -0.0, 1.0, 1e22, 1e-300, 0.1, 123456789.123456789, 4.9e-324}) {
    const std::string text = field_text({x});
    EXPECT_EQ(x, std::strtod(text.c_str(), nullptr)) << text;
    EXPECT_NE(std::string::npos, text.find_first_of(".e")) << text;
  }
}

TEST(Fields, HelpListsEveryField) {
  Config config;
  const auto fields = fields_of(config);
  for (const std::string& help : {help_table(fields), help_table_markdown(fields)}) {
    for (const Field& field : fields) {
      EXPECT_NE(std::string::npos, help.find(field.help)) << field.path;
    }
    EXPECT_NE(std::string::npos, help.find("0 .. 1")) << help;
  }
  EXPECT_NE(std::string::npos, help_table_markdown(fields).find("round \\| square"));
}

TEST(Fields, Utf8IsCheckedExactly) {
  for (const char* good : {"", "a", "é", "€", "😀", "\xED\x9F\xBF", "\xF4\x8F\xBF\xBF"}) {
    EXPECT_TRUE(valid_utf8(good)) << good;
  }
  for (const char* bad :
       {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x80\x80", "\xED\xA0\x80", "\xF0\x80\x80\x80",
        "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xE2\x82", "\xFF", "a\xC3"}) {
    EXPECT_FALSE(valid_utf8(bad));
  }
  EXPECT_EQ("a?b", printable("a\nb"));
  EXPECT_EQ("?", printable("\xC3"));
  EXPECT_LT(printable(std::string(1000, 'x')).size(), 100u);
}

}  // namespace
}  // namespace cachalot
