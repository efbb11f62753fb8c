#include "serve/openai_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "serve/json_body.h"
#include "serve/testing.h"

namespace cachalot::serve {
namespace {

using ::testing::HasSubstr;
using Ids = std::vector<std::int32_t>;

// A chat, or a completion, with the members of `more` besides the one it needs.
std::string chat_body(const std::string& more) {
  return R"({"messages": [{"role": "user", "content": "Hi"}])" + (more.empty() ? "" : ", " + more) +
         "}";
}
std::string completion_body(const std::string& more) {
  return R"({"prompt": "Hi")" + (more.empty() ? "" : ", " + more) + "}";
}
ApiRequest chat(const std::string& more) { return parse_chat_request(chat_body(more), {}); }
ApiRequest completion(const std::string& more) {
  return parse_completion_request(completion_body(more), {});
}

// What chats say to a member that completions do not take either.
std::string refused(const std::string& param, const std::string& more) {
  testing::error_of(Code::kUsage, param, [&] { completion(more); });
  return testing::error_of(Code::kUsage, param, [&] { chat(more); });
}
std::string refused_chat(const std::string& param, const std::string& more) {
  return testing::error_of(Code::kUsage, param, [&] { chat(more); });
}
std::string refused_completion(const std::string& param, const std::string& more,
                               Code code = Code::kUsage) {
  return testing::error_of(code, param, [&] { completion(more); });
}

TEST(ApiRequestTest, WhatIsNotGivenIsTheDefault) {
  RequestDefaults defaults;
  defaults.sampling.temperature = 0.6;
  defaults.sampling.top_p = 0.95;
  const ApiRequest r = parse_chat_request(chat_body(""), defaults);
  EXPECT_EQ(r.endpoint, Endpoint::kChat);
  EXPECT_EQ(r.model, "");
  ASSERT_EQ(r.messages.size(), 1u);
  EXPECT_EQ(r.messages[0].content, "Hi");
  EXPECT_EQ(r.sampling.temperature, 0.6);
  EXPECT_EQ(r.sampling.top_p, 0.95);
  EXPECT_EQ(r.seed, std::nullopt);
  EXPECT_EQ(r.max_tokens, std::nullopt);
  EXPECT_TRUE(r.stop.empty());
  EXPECT_EQ(r.n, 1);
  EXPECT_EQ(r.logprobs, -1);
  EXPECT_FALSE(r.stream || r.include_usage || r.echo || r.ignore_eos);
  EXPECT_EQ(completion("").endpoint, Endpoint::kCompletions);
  EXPECT_EQ(completion("").sampling.temperature, 1);
}

TEST(ApiRequestTest, ReadsEveryMemberBothEndpointsHave) {
  const std::string all =
      R"("model": "m", "temperature": 0.5, "top_p": 0.25, "top_k": 7, "min_p": 0.125,
         "repetition_penalty": 1.5, "presence_penalty": -2, "frequency_penalty": 2, "seed": 9,
         "max_tokens": 33, "stop": ["a", "b"], "n": 2, "stream": true,
         "stream_options": {"include_usage": true}, "ignore_eos": true)";
  for (const ApiRequest& r : {chat(all), completion(all)}) {
    EXPECT_EQ(r.model, "m");
    EXPECT_EQ(r.sampling.temperature, 0.5);
    EXPECT_EQ(r.sampling.top_p, 0.25);
    EXPECT_EQ(r.sampling.top_k, 7);
    EXPECT_EQ(r.sampling.min_p, 0.125);
    EXPECT_EQ(r.sampling.repetition_penalty, 1.5);
    EXPECT_EQ(r.sampling.presence_penalty, -2);
    EXPECT_EQ(r.sampling.frequency_penalty, 2);
    EXPECT_EQ(r.seed, 9u);
    EXPECT_EQ(r.max_tokens, 33);
    EXPECT_EQ(r.stop, (std::vector<std::string>{"a", "b"}));
    EXPECT_EQ(r.n, 2);
    EXPECT_TRUE(r.stream && r.include_usage && r.ignore_eos);
  }
}

TEST(ApiRequestTest, NullMeansAbsent) {
  std::string all;
  for (const char* name : {"model",
                           "temperature",
                           "top_p",
                           "top_k",
                           "min_p",
                           "repetition_penalty",
                           "presence_penalty",
                           "frequency_penalty",
                           "seed",
                           "max_tokens",
                           "max_completion_tokens",
                           "stop",
                           "n",
                           "logprobs",
                           "stream",
                           "stream_options",
                           "ignore_eos",
                           "logit_bias",
                           "response_format",
                           "tools",
                           "tool_choice",
                           "functions",
                           "function_call",
                           "modalities",
                           "audio",
                           "reasoning_effort",
                           "verbosity",
                           "top_logprobs",
                           "best_of",
                           "echo",
                           "suffix",
                           "user"}) {
    all += cat(all.empty() ? "" : ", ", "\"", name, "\": null");
  }
  for (const ApiRequest& r : {chat(all), completion(all)}) {
    EXPECT_EQ(r.sampling.temperature, 1);
    EXPECT_EQ(r.max_tokens, std::nullopt);
    EXPECT_EQ(r.n, 1);
    EXPECT_EQ(r.logprobs, -1);
    EXPECT_FALSE(r.stream);
  }
}

TEST(ApiRequestTest, RangesIncludeTheirEnds) {
  for (const char* more :
       {R"("temperature": 0)", R"("temperature": 2)", R"("top_p": 1)", R"("top_p": 1e-9)",
        R"("min_p": 0)", R"("min_p": 1)", R"("presence_penalty": -2)", R"("presence_penalty": 2.0)",
        R"("frequency_penalty": -2)", R"("frequency_penalty": 2)", R"("n": 1)", R"("n": 128)",
        R"("n": 2.0)", R"("top_k": -1)", R"("top_k": 0)", R"("repetition_penalty": 0.01)",
        R"("repetition_penalty": 100)", R"("max_tokens": 2147483647)"}) {
    EXPECT_NO_THROW(chat(more)) << more;
    EXPECT_NO_THROW(completion(more)) << more;
  }
  EXPECT_EQ(chat(R"("top_k": -1)").sampling.top_k, 0);
}

TEST(ApiRequestTest, RefusesWhatIsOutOfRangeByTheMembersName) {
  const std::pair<const char*, std::vector<const char*>> kCases[] = {
      {"temperature", {"-0.1", "true", "\"1\"", "[]"}},
      {"top_p", {"0", "-1", "1.01", "false"}},
      {"min_p", {"-0.1", "1.1", "{}"}},
      {"presence_penalty", {"-2.1", "2.1", "\"0\""}},
      {"frequency_penalty", {"-2.1", "2.1"}},
      {"repetition_penalty", {"0", "-1", "101"}},
      {"top_k", {"-2", "1.5", "2147483648"}},
      {"n", {"0", "129", "1.5", "true"}},
      {"max_tokens", {"-1", "1.5", "\"9\"", "2147483648"}},
      {"max_completion_tokens", {"-1"}},
      {"seed", {"1.5", "\"7\"", "18446744073709551616", "true"}},
      {"stop", {"1", "[1]", "\"\"", "[\"a\", \"\"]", "{}", "[null]"}},
      {"stream", {"1", "\"true\""}},
      {"ignore_eos", {"0"}},
      {"model", {"1", "[]"}},
  };
  for (const auto& [name, values] : kCases) {
    for (const char* value : values) {
      const std::string text = refused(name, cat("\"", name, "\": ", value));
      EXPECT_THAT(text, HasSubstr("must be")) << value;
    }
  }
  EXPECT_EQ(refused("temperature", R"("temperature": "hot")"),
            "temperature is \"hot\", but it must be a number, 0 (the most likely token) or more");
}

TEST(ApiRequestTest, ASeedIsAny64Bits) {
  EXPECT_EQ(chat(R"("seed": 0)").seed, 0u);
  EXPECT_EQ(chat(R"("seed": 18446744073709551615)").seed, UINT64_MAX);
  EXPECT_EQ(chat(R"("seed": -1)").seed, UINT64_MAX);  // two's complement
  EXPECT_EQ(chat(R"("seed": -9223372036854775808)").seed, std::uint64_t{1} << 63);
  EXPECT_EQ(chat(R"("seed": 12.0)").seed, 12u);
}

TEST(ApiRequestTest, TheTwoNamesOfMaxTokensAgree) {
  EXPECT_EQ(chat(R"("max_completion_tokens": 5)").max_tokens, 5);
  EXPECT_EQ(chat(R"("max_completion_tokens": 5, "max_tokens": 5)").max_tokens, 5);
  EXPECT_THAT(refused("max_completion_tokens", R"("max_completion_tokens": 5, "max_tokens": 6)"),
              HasSubstr("max_tokens is 6 and max_completion_tokens is 5"));
  EXPECT_EQ(completion(R"("max_tokens": 0)").max_tokens, 0);
  EXPECT_THAT(refused_chat("max_tokens", R"("max_tokens": 0)"), HasSubstr("1 to"));
}

TEST(ApiRequestTest, StopsAreOneOrSeveral) {
  EXPECT_EQ(chat(R"("stop": "x")").stop, std::vector<std::string>{"x"});
  EXPECT_TRUE(chat(R"("stop": [])").stop.empty());
  const auto list = [](int count, std::size_t length) {
    std::string text = "\"stop\": [";
    for (int i = 0; i < count; ++i)
      text += cat(i == 0 ? "" : ",", "\"", std::string(length, 's'), "\"");
    return text + "]";
  };
  EXPECT_EQ(chat(list(kMaxStops, kMaxStopBytes)).stop.size(), std::size_t{kMaxStops});
  EXPECT_THAT(refused("stop", list(kMaxStops + 1, 1)), HasSubstr("17 values"));
  EXPECT_THAT(refused("stop", list(1, kMaxStopBytes + 1)), HasSubstr("1024 bytes"));
}

TEST(ApiRequestTest, StreamOptionsNeedAStream) {
  EXPECT_TRUE(chat(R"("stream": true, "stream_options": {"include_usage": true})").include_usage);
  EXPECT_FALSE(chat(R"("stream": true, "stream_options": {})").include_usage);
  EXPECT_THAT(refused("stream_options", R"("stream_options": {"include_usage": true})"),
              HasSubstr("\"stream\": true"));
  EXPECT_THAT(refused("stream_options", R"("stream": true, "stream_options": {"usage": true})"),
              HasSubstr("unknown member \"stream_options.usage\""));
  EXPECT_THAT(
      refused("stream_options", R"("stream": true, "stream_options": {"include_usage": 1})"),
      HasSubstr("include_usage is 1"));
  EXPECT_THAT(refused("stream_options", R"("stream": true, "stream_options": true)"),
              HasSubstr("is true"));
}

TEST(ApiRequestTest, LogprobsOfAChatAreSwitchedOnAndCounted) {
  EXPECT_EQ(chat(R"("logprobs": true)").logprobs, 0);
  EXPECT_EQ(chat(R"("logprobs": true, "top_logprobs": 20)").logprobs, 20);
  EXPECT_EQ(chat(R"("logprobs": false)").logprobs, -1);
  EXPECT_EQ(chat(R"("logprobs": false, "top_logprobs": 0)").logprobs, -1);
  EXPECT_THAT(refused_chat("top_logprobs", R"("top_logprobs": 3)"),
              HasSubstr("\"logprobs\": true"));
  EXPECT_THAT(refused_chat("logprobs", R"("logprobs": 3)"), HasSubstr("top_logprobs"));
  refused_chat("top_logprobs", R"("logprobs": true, "top_logprobs": 21)");
}

TEST(ApiRequestTest, LogprobsOfACompletionAreANumber) {
  EXPECT_EQ(completion(R"("logprobs": 0)").logprobs, 0);
  EXPECT_EQ(completion(R"("logprobs": 20)").logprobs, 20);
  refused_completion("logprobs", R"("logprobs": 21)");
  refused_completion("logprobs", R"("logprobs": true)");
  refused_completion("logprobs", R"("logprobs": -1)");
}

TEST(ApiRequestTest, EchoAndLogprobsTogetherWouldNeedThePrompts) {
  EXPECT_TRUE(completion(R"("echo": true)").echo);
  EXPECT_THAT(refused_completion("echo", R"("echo": true, "logprobs": 1)", Code::kUnsupported),
              HasSubstr("log-probabilities of the prompt"));
}

TEST(ApiRequestTest, BestOfMustBeN) {
  EXPECT_EQ(completion(R"("best_of": 3, "n": 3)").n, 3);
  EXPECT_NO_THROW(completion(R"("best_of": 1)"));
  EXPECT_THAT(refused_completion("best_of", R"("best_of": 3)", Code::kUnsupported),
              HasSubstr("it must be n (1)"));
}

TEST(ApiRequestTest, APromptIsTextOrTokens) {
  const auto prompts = [](const std::string& prompt) {
    return parse_completion_request("{\"prompt\": " + prompt + "}", {}).prompts;
  };
  using Prompts = std::vector<PromptText>;
  EXPECT_EQ(prompts(R"("a")"), Prompts{std::string("a")});
  EXPECT_EQ(prompts(R"("")"), Prompts{std::string()});
  EXPECT_EQ(prompts(R"(["a", "b"])"), (Prompts{std::string("a"), std::string("b")}));
  EXPECT_EQ(prompts("[5, 6.0]"), Prompts{(Ids{5, 6})});
  EXPECT_EQ(prompts("[[5], [6, 7]]"), (Prompts{Ids{5}, Ids{6, 7}}));
  std::string many = "[\"p\"";
  for (int i = 1; i < kMaxPrompts; ++i) many += ", \"p\"";
  EXPECT_EQ(prompts(many + "]").size(), std::size_t{kMaxPrompts});

  const std::string too_many = many + ", \"p\"]";
  for (const std::string prompt :
       {"null", "1", "{}", "[]", "[[]]", R"(["a", 1])", R"([1, "a"])", R"([[1], "a"])", "[-1]",
        "[2147483648]", "[1.5]", "[true]", "[null]", "[[1, \"a\"]]", "[[[1]]]"}) {
    testing::error_of(Code::kUsage, "prompt", [&] { prompts(prompt); });
  }
  EXPECT_THAT(testing::error_of(Code::kUsage, "prompt", [&] { prompts(too_many); }),
              HasSubstr("at most 64"));
  EXPECT_THAT(testing::error_of(Code::kUsage, "prompt", [] { parse_completion_request("{}", {}); }),
              HasSubstr("prompt is missing"));
}

TEST(ApiRequestTest, TokenizesATextOrMessages) {
  const TokenizeRequest text = parse_tokenize_request(R"({"model": "m", "prompt": "a b"})");
  EXPECT_EQ(text.prompt, "a b");
  EXPECT_TRUE(text.messages.empty());
  EXPECT_EQ(parse_tokenize_request(R"({"prompt": ""})").prompt, "");
  const TokenizeRequest chat = parse_tokenize_request(
      R"({"messages": [{"role": "user", "content": "a"}], "add_generation_prompt": false})");
  EXPECT_FALSE(chat.prompt);
  EXPECT_EQ(chat.messages.size(), 1u);
  EXPECT_FALSE(chat.add_generation_prompt);
  const auto refused = [](const std::string& param, const char* body) {
    return testing::error_of(Code::kUsage, param, [&] { parse_tokenize_request(body); });
  };
  EXPECT_THAT(refused("prompt", "{}"), HasSubstr("neither"));
  EXPECT_THAT(refused("prompt", R"({"prompt": "a", "messages": []})"), HasSubstr("both"));
  EXPECT_THAT(refused("promt", R"({"promt": "a"})"), HasSubstr("did you mean \"prompt\"?"));
  refused("prompt", R"({"prompt": 1})");
  refused("messages", R"({"messages": []})");
}

TEST(ApiRequestTest, DetokenizesIds) {
  EXPECT_EQ(parse_detokenize_request(R"({"tokens": [1, 2]})"), (Ids{1, 2}));
  EXPECT_EQ(parse_detokenize_request(R"({"tokens": []})"), Ids());
  const auto refused = [](const std::string& param, const char* body) {
    return testing::error_of(Code::kUsage, param, [&] { parse_detokenize_request(body); });
  };
  EXPECT_THAT(refused("tokens", "{}"), HasSubstr("missing"));
  EXPECT_THAT(refused("tokens", R"({"tokens": [1, "x"]})"),
              HasSubstr("value 1 of tokens is \"x\""));
  refused("tokens", R"({"tokens": "1"})");
  refused("token", R"({"token": [1]})");
}

}  // namespace
}  // namespace cachalot::serve
