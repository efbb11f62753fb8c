// Tokens to text as they come: never half a character, and nothing that could still become a stop
// string.
//
// Threads: one caller; borrows the tokenizer.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "infer/stop_strings.h"
#include "text/tokenizer.h"

namespace cachalot::infer {

class TextStream {
 public:
  explicit TextStream(const text::Tokenizer& tokenizer, std::vector<std::string> stops = {})
      : tokenizer_(&tokenizer),
        decoder_(tokenizer, /*skip_special=*/true),
        stops_(std::move(stops)) {}

  // An id that the vocabulary has room for but the tokenizer no token has no text.
  std::string push(std::int32_t token) {
    return tokenizer_->has(token) ? stops_.push(decoder_.push(token)) : std::string();
  }
  std::string finish() {
    std::string rest = stops_.push(decoder_.flush());
    return rest + stops_.finish();
  }
  bool stopped() const noexcept { return stops_.stopped(); }

 private:
  const text::Tokenizer* tokenizer_;
  text::StreamDecoder decoder_;
  StopStrings stops_;
};

}  // namespace cachalot::infer
