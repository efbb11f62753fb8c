#include "grammar/matcher.h"

#include <algorithm>

#include "text/utf8.h"

namespace cachalot::grammar {

Matcher::Matcher(std::shared_ptr<const Constraint> constraint)
    : constraint_(std::move(constraint)),
      position_(constraint_->machine().start()),
      begun_(constraint_->begins_after().empty()) {}

std::shared_ptr<const TokenMask> Matcher::allowed() {
  return begun_ ? constraint_->machine().allowed(position_) : nullptr;
}

bool Matcher::may_end() {
  return begun_ ? constraint_->machine().is_complete(position_) : !constraint_->must_begin();
}

bool Matcher::must_end() { return begun_ && constraint_->machine().is_end(position_); }

bool Matcher::accept(std::int32_t token) {
  const Vocabulary& vocabulary = constraint_->vocabulary();
  if (begun_) {
    const std::string_view bytes = vocabulary.bytes(token);
    return !bytes.empty() && constraint_->machine().read(position_, bytes);
  }
  if (!vocabulary.tokenizer().has(token)) return true;  // room in the logits that no token has
  const std::string& begin = constraint_->begins_after();
  last_ += vocabulary.tokenizer().id_to_bytes(token);
  if (last_.find(begin) != std::string::npos) {
    begun_ = true;
    last_.clear();
  } else if (last_.size() >= begin.size()) {
    last_.erase(0, last_.size() - begin.size() + 1);
  }
  return true;
}

std::vector<std::int32_t> Matcher::forced(std::size_t most) {
  if (!begun_ || most == 0) return {};
  const Vocabulary& vocabulary = constraint_->vocabulary();
  // More bytes than `most` tokens have would be of no use.
  std::string bytes = constraint_->machine().forced(position_, 16 * most);
  // A space goes with the word that follows it, in the tokenizer's eyes.
  while (bytes.ends_with(' ')) bytes.pop_back();
  std::vector<std::int32_t> tokens;
  const auto add_text = [&](std::string_view text) {
    // A character that is cut would be read as another one.
    while (!text.empty() && !text::is_valid_utf8(text)) text.remove_suffix(1);
    const std::vector<std::int32_t> more = vocabulary.tokenizer().encode_plain(text);
    tokens.insert(tokens.end(), more.begin(), more.end());
  };
  std::string_view rest = bytes;
  for (;;) {
    const std::size_t mark = rest.find(static_cast<char>(kTokenMark));
    add_text(rest.substr(0, mark));
    if (mark == std::string_view::npos || rest.size() - mark < 5) break;
    std::uint32_t id = 0;
    for (std::size_t i = 4; i > 0; --i) id = id << 8 | static_cast<std::uint8_t>(rest[mark + i]);
    tokens.push_back(static_cast<std::int32_t>(id));
    rest.remove_prefix(mark + 5);
  }
  tokens.resize(std::min(tokens.size(), most));
  // A tokenizer may have tokens that the model has no logits for.
  const auto beyond = std::find_if(tokens.begin(), tokens.end(),
                                   [&](std::int32_t t) { return t >= vocabulary.size(); });
  tokens.erase(beyond, tokens.end());
  return tokens;
}

}  // namespace cachalot::grammar
