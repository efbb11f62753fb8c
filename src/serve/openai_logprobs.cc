#include "serve/openai_logprobs.h"

#include <algorithm>
#include <cmath>

namespace cachalot::serve {

namespace {

// Code points of valid UTF-8: every byte but those that go on with one.
std::int64_t characters_of(std::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

std::string text_of(std::int32_t token, const text::Tokenizer& tokenizer) {
  if (!tokenizer.has(token)) return {};
  return tokenizer.decode(std::span(&token, 1));
}

Json bytes_of(std::int32_t token, const text::Tokenizer& tokenizer) {
  Json bytes = Json::array();
  if (!tokenizer.has(token)) return bytes;
  for (const char c : tokenizer.id_to_bytes(token)) {
    bytes.push_back(static_cast<unsigned char>(c));
  }
  return bytes;
}

// JSON has no infinity; -9999 stands for "never", as in the API.
double json_logprob(float logprob) {
  constexpr double kNever = -9999;
  return std::isfinite(logprob) ? std::max(kNever, static_cast<double>(logprob)) : kNever;
}

Json chat_token(std::int32_t token, float logprob, const text::Tokenizer& tokenizer) {
  return {{"token", text_of(token, tokenizer)},
          {"logprob", json_logprob(logprob)},
          {"bytes", bytes_of(token, tokenizer)}};
}

}  // namespace

TextOffsets::TextOffsets(const text::Tokenizer& tokenizer, std::string_view before)
    : tokenizer_(&tokenizer),
      decoder_(tokenizer, /*skip_special=*/true),
      characters_(characters_of(before)) {}

std::int64_t TextOffsets::next(std::int32_t token) {
  const std::int64_t offset = characters_;
  if (tokenizer_->has(token)) characters_ += characters_of(decoder_.push(token));
  return offset;
}

Json chat_logprobs(std::span<const std::int32_t> tokens,
                   std::span<const infer::TokenLogprobs> logprobs,
                   const text::Tokenizer& tokenizer) {
  Json content = Json::array();
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    Json entry = chat_token(tokens[i], logprobs[i].logprob, tokenizer);
    Json top = Json::array();
    for (const infer::TokenLogprob& t : logprobs[i].top) {
      top.push_back(chat_token(t.token, t.logprob, tokenizer));
    }
    entry["top_logprobs"] = std::move(top);
    content.push_back(std::move(entry));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

Json completion_logprobs(std::span<const std::int32_t> tokens,
                         std::span<const infer::TokenLogprobs> logprobs,
                         const text::Tokenizer& tokenizer, TextOffsets& offsets) {
  Json texts = Json::array(), values = Json::array(), tops = Json::array(), at = Json::array();
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    texts.push_back(text_of(tokens[i], tokenizer));
    values.push_back(json_logprob(logprobs[i].logprob));
    Json top = Json::object();
    for (const infer::TokenLogprob& t : logprobs[i].top) {
      top.emplace(text_of(t.token, tokenizer), json_logprob(t.logprob));  // keeps the first
    }
    tops.push_back(std::move(top));
    at.push_back(offsets.next(tokens[i]));
  }
  return {{"tokens", std::move(texts)},
          {"token_logprobs", std::move(values)},
          {"top_logprobs", std::move(tops)},
          {"text_offset", std::move(at)}};
}

}  // namespace cachalot::serve
