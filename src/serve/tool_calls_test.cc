#include "serve/tool_calls.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "base/rng.h"

namespace cachalot::serve {
namespace {

using text::ToolForm;
using Part = ToolCallSplitter::Part;

// "content|name(arguments)|...|reason": the sum of all parts.
struct Sum {
  std::string content;
  std::vector<std::string> names, arguments;
  bool whole = true;
  void add(const Part& part) {
    content += part.content;
    for (const ToolCallSplitter::Delta& d : part.calls) {
      const auto index = static_cast<std::size_t>(d.index);
      if (!d.name.empty()) {
        EXPECT_EQ(index, names.size());
        EXPECT_EQ(d.id, cat("id", index));
        names.push_back(d.name);
        arguments.emplace_back();
      } else {
        EXPECT_TRUE(d.id.empty());
      }
      ASSERT_LT(index, arguments.size());
      arguments[index] += d.arguments;
    }
  }
  std::string text() const {
    std::string all = content;
    for (std::size_t i = 0; i < names.size(); ++i)
      all += cat("|", names[i], "(", arguments[i], ")");
    return all + (whole ? "" : "|broken");
  }
};

template <class Cut>
std::string in_pieces(ToolForm form, const std::string& text, Cut&& cut) {
  int ids = 0;
  ToolCallSplitter splitter(form, [&] { return cat("id", ids++); });
  Sum sum;
  std::string piece;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (cut(i)) {
      sum.add(splitter.push(piece));
      piece.clear();
    }
    piece += text[i];
  }
  sum.add(splitter.push(piece));
  sum.add(splitter.finish());
  sum.whole = splitter.whole();
  EXPECT_EQ(static_cast<std::size_t>(splitter.calls()), sum.names.size());
  return sum.text();
}

const std::string kBegin(text::kCallsBegin), kEnd(text::kCallsEnd);
const std::string kCall(text::kCallBegin), kCallEnd(text::kCallEnd), kSep(text::kCallSeparator);
std::string v3(const std::string& name, const std::string& arguments) {
  return cat(kCall, "function", kSep, name, "\n```json\n", arguments, "\n```", kCallEnd);
}
std::string v31(const std::string& name, const std::string& arguments) {
  return cat(kCall, name, kSep, arguments, kCallEnd);
}

struct Case {
  ToolForm form;
  std::string text, want;
};
const std::vector<Case> kCases = {
    {ToolForm::kNone, kBegin + v31("f", "{}"), kBegin + v31("f", "{}")},
    {ToolForm::kV3, "", ""},
    {ToolForm::kV3, "plain\n", "plain\n"},
    {ToolForm::kV3, "half <｜tool▁calls▁beg", "half <｜tool▁calls▁beg"},
    {ToolForm::kV3, cat(kBegin, v3("f", R"({"a": 1})"), kEnd), R"(|f({"a": 1}))"},
    {ToolForm::kV3, cat("Look.\n\n", kBegin, v3("f", "{}"), "\n", v3("g", "{\n}"), kEnd),
     "Look.|f({})|g({\n})"},
    {ToolForm::kV3, cat(kBegin, v3("f", "```\n`` \n``"), kEnd), "|f(```\n`` \n``)"},
    {ToolForm::kV3, cat(kBegin, v3("f", "\n```\n```"), kEnd), "|f(\n```\n```)"},
    {ToolForm::kV3, cat(kBegin, v3("f", "")), "|f()"},  // it ended without the last tag
    {ToolForm::kV3, cat(kBegin, v3("f", "{}"), kEnd, "more"), "more|f({})"},
    {ToolForm::kV31, cat(kBegin, v31("f", R"({"a": 1})"), v31("g", "{}"), kEnd),
     R"(|f({"a": 1})|g({}))"},
    {ToolForm::kV31, cat("x", kBegin, v31("f", "a < b <｜tool▁call▁end"), kEnd),
     "x|f(a < b <｜tool▁call▁end)"},
    // Ended in the middle: arguments so far.
    {ToolForm::kV31, cat(kBegin, kCall, "f", kSep, R"({"a")"), R"(|f({"a")|broken)"},
    {ToolForm::kV31, cat(kBegin, kCall, "f", kSep, "{}<｜tool"), "|f({})|broken"},
    {ToolForm::kV3, cat(kBegin, kCall, "function", kSep, "f\n```json\n{}\n``"), "|f({})|broken"},
    {ToolForm::kV3, cat(kBegin, kCall, "function", kSep, "f\n```json\n{}\n```"), "|f({})|broken"},
    // Of another form: content, from where it is not known.
    {ToolForm::kV31, kBegin, "|broken"},
    {ToolForm::kV31, kBegin + "hm", "hm|broken"},
    {ToolForm::kV31, kBegin + kEnd, ""},
    {ToolForm::kV31, kBegin + kCall + "f", "f|broken"},
    {ToolForm::kV31, cat(kBegin, kCall, "not a name", kSep), cat("not a name", kSep, "|broken")},
    {ToolForm::kV31, cat(kBegin, v31("f", "{}"), "and"), "and|f({})|broken"},
    {ToolForm::kV3, cat(kBegin, kCall, "code", kSep, "f"), cat("code", kSep, "f|broken")},
    {ToolForm::kV3, cat(kBegin, kCall, "function", kSep, "f\n```python\n"),
     cat("function", kSep, "f\n```python\n|broken")},
    {ToolForm::kV3, cat(kBegin, v31("f", "{}")), cat("f", kSep, "{}", kCallEnd, "|broken")},
};

TEST(ToolCallSplitterTest, CutsCallsFromContent) {
  for (const Case& c : kCases) {
    EXPECT_EQ(in_pieces(c.form, c.text, [](std::size_t) { return false; }), c.want) << c.text;
  }
}

TEST(ToolCallSplitterTest, EveryByteAloneGivesTheSame) {
  for (const Case& c : kCases) {
    EXPECT_EQ(in_pieces(c.form, c.text, [](std::size_t) { return true; }), c.want) << c.text;
  }
}

TEST(ToolCallSplitterTest, DoesNotDependOnThePieces) {
  const std::string picks[] = {
      kBegin, kEnd, kCall, kCallEnd,   kSep, "function", "f",          "\n```json\n", "\n```",
      "\n",   "{}", "`",   "<｜tool▁", " ",  "g",        v3("h", "1"), v31("i", "2")};
  const Rng rng(7);
  for (std::uint64_t i = 0; i < 4000; ++i) {
    const ToolForm form = i % 2 == 0 ? ToolForm::kV3 : ToolForm::kV31;
    std::string text = i % 3 == 0 ? "" : kBegin;
    for (std::uint64_t j = 0; j < i % 12; ++j) {
      text += picks[rng.block(i * 64 + j)[0] % std::size(picks)];
    }
    const std::string want = in_pieces(form, text, [](std::size_t) { return false; });
    EXPECT_EQ(in_pieces(form, text, [](std::size_t) { return true; }), want) << text;
    const std::string other = in_pieces(form, text, [&](std::size_t at) {
      return rng.block(1'000'000 + i * 4096 + at)[1] % 5 == 0;
    });
    EXPECT_EQ(other, want) << text;
  }
}

TEST(ToolCallSplitterTest, ArgumentsAreToldAsTheyCome) {
  ToolCallSplitter splitter(ToolForm::kV3, [] { return "x"; });
  EXPECT_EQ(splitter.push("Yes\n").content, "Yes");
  EXPECT_TRUE(splitter.push(cat(kBegin, kCall, "function", kSep, "f\n```js")).calls.empty());
  const Part began = splitter.push("on\n{\"a\"");
  ASSERT_EQ(began.calls.size(), 1u);
  EXPECT_EQ(began.calls[0].id, "x");
  EXPECT_EQ(began.calls[0].name, "f");
  EXPECT_EQ(began.calls[0].arguments, "{\"a\"");
  const Part more = splitter.push(": 1}\n```");
  ASSERT_EQ(more.calls.size(), 1u);
  EXPECT_EQ(more.calls[0].arguments, ": 1}");
  EXPECT_EQ(more.calls[0].name, "");
  EXPECT_FALSE(splitter.whole());
  EXPECT_TRUE(splitter.push(kCallEnd + kEnd).calls.empty());
  EXPECT_TRUE(splitter.whole());
}

TEST(ToolCallSplitterTest, IdsAreRandom) {
  const std::string one = random_call_id(), other = random_call_id();
  EXPECT_EQ(one.size(), 29u);
  EXPECT_TRUE(one.starts_with("call_"));
  EXPECT_TRUE(std::all_of(one.begin() + 5, one.end(), [](unsigned char c) { return isalnum(c); }));
  EXPECT_NE(one, other);
}

}  // namespace
}  // namespace cachalot::serve
