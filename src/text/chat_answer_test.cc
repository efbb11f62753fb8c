// Answers as a model is to write them: prompt and answer together are the later history.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/rng.h"
#include "text/chat.h"

namespace cachalot::text {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kNames[] = {"v2", "v3", "v3-0324", "r1", "r1-0528", "v3.1"};
constexpr std::string_view kNoThoughts = "\n</think>\n\n";  // behind R1's "<think>\n"

const std::vector<ChatMessage> kAsked = {{"system", "S"}, {"user", "Q"}};

std::string role_before(std::span<const ChatMessage> messages) {
  std::string role;
  for (const ChatMessage& m : messages) role = m.role == "system" ? role : m.role;
  return role;
}

// What history has behind render(before, prompt) instead of the answer, where it is not the same:
// - R1's prompt begins thoughts, which an answer without any has to end;
// - in V3-0324 and R1-0528 <｜Assistant｜> belongs to the user's message: where none came just
//   before, the prompt writes it, but no answer of the history has one.
void expect_round_trip(const std::string& name, std::span<const ChatMessage> messages,
                       const RenderOptions& options) {
  const ChatFormat format = ChatFormat::named(name);
  RenderOptions prompted = options, told = options;
  prompted.add_generation_prompt = true;
  told.add_generation_prompt = false;
  const auto before = messages.first(messages.size() - 1);
  std::string prompt = format.render(before, prompted, "<B>", "<E>");
  std::string answer = format.answer(before, messages.back(), options, "<E>");
  const std::string last = role_before(before);
  if (name == "r1" && last != "tool") {
    const std::string_view open = "<think>\n";
    ASSERT_TRUE(prompt.ends_with(open)) << prompt;
    ASSERT_TRUE(answer.starts_with(kNoThoughts)) << answer;
    prompt.erase(prompt.size() - open.size());
    answer.erase(0, kNoThoughts.size());
  } else if (name == "v3-0324" || name == "r1-0528") {
    const std::string_view tag = "<｜Assistant｜>";
    if (last != "user" && last != "tool") {
      ASSERT_TRUE(prompt.ends_with(tag)) << prompt;
      prompt.erase(prompt.size() - tag.size());
    }
  }
  EXPECT_EQ(prompt + answer, format.render(messages, told, "<B>", "<E>")) << name;
}

// Conversations drawn message by message: each call gets its result, and each answer is checked.
TEST(ChatAnswerTest, PromptAndAnswerAreTheHistoryOfTheNextTurn) {
  const Tool tools[] = {{"f", "Does.", "{}"}};
  for (const char* name : kNames) {
    const bool has_tools = ChatFormat::named(name).tools() != ToolForm::kNone;
    for (int seed = 0; seed < 60; ++seed) {
      const Rng rng(static_cast<std::uint64_t>(seed));
      const RenderOptions options{.tools = has_tools && seed % 2 == 1 ? std::span(tools)
                                                                      : std::span<const Tool>()};
      std::vector<ChatMessage> messages;
      for (int m = 0; m < 8; ++m) {
        const auto draw = rng.block(m);
        const std::string text = draw[1] % 5 == 0 ? "" : cat("T", m, "\n");
        const std::uint32_t kind = draw[0] % 6;
        if (kind == 0) {
          messages.push_back({"system", text});
        } else if (kind <= 2) {
          messages.push_back({"user", text});
        } else if (kind <= 4 || !has_tools) {
          messages.push_back({"assistant", text});
          expect_round_trip(name, messages, options);
        } else {
          messages.push_back({"assistant", text, {{"a", "f", "{}"}, {"b", "g", R"({"x": 1})"}}});
          expect_round_trip(name, messages, options);
          messages.push_back({"tool", "R1", {}, "a"});
          messages.push_back({"tool", "R2", {}, "b"});
        }
      }
    }
  }
}

TEST(ChatAnswerTest, EachFormatEndsAnAnswerWithItsToken) {
  const ChatMessage answer{"assistant", "A"};
  EXPECT_EQ(ChatFormat::v2().answer(kAsked, answer, {}, "<E>"), " A<E>");
  for (const char* name : {"v3", "v3-0324", "r1-0528", "v3.1"}) {
    EXPECT_EQ(ChatFormat::named(name).answer(kAsked, answer, {}, "<E>"), "A<｜end▁of▁sentence｜>");
  }
  const ChatMessage call{"assistant", "Look.", {{"a", "f", "{}"}}};
  EXPECT_EQ(ChatFormat::v3().answer(kAsked, call, {}, "<E>"),
            "Look.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{}\n"
            "```<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜>");
  EXPECT_EQ(ChatFormat::v3_1().answer(kAsked, call, {}, "<E>"),
            "Look.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜>"
            "<｜tool▁calls▁end｜><｜end▁of▁sentence｜>");
}

TEST(ChatAnswerTest, ThoughtsThatThePromptBeganAreNotBegunAgain) {
  const RenderOptions thinking{.thinking = true};
  const ChatMessage lined{"assistant", "<think>\nhm\n</think>\n\nA"};
  EXPECT_EQ(ChatFormat::r1().answer(kAsked, lined, {}, ""),
            "hm\n</think>\n\nA<｜end▁of▁sentence｜>");  // the prompt ends with "<think>\n"
  EXPECT_EQ(ChatFormat::v3_1().answer(kAsked, lined, thinking, ""),
            "\nhm\n</think>\n\nA<｜end▁of▁sentence｜>");  // the prompt ends with "<think>"
  EXPECT_EQ(ChatFormat::r1_0528().answer(kAsked, lined, {}, ""),
            "<think>\nhm\n</think>\n\nA<｜end▁of▁sentence｜>");  // it opens them itself
  const ChatMessage close{"assistant", "<think>hm</think>A"};
  EXPECT_EQ(ChatFormat::r1().answer(kAsked, close, {}, ""), "hm</think>A<｜end▁of▁sentence｜>");
  const ChatMessage opened{"assistant", "hm</think>A"};
  EXPECT_EQ(ChatFormat::r1().answer(kAsked, opened, {}, ""), "hm</think>A<｜end▁of▁sentence｜>");
  // None: ended at once.
  const ChatMessage none{"assistant", "A"};
  EXPECT_EQ(ChatFormat::r1().answer(kAsked, none, {}, ""), "\n</think>\n\nA<｜end▁of▁sentence｜>");
  EXPECT_EQ(ChatFormat::v3_1().answer(kAsked, none, thinking, ""),
            "</think>A<｜end▁of▁sentence｜>");
  // Behind a tool's results no prompt begins anything.
  std::vector<ChatMessage> results = kAsked;
  results.push_back({"assistant", "", {{"a", "f", "{}"}}});
  results.push_back({"tool", "R", {}, "a"});
  EXPECT_EQ(ChatFormat::r1().answer(results, none, {}, ""), "A<｜end▁of▁sentence｜>");
  EXPECT_EQ(ChatFormat::v3_1().answer(results, close, thinking, ""),
            "<think>hm</think>A<｜end▁of▁sentence｜>");
}

TEST(ChatAnswerTest, ThoughtsAreInTheAnswerAndNotInTheHistory) {
  std::vector<ChatMessage> messages = kAsked;
  const ChatMessage answer{"assistant", "<think>\nhm\n</think>\n\nA"};
  for (const char* name : {"r1", "r1-0528", "v3.1"}) {
    const ChatFormat format = ChatFormat::named(name);
    const RenderOptions options{.thinking =
                                    format.chooses_thoughts() ? std::optional(true) : std::nullopt};
    EXPECT_THAT(format.answer(kAsked, answer, options, ""), HasSubstr("hm\n</think>\n\nA"));
    messages = kAsked;
    messages.push_back(answer);
    messages.push_back({"user", "Q2"});
    EXPECT_THAT(format.render(messages, options, "", ""), Not(HasSubstr("hm"))) << name;
    EXPECT_TRUE(format.drops_thoughts());
  }
  EXPECT_FALSE(ChatFormat::v3().drops_thoughts());
  EXPECT_FALSE(ChatFormat::r1().chooses_thoughts());
}

template <class F>
Code code_of(F&& run) {
  try {
    run();
  } catch (const Error& e) {
    return e.code();
  }
  ADD_FAILURE() << "nothing was thrown";
  return Code::kInternal;
}

TEST(ChatAnswerTest, OnlyAnAssistantAnswersWithWhatItsFormatHas) {
  for (const char* name : kNames) {
    const ChatFormat format = ChatFormat::named(name);
    EXPECT_EQ(code_of([&] { format.answer(kAsked, {"user", "x"}, {}, ""); }), Code::kUsage);
  }
  const ChatMessage call{"assistant", "", {{"a", "f", "{}"}}};
  EXPECT_EQ(code_of([&] { ChatFormat::v2().answer(kAsked, call, {}, ""); }), Code::kUnsupported);
}

}  // namespace
}  // namespace cachalot::text
