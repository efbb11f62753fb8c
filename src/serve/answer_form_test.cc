#include "serve/answer_form.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "grammar/matcher.h"
#include "serve/testing.h"
#include "text/byte_tokenizer.h"

namespace cachalot::serve {
namespace {

using ::testing::HasSubstr;
using text::ToolForm;

constexpr std::int32_t kFirstTag = 257;
constexpr std::string_view kTags[] = {text::kCallsBegin, text::kCallsEnd, text::kCallBegin,
                                      text::kCallEnd, text::kCallSeparator};

// Bytes, the end of a text, and the tokens of calls.
text::Tokenizer with_tags(bool special = false) {
  text::TokenizerSpec spec = text::byte_tokenizer(true);
  std::int32_t id = kFirstTag;
  for (const std::string_view tag : kTags) {
    spec.vocab.emplace_back(std::string(tag), id);
    spec.added.push_back({.id = id++, .content = std::string(tag), .special = special});
  }
  return text::Tokenizer(spec, text::byte_tokenizer_config(true));
}

const text::Tokenizer& tokenizer() {
  static const text::Tokenizer t = with_tags();
  return t;
}

// "": the whole text is let through; "unfinished": but more is needed; else what was read before a
// token that is not.
std::string refused_after(const AnswerForms::ConstraintPtr& constraint, const std::string& text) {
  grammar::Matcher matcher(constraint);
  std::string read;
  for (const std::int32_t token : tokenizer().encode(text)) {
    if (!matcher.accept(token)) return "after " + read;
    const std::int32_t one[] = {token};
    read += tokenizer().decode_bytes(one);
  }
  return matcher.may_end() ? "" : "unfinished";
}

ToolUse two_tools(ToolChoice choice, bool parallel = true) {
  ToolUse use;
  use.tools = {{"f", "", R"({"type": "object", "properties": {"n": {"type": "integer"}},
                             "required": ["n"], "additionalProperties": false})"},
               {"fg", "", R"({"type": "object", "properties": {"a": {"uniqueItems": true}}})"}};
  use.choice = choice;
  use.parallel = parallel;
  if (choice == ToolChoice::kNamed) use.name = "f";
  return use;
}

std::string v31(const std::string& name, const std::string& arguments) {
  return cat(text::kCallBegin, name, text::kCallSeparator, arguments, text::kCallEnd);
}

std::string v3(const std::string& name, const std::string& arguments) {
  return cat(text::kCallBegin, "function", text::kCallSeparator, name, "\n```json\n", arguments,
             "\n```", text::kCallEnd);
}
const std::string kBegin(text::kCallsBegin), kEnd(text::kCallsEnd);

class AnswerFormTest : public ::testing::Test {
 protected:
  AnswerForms::ConstraintPtr form(Form::Kind kind, const std::string& text,
                                  bool after_thoughts = false) {
    return forms_.of_form({.kind = kind, .text = text, .choices = {}, .member = "m"},
                          after_thoughts);
  }
  AnswerForms forms_{tokenizer(), tokenizer().vocab_size()};
};

TEST_F(AnswerFormTest, EachKindOfFormHoldsTheTextToIt) {
  EXPECT_EQ(form(Form::Kind::kFree, ""), nullptr);
  const auto object = form(Form::Kind::kJsonObject, "");
  EXPECT_EQ(refused_after(object, R"({"a": [1, null]})"), "");
  EXPECT_EQ(refused_after(object, "[1]"), "after ");
  const auto schema = form(Form::Kind::kJsonSchema, R"({"type": "boolean"})");
  EXPECT_EQ(refused_after(schema, "true"), "");
  EXPECT_EQ(refused_after(schema, "tru"), "unfinished");
  EXPECT_EQ(refused_after(schema, "1"), "after ");
  const auto regex = form(Form::Kind::kRegex, "a+b|c");
  EXPECT_EQ(refused_after(regex, "aab"), "");
  EXPECT_EQ(refused_after(regex, "ac"), "after a");
  const auto gbnf = form(Form::Kind::kGrammar, R"(root ::= "x" [0-9]+)");
  EXPECT_EQ(refused_after(gbnf, "x12"), "");
  EXPECT_EQ(refused_after(gbnf, "x"), "unfinished");
  const Form choice{
      .kind = Form::Kind::kChoice, .text = {}, .choices = {"yes", "no", "nope"}, .member = "m"};
  EXPECT_EQ(refused_after(forms_.of_form(choice, false), "nope"), "");
  EXPECT_EQ(refused_after(forms_.of_form(choice, false), "ye"), "unfinished");
}

TEST_F(AnswerFormTest, AFormBehindThoughtsWaitsForTheirEnd) {
  for (const Form::Kind kind : {Form::Kind::kRegex, Form::Kind::kGrammar}) {
    const auto yes = form(kind, kind == Form::Kind::kRegex ? "yes" : "root ::= \"yes\"", true);
    EXPECT_EQ(refused_after(yes, "no, hm</think>yes"), "");
    EXPECT_EQ(refused_after(yes, "</think>\n\nyes"), "");
    EXPECT_EQ(refused_after(yes, "hm"), "unfinished");  // it must begin
    EXPECT_EQ(refused_after(yes, "hm</think>no"), "after hm</think>");
  }
}

TEST_F(AnswerFormTest, CallsAreHeldToTheirFormAndArgumentsToTheirSchema) {
  struct Case {
    ToolForm form;
    std::string (*call)(const std::string&, const std::string&);
    const char* between;
  };
  for (const Case& c : {Case{ToolForm::kV3, v3, "\n"}, Case{ToolForm::kV31, v31, ""}}) {
    const auto calls = forms_.of_tools(two_tools(ToolChoice::kRequired), c.form, false);
    const std::string f = c.call("f", R"({"n": 1})"), fg = c.call("fg", R"({"any": "thing"})");
    EXPECT_EQ(refused_after(calls, cat(kBegin, f, kEnd)), "");
    EXPECT_EQ(refused_after(calls, cat(kBegin, fg, c.between, f, kEnd)), "");
    EXPECT_EQ(refused_after(calls, cat(kBegin, f)), "unfinished");
    EXPECT_EQ(refused_after(calls, "Well"), "after ");
    EXPECT_EQ(refused_after(calls, cat(kBegin, kEnd)), "after " + kBegin);
    EXPECT_NE(refused_after(calls, cat(kBegin, c.call("h", "{}"), kEnd)), "");
    EXPECT_NE(refused_after(calls, cat(kBegin, c.call("f", R"({"n": "1"})"), kEnd)), "");
    EXPECT_NE(refused_after(calls, cat(kBegin, c.call("f", "{}"), kEnd)), "");

    const auto one = forms_.of_tools(two_tools(ToolChoice::kRequired, false), c.form, false);
    EXPECT_EQ(refused_after(one, cat(kBegin, f, kEnd)), "");
    EXPECT_EQ(refused_after(one, cat(kBegin, f, c.between, f, kEnd)), cat("after ", kBegin, f));
    const auto named = forms_.of_tools(two_tools(ToolChoice::kNamed), c.form, false);
    EXPECT_EQ(refused_after(named, cat(kBegin, f, kEnd)), "");
    EXPECT_NE(refused_after(named, cat(kBegin, fg, kEnd)), "");
  }
}

TEST_F(AnswerFormTest, WhoMayChooseIsFreeUntilACallBegins) {
  const auto calls = forms_.of_tools(two_tools(ToolChoice::kAuto), ToolForm::kV31, true);
  EXPECT_EQ(refused_after(calls, "Nothing to call."), "");
  EXPECT_EQ(refused_after(calls, cat("hm</think>Look.", kBegin, v31("f", R"({"n": 1})"), kEnd)),
            "");
  EXPECT_EQ(refused_after(calls, cat("Look.", kBegin)), "unfinished");
  EXPECT_EQ(refused_after(calls, cat("Look.", kBegin, "x")), cat("after Look.", kBegin));
}

TEST_F(AnswerFormTest, RequiredCallsComeBehindThoughts) {
  const auto calls = forms_.of_tools(two_tools(ToolChoice::kRequired), ToolForm::kV31, true);
  EXPECT_EQ(refused_after(calls, cat("hm</think>", kBegin, v31("f", R"({"n": 1})"), kEnd)), "");
  EXPECT_EQ(refused_after(calls, "hm</think>no"), "after hm</think>");
}

TEST_F(AnswerFormTest, AskingForTheSameSharesOne) {
  const auto first = form(Form::Kind::kRegex, "a0");
  EXPECT_EQ(form(Form::Kind::kRegex, "a0"), first);
  EXPECT_NE(form(Form::Kind::kRegex, "a0", true), first);
  EXPECT_NE(form(Form::Kind::kRegex, "b"), first);
  const auto calls = forms_.of_tools(two_tools(ToolChoice::kAuto), ToolForm::kV31, false);
  EXPECT_EQ(forms_.of_tools(two_tools(ToolChoice::kAuto), ToolForm::kV31, true), calls);
  EXPECT_NE(forms_.of_tools(two_tools(ToolChoice::kAuto), ToolForm::kV3, false), calls);
  EXPECT_NE(forms_.of_tools(two_tools(ToolChoice::kAuto, false), ToolForm::kV31, false), calls);
  // The ones used last are kept.
  const std::weak_ptr<const grammar::Constraint> old = form(Form::Kind::kRegex, "b");
  for (std::size_t i = 0; i < AnswerForms::kKept; ++i) {
    EXPECT_EQ(form(Form::Kind::kRegex, "a0"), first);
    form(Form::Kind::kRegex, cat("a", i));
  }
  EXPECT_TRUE(old.expired());
}

TEST_F(AnswerFormTest, ManyMayAskAtOnce) {
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 100; ++i) {
        const auto got = form(Form::Kind::kRegex, cat("x", i % 80));
        EXPECT_EQ(refused_after(got, cat("x", i % 80)), "");
      }
    });
  }
}

