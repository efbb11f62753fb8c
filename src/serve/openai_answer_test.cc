#include "serve/openai_answer.h"

#include <gtest/gtest.h>

#include <cstring>

#include "text/byte_tokenizer.h"
#include "text/utf8.h"

namespace cachalot::serve {
namespace {

constexpr std::int32_t kEos = 256;  // of the byte tokenizer

const text::Tokenizer& bytes() {
  static const text::Tokenizer tokenizer(text::byte_tokenizer(true),
                                         text::byte_tokenizer_config(true));
  return tokenizer;
}

AnswerConfig config_of(Endpoint endpoint) {
  return {.endpoint = endpoint, .id = "id-1", .created = 1700000000, .model = "m"};
}

std::vector<std::int32_t> ids_of(std::string_view text) {
  std::vector<std::int32_t> ids;
  for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
  return ids;
}

// A choice of the bytes of `text`; its i-th token has log-probability -i / 4.
infer::Choice choice_of(const std::string& text, infer::Finish finish = infer::Finish::kEos) {
  infer::Choice choice;
  choice.tokens = ids_of(text);
  choice.text = text;
  choice.told = text.size();
  choice.finish = finish;
  for (std::size_t i = 0; i < choice.tokens.size(); ++i) {
    const float logprob = -0.25f * static_cast<float>(i);
    choice.logprobs.push_back({logprob, {{choice.tokens[i], logprob}, {'z', -8}}});
  }
  return choice;
}

TEST(AnswerTest, DumpsOneLineOfValidUtf8) {
  const std::string line = dump({{"a", "x\n\xFF\xE2\x82"}});
  EXPECT_TRUE(text::is_valid_utf8(line));
  EXPECT_EQ(line.find('\n'), std::string::npos);
  EXPECT_TRUE(line.starts_with(R"({"a":"x\n)")) << line;
  EXPECT_EQ(event({{"a", 1}}), "data: {\"a\":1}\n\n");
}

TEST(AnswerTest, EveryEndHasTheReasonOfTheApi) {
  using infer::Finish;
  for (const Finish f : {Finish::kLength, Finish::kContext, Finish::kCacheFull}) {
    EXPECT_EQ(finish_reason(f), "length");
  }
  for (const Finish f : {Finish::kEos, Finish::kStopped}) EXPECT_EQ(finish_reason(f), "stop");
  for (const Finish f : {Finish::kCancelled, Finish::kError}) {
    EXPECT_TRUE(finish_reason(f).is_null());
  }
}

TEST(AnswerTest, UsageSumsRequests) {
  Usage usage;
  usage.add({.prompt_tokens = 200, .reused_tokens = 130, .new_tokens = 7, .reused_blocks = 2});
  usage.add({.prompt_tokens = 10, .reused_tokens = 0, .new_tokens = 5});
  // Two blocks of 64 tokens were found; 200 - 128 + 10 were not.
  const Json want = {{"prompt_tokens", 210},
                     {"completion_tokens", 12},
                     {"total_tokens", 222},
                     {"prompt_tokens_details", {{"cached_tokens", 130}}},
                     {"prompt_cache_hit_tokens", 128},
                     {"prompt_cache_miss_tokens", 82}};
  EXPECT_EQ(usage.to_json(), want);
}

TEST(AnswerTest, TimingsAreRatesOfWhatWasComputed) {
  infer::Result result;
  result.timings = {.prompt_tokens = 100,
                    .reused_tokens = 60,
                    .new_tokens = 9,
                    .first_tokens = 1,
                    .queue_seconds = 0.5,
                    .prefill_seconds = 2,
                    .first_token_seconds = 2.5,
                    .decode_seconds = 4};
  result.choices.resize(2);
  for (infer::Choice& c : result.choices) c.mtp.drafted = 4, c.mtp.accepted = 3;
  result.choices[1].certain = {.drafted = 5, .accepted = 2};
  const Json want = {{"prompt_tokens", 100},  {"prompt_per_second", (100 - 60) / 2.0},
                     {"predicted_tokens", 9}, {"predicted_per_second", (9 - 1) / 4.0},
                     {"queue_s", 0.5},        {"first_token_s", 2.5},
                     {"drafted", 8},          {"accepted", 6},
                     {"certain_drafted", 5},  {"certain_accepted", 2}};
  EXPECT_EQ(timings_json(result), want);
}

TEST(AnswerTest, AWholeChatAnswerHasTheMembersOfTheApi) {
  Answer answer(config_of(Endpoint::kChat), bytes(), 2);
  const infer::Choice choices[] = {choice_of("Hi"), choice_of("Ho", infer::Finish::kLength)};
  const Json json = answer.whole(choices, {.prompt_tokens = 3}, {{"queue_s", 0}});
  const Json want = {
      {"id", "id-1"},
      {"object", "chat.completion"},
      {"created", 1700000000},
      {"model", "m"},
      {"choices",
       {{{"index", 0},
         {"message", {{"role", "assistant"}, {"content", "Hi"}, {"refusal", nullptr}}},
         {"logprobs", nullptr},
         {"finish_reason", "stop"}},
        {{"index", 1},
         {"message", {{"role", "assistant"}, {"content", "Ho"}, {"refusal", nullptr}}},
         {"logprobs", nullptr},
         {"finish_reason", "length"}}}},
      {"usage", Usage{.prompt_tokens = 3}.to_json()},
      {"timings", {{"queue_s", 0}}}};
  EXPECT_EQ(json, want) << json.dump(1);
}

TEST(AnswerTest, ThoughtsAreCutFromAWholeAnswer) {
  AnswerConfig config = config_of(Endpoint::kChat);
  config.opens_thought = true;
  Answer answer(config, bytes(), 1);
  const infer::Choice choice = choice_of("hm\n</think>\n\nYes");
  const Json json = answer.whole(std::span(&choice, 1), {}, {});
  EXPECT_EQ(json["choices"][0]["message"]["reasoning_content"], "hm");
  EXPECT_EQ(json["choices"][0]["message"]["content"], "Yes");
}

// The chunks of one streamed choice, each token telling its own byte.
std::vector<Json> stream(Answer& answer, const infer::Choice& choice) {
  std::vector<Json> chunks;
  if (auto first = answer.first_chunk(0)) chunks.push_back(*first);
  for (std::size_t i = 0; i < choice.tokens.size(); ++i) {
    const std::string_view text =
        i < choice.told ? std::string_view(choice.text).substr(i, 1) : std::string_view();
    const auto chunk = answer.token_chunk(
        0, {.token = choice.tokens[i], .text = text, .logprobs = &choice.logprobs[i]});
    if (chunk) chunks.push_back(*chunk);
  }
  chunks.push_back(answer.last_chunk(0, choice));
  return chunks;
}

TEST(AnswerTest, AStreamedChatSumsUpToTheWholeOne) {
  for (const bool opened : {false, true}) {
    for (const std::string text :
         {"Hi", "hm\n</think>\n\nYes", "<think>a</think>b", "half </thi", ""}) {
      for (const std::size_t untold : {0, 3}) {
        AnswerConfig config = config_of(Endpoint::kChat);
        config.opens_thought = opened;
        infer::Choice choice = choice_of(text, infer::Finish::kStopped);
        choice.told = text.size() - std::min(untold, text.size());
        Answer answer(config, bytes(), 1);
        const std::vector<Json> chunks = stream(answer, choice);
        const Json whole = answer.whole(std::span(&choice, 1), {}, {});

        std::string content, reasoning;
        for (const Json& chunk : chunks) {
          EXPECT_EQ(chunk["object"], "chat.completion.chunk");
          EXPECT_EQ(chunk["choices"].size(), 1u);
          const Json& delta = chunk["choices"][0]["delta"];
          content += delta.value("content", "");
          reasoning += delta.value("reasoning_content", "");
          const bool last = &chunk == &chunks.back();
          EXPECT_EQ(chunk["choices"][0]["finish_reason"], last ? Json("stop") : Json());
        }
        const Json& message = whole["choices"][0]["message"];
        EXPECT_EQ(content, message["content"]) << text;
        EXPECT_EQ(reasoning, message.value("reasoning_content", "")) << text;
        EXPECT_EQ(chunks.front()["choices"][0]["delta"],
                  (Json{{"role", "assistant"}, {"content", ""}}));
      }
    }
  }
}

// Calls as V3.1 writes them.
constexpr const char* kCalls =
    "Look.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": 1}<｜tool▁call▁end｜>"
    "<｜tool▁call▁begin｜>g<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>";

AnswerConfig with_tools() {
  AnswerConfig config = config_of(Endpoint::kChat);
  config.tools = text::ToolForm::kV31;
  config.call_id = [n = 0]() mutable { return cat("call_", n++); };
  return config;
}

TEST(AnswerTest, CallsAreToldAsTheApiHasThem) {
  const infer::Choice choice = choice_of(kCalls);
  const Json json = Answer(with_tools(), bytes(), 1).whole(std::span(&choice, 1), {}, {});
  const Json want = {{"index", 0},
                     {"message",
                      {{"role", "assistant"},
                       {"content", "Look."},
                       {"refusal", nullptr},
                       {"tool_calls",
                        {{{"id", "call_0"},
                          {"type", "function"},
                          {"function", {{"name", "f"}, {"arguments", "{\"a\": 1}"}}}},
                         {{"id", "call_1"},
                          {"type", "function"},
                          {"function", {{"name", "g"}, {"arguments", "{}"}}}}}}}},
                     {"logprobs", nullptr},
                     {"finish_reason", "tool_calls"}};
  EXPECT_EQ(json["choices"][0], want) << json.dump(1);
}

TEST(AnswerTest, WhereNothingIsSaidBesideCallsContentIsNull) {
  const infer::Choice choice = choice_of(std::string(kCalls).substr(5));
  const Json json = Answer(with_tools(), bytes(), 1).whole(std::span(&choice, 1), {}, {});
  EXPECT_TRUE(json["choices"][0]["message"]["content"].is_null());
  // Without tools in the request nothing is taken for a call.
  const infer::Choice plain = choice_of(kCalls);
  const Json text = Answer(config_of(Endpoint::kChat), bytes(), 1).whole({&plain, 1}, {}, {});
  EXPECT_EQ(text["choices"][0]["message"]["content"], kCalls);
  EXPECT_EQ(text["choices"][0]["finish_reason"], "stop");
}

TEST(AnswerTest, StreamedCallsSumUpToTheWholeOnes) {
  for (const std::size_t length : {std::size_t{7}, std::size_t{110}, std::strlen(kCalls)}) {
    const bool cut = length < std::strlen(kCalls);
    const infer::Choice choice = choice_of(std::string(kCalls).substr(0, length),
                                           cut ? infer::Finish::kLength : infer::Finish::kEos);
    Answer answer(with_tools(), bytes(), 1);
    std::string content;
    Json calls = Json::array();
    const std::vector<Json> chunks = stream(answer, choice);
    for (const Json& chunk : chunks) {
      const Json& delta = chunk["choices"][0]["delta"];
      content += delta.value("content", "");
      for (const Json& call : delta.value("tool_calls", Json::array())) {
        if (call.contains("id")) {
          EXPECT_EQ(call["index"], calls.size());
          calls.push_back({{"id", call["id"]},
                           {"type", call["type"]},
                           {"function", {{"name", call["function"]["name"]}, {"arguments", ""}}}});
        }
        auto& arguments = calls.at(call["index"].get<std::size_t>())["function"]["arguments"];
        arguments = arguments.get<std::string>() + call["function"].value("arguments", "");
      }
    }
    const Json whole = Answer(with_tools(), bytes(), 1).whole(std::span(&choice, 1), {}, {});
    const Json& message = whole["choices"][0]["message"];
    EXPECT_EQ(content, message["content"]);
    EXPECT_EQ(calls, message.value("tool_calls", Json::array()));
    EXPECT_EQ(chunks.back()["choices"][0]["finish_reason"], cut ? "length" : "tool_calls");
    EXPECT_EQ(whole["choices"][0]["finish_reason"], cut ? "length" : "tool_calls");
  }
}

TEST(AnswerTest, ThoughtsComeBeforeCalls) {
  AnswerConfig config = with_tools();
  config.opens_thought = true;
  const infer::Choice choice = choice_of(cat("hm\n</think>\n\n", kCalls));
  const Json json = Answer(config, bytes(), 1).whole(std::span(&choice, 1), {}, {});
  EXPECT_EQ(json["choices"][0]["message"]["reasoning_content"], "hm");
  EXPECT_EQ(json["choices"][0]["message"]["tool_calls"].size(), 2u);
}

TEST(AnswerTest, ATokenThatSaysNothingNeedsNoChunk) {
  Answer chat(config_of(Endpoint::kChat), bytes(), 1);
  EXPECT_FALSE(chat.token_chunk(0, {0, kEos, {}, nullptr}));
  Answer completion(config_of(Endpoint::kCompletions), bytes(), 1);
  EXPECT_FALSE(completion.token_chunk(0, {0, kEos, {}, nullptr}));

  AnswerConfig config = config_of(Endpoint::kChat);
  config.logprobs = true;
  Answer with_logprobs(config, bytes(), 1);
  const infer::TokenLogprobs logprobs{-1, {}};
  const auto chunk = with_logprobs.token_chunk(0, {0, kEos, {}, &logprobs});
  ASSERT_TRUE(chunk);
  EXPECT_EQ((*chunk)["choices"][0]["delta"], Json::object());
  EXPECT_EQ((*chunk)["choices"][0]["logprobs"]["content"][0]["token"],
            bytes().decode(std::span(&kEos, 1)));
}

TEST(AnswerTest, ChoicesOfAStreamDoNotShareThoughts) {
  AnswerConfig config = config_of(Endpoint::kChat);
  config.opens_thought = true;
  Answer answer(config, bytes(), 2);
  (void)answer.token_chunk(0, {.token = 'x', .text = "a</think>"});
  const auto one = answer.token_chunk(1, {.choice = 1, .token = 'x', .text = "b"});
  ASSERT_TRUE(one);
  EXPECT_EQ((*one)["choices"][0]["index"], 1);
  EXPECT_EQ((*one)["choices"][0]["delta"]["reasoning_content"], "b");
  const auto zero = answer.token_chunk(0, {.token = 'x', .text = "c"});
  ASSERT_TRUE(zero);
  EXPECT_EQ((*zero)["choices"][0]["delta"]["content"], "c");
}

TEST(AnswerTest, ACompletionEchoesItsPromptFirst) {
  AnswerConfig config = config_of(Endpoint::kCompletions);
  config.echo = {"say: "};
  infer::Choice choice = choice_of("hello", infer::Finish::kStopped);
  choice.told = 3;
  Answer answer(config, bytes(), 1);
  std::string text;
  for (const Json& chunk : stream(answer, choice)) {
    EXPECT_EQ(chunk["object"], "text_completion");
    text += chunk["choices"][0]["text"].get<std::string>();
  }
  EXPECT_EQ(text, "say: hello");
  const Json whole = answer.whole(std::span(&choice, 1), {}, {});
  EXPECT_EQ(whole["object"], "text_completion");
  EXPECT_EQ(whole["choices"][0]["text"], "say: hello");
  EXPECT_FALSE(Answer(config_of(Endpoint::kCompletions), bytes(), 1).first_chunk(0));
}

TEST(AnswerTest, CompletionsKeepTagsOfThoughts) {
  Answer answer(config_of(Endpoint::kCompletions), bytes(), 1);
  const infer::Choice choice = choice_of("<think>a</think>b");
  EXPECT_EQ(answer.whole(std::span(&choice, 1), {}, {})["choices"][0]["text"], choice.text);
}

TEST(AnswerTest, TheUsageChunkHasNoChoices) {
  const Answer answer(config_of(Endpoint::kChat), bytes(), 1);
  const Json json = answer.usage_chunk({.prompt_tokens = 2}, {{"queue_s", 1}});
  EXPECT_EQ(json["choices"], Json::array());
  EXPECT_EQ(json["usage"]["prompt_tokens"], 2);
  EXPECT_EQ(json["timings"]["queue_s"], 1);
  EXPECT_EQ(json["object"], "chat.completion.chunk");
}

TEST(AnswerTest, CompletionLogprobsCountCharacters) {
  AnswerConfig config = config_of(Endpoint::kCompletions);
  config.logprobs = true;
  config.echo = {"\u00E9:"};  // two characters of three bytes
  // 'a', then one character of two bytes, then 'b': the second byte begins where its character
  // does.
  infer::Choice choice = choice_of("a\u00E9b");
  choice.logprobs[0].top = {{0xC3, -0.5f}, {0xA9, -0.75f}};  // one text: U+FFFD
  Answer answer(config, bytes(), 1);
  const Json logprobs = answer.whole(std::span(&choice, 1), {}, {})["choices"][0]["logprobs"];
  EXPECT_EQ(logprobs["tokens"], (Json{"a", "\uFFFD", "\uFFFD", "b"}));
  EXPECT_EQ(logprobs["token_logprobs"], (Json{0.0, -0.25, -0.5, -0.75}));
  EXPECT_EQ(logprobs["text_offset"], (Json{2, 3, 3, 4}));
  EXPECT_EQ(logprobs["top_logprobs"][0], (Json{{"\uFFFD", -0.5}}));
  EXPECT_EQ(logprobs["top_logprobs"][3], (Json{{"b", -0.75}, {"z", -8.0}}));

  // A stream says the same, token by token.
  Json offsets = Json::array();
  for (std::size_t i = 0; i < choice.tokens.size(); ++i) {
    const auto chunk = answer.token_chunk(0, {0, choice.tokens[i], {}, &choice.logprobs[i]});
    ASSERT_TRUE(chunk);
    offsets.push_back((*chunk)["choices"][0]["logprobs"]["text_offset"][0]);
  }
  EXPECT_EQ(offsets, logprobs["text_offset"]);
}

}  // namespace
}  // namespace cachalot::serve
