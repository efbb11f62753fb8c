#include "serve/openai_logprobs.h"

#include <gtest/gtest.h>

#include <limits>

#include "text/byte_tokenizer.h"

namespace cachalot::serve {
namespace {

constexpr std::int32_t kEos = 256;       // of the byte tokenizer
constexpr std::int32_t kNoToken = 1000;  // the vocabulary may have room for more ids

const text::Tokenizer& bytes() {
  static const text::Tokenizer tokenizer(text::byte_tokenizer(true),
                                         text::byte_tokenizer_config(true));
  return tokenizer;
}

TEST(LogprobsTest, ChatLogprobsHaveTextAndBytesOfEachToken) {
  const std::vector<std::int32_t> tokens = {'a', 0xC3, kNoToken};
  const float never = -std::numeric_limits<float>::infinity();
  const std::vector<infer::TokenLogprobs> logprobs = {
      {-0.5f, {{'a', -0.5f}, {0xC3, never}}}, {-0.25f, {}}, {-1, {}}};
  const Json json = chat_logprobs(tokens, logprobs, bytes());
  // A byte that begins a character is none alone: U+FFFD, but its bytes are itself.
  const Json want = {{"content",
                      {{{"token", "a"},
                        {"logprob", -0.5},
                        {"bytes", {97}},
                        {"top_logprobs",
                         {{{"token", "a"}, {"logprob", -0.5}, {"bytes", {97}}},
                          {{"token", "\uFFFD"}, {"logprob", -9999.0}, {"bytes", {0xC3}}}}}},
                       {{"token", "\uFFFD"},
                        {"logprob", -0.25},
                        {"bytes", {0xC3}},
                        {"top_logprobs", Json::array()}},
                       {{"token", ""},
                        {"logprob", -1.0},
                        {"bytes", Json::array()},
                        {"top_logprobs", Json::array()}}}},
                     {"refusal", nullptr}};
  EXPECT_EQ(json, want) << json.dump(1);
}

TEST(LogprobsTest, CompletionLogprobsAreListsOfOneLength) {
  TextOffsets offsets(bytes(), "");
  const std::vector<std::int32_t> tokens = {'a', 0xC3, kNoToken};
  // Two tokens of one text, U+FFFD: the likelier one is told.
  const std::vector<infer::TokenLogprobs> logprobs = {{-0.5f, {{0xC3, -0.25f}, {0xA9, -0.5f}}},
                                                      {-std::numeric_limits<float>::infinity(), {}},
                                                      {-1, {}}};
  const Json want = {{"tokens", {"a", "\uFFFD", ""}},
                     {"token_logprobs", {-0.5, -9999.0, -1.0}},
                     {"top_logprobs", {{{"\uFFFD", -0.25}}, Json::object(), Json::object()}},
                     {"text_offset", {0, 1, 1}}};
  EXPECT_EQ(completion_logprobs(tokens, logprobs, bytes(), offsets), want);
}

TEST(LogprobsTest, SpecialTokensTakeNoRoomInTheText) {
  TextOffsets offsets(bytes(), "");
  EXPECT_EQ(offsets.next('a'), 0);
  EXPECT_EQ(offsets.next(kEos), 1);
  EXPECT_EQ(offsets.next(kNoToken), 1);
  EXPECT_EQ(offsets.next('b'), 1);
  EXPECT_EQ(offsets.next('c'), 2);
}

}  // namespace
}  // namespace cachalot::serve
