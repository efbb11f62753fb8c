// Log-probabilities of tokens as the two endpoints of the API write them.
//
// Threads: TextOffsets: one caller; the functions are pure.
// Errors:  none. An id that no token has is an empty text.
// Source:  choices.logprobs of https://platform.openai.com/docs/api-reference/chat/object and of
//          https://platform.openai.com/docs/api-reference/completions/object
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "infer/request.h"
#include "serve/api_error.h"
#include "text/tokenizer.h"

namespace cachalot::serve {

// Where each token begins in the text of an answer, in characters (code points), as the API counts.
// A token that goes on with a character begins where that character does. Texts of special tokens
// are not part of an answer: what comes behind one begins where it does. Offsets count what the
// tokens say, so those of tokens that a stop string cut away may lie past the end.
class TextOffsets {
 public:
  // `before`: the text that goes before the answer.
  TextOffsets(const text::Tokenizer& tokenizer, std::string_view before);
  std::int64_t next(std::int32_t token);  // the offset of `token`, which comes next

 private:
  const text::Tokenizer* tokenizer_;
  text::StreamDecoder decoder_;
  std::int64_t characters_;
};

// {"content": [{"token", "logprob", "bytes", "top_logprobs": [{"token", "logprob", "bytes"}]}],
//  "refusal": null}; tokens[i] has logprobs[i].
Json chat_logprobs(std::span<const std::int32_t> tokens,
                   std::span<const infer::TokenLogprobs> logprobs,
                   const text::Tokenizer& tokenizer);
// {"tokens", "token_logprobs", "top_logprobs": [{TOKEN: LOGPROB}], "text_offset"}. Of several
// tokens with one text (bytes that are no character each) the most likely one is there.
Json completion_logprobs(std::span<const std::int32_t> tokens,
                         std::span<const infer::TokenLogprobs> logprobs,
                         const text::Tokenizer& tokenizer, TextOffsets& offsets);

}  // namespace cachalot::serve
