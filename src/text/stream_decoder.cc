// StreamDecoder of tokenizer.h.
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace cachalot::text {

std::string StreamDecoder::push(std::int32_t id) {
  const std::string_view token = tokenizer_->id_to_bytes(id);
  if (skip_special_ && tokenizer_->is_special(id)) return "";
  held_ += token;
  std::string ready;
  std::size_t at = 0;
  while (at < held_.size()) {
    const Utf8Step step = utf8_step(held_, at);
    if (step.kind == Utf8Step::Kind::kIncomplete) break;
    if (step.kind == Utf8Step::Kind::kValid) {
      ready.append(held_, at, step.bytes);
    } else {
      ready += "\xEF\xBF\xBD";
    }
    at += step.bytes;
  }
  held_.erase(0, at);
  return ready;
}

std::string StreamDecoder::flush() {
  std::string rest = replace_invalid_utf8(held_);
  held_.clear();
  return rest;
}

}  // namespace cachalot::text