TEST_F(AnswerFormTest, FaultsAreToldWithTheirMember) {
  const auto refused = [&](Form::Kind kind, const std::string& text, Code code = Code::kUsage) {
    return testing::error_of(code, "m", [&] { form(kind, text); });
  };
  refused(Form::Kind::kJsonSchema, R"({"type": "strin"})");
  refused(Form::Kind::kJsonSchema, "{");
  refused(Form::Kind::kJsonSchema, R"({"uniqueItems": true})", Code::kUnsupported);
  refused(Form::Kind::kRegex, "a(");
  refused(Form::Kind::kGrammar, "root ::= undefined");
  const std::string odd =
      refused(Form::Kind::kJsonSchema, cat(R"({"type": ")", std::string(100'000, 'x'), "\"}"));
  EXPECT_LT(odd.size(), 1000u);

  ToolUse use = two_tools(ToolChoice::kAuto);
  use.tools[1].strict = true;  // its schema cannot be promised
  EXPECT_THAT(testing::error_of(Code::kUnsupported, "tools",
                                [&] { forms_.of_tools(use, ToolForm::kV31, false); }),
              HasSubstr("the parameters of fg"));
  use.tools[1].strict = false;
  use.tools[0].parameters = R"({"type": 7})";
  EXPECT_THAT(testing::error_of(Code::kUsage, "tools",
                                [&] { forms_.of_tools(use, ToolForm::kV31, false); }),
              HasSubstr("the parameters of f:"));
}

TEST_F(AnswerFormTest, ATokenizerWithoutTheTokensOfCallsIsSaid) {
  const text::Tokenizer plain(text::byte_tokenizer(true), text::byte_tokenizer_config(true));
  const text::Tokenizer special = with_tags(/*special=*/true);  // never told as text
  for (const text::Tokenizer* t : {&plain, &special}) {
    AnswerForms forms(*t, t->vocab_size());
    EXPECT_THAT(testing::error_of(
                    Code::kUnsupported, "tools",
                    [&] { forms.of_tools(two_tools(ToolChoice::kAuto), ToolForm::kV3, false); }),
                HasSubstr("has no token <｜tool▁calls▁begin｜>"));
  }
}

}  // namespace
}  // namespace cachalot::serve
