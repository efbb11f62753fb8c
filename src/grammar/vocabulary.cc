#include "grammar/vocabulary.h"

#include <algorithm>
#include <limits>

#include "grammar/automaton.h"

namespace cachalot::grammar {

namespace {

// Bytes that are in no UTF-8 at all (RFC 3629, section 1).
bool can_be_utf8(std::string_view bytes) {
  return std::none_of(bytes.begin(), bytes.end(), [](char c) {
    const auto b = static_cast<std::uint8_t>(c);
    return b == 0xC0 || b == 0xC1 || b >= 0xF5;
  });
}

std::string read_as(const text::Tokenizer& tokenizer, std::int32_t token) {
  if (!tokenizer.has(token) || tokenizer.is_special(token)) return "";
  if (tokenizer.is_added(token)) return token_bytes(token);
  const std::string_view bytes = tokenizer.id_to_bytes(token);
  if (bytes.size() > static_cast<std::size_t>(kTwinBytes) || !can_be_utf8(bytes)) return "";
  return std::string(bytes);
}

}  // namespace

Vocabulary::Vocabulary(const text::Tokenizer& tokenizer, int size)
    : tokenizer_(tokenizer), size_(size) {
  bytes_.resize(static_cast<std::size_t>(size));
  for (std::int32_t t = 0; t < size; ++t) {
    std::string& bytes = bytes_[static_cast<std::size_t>(t)];
    bytes = read_as(tokenizer, t);
    if (bytes.empty()) continue;
    tokens_.push_back(t);
    longest_ = std::max(longest_, static_cast<int>(bytes.size()));
  }
  std::sort(tokens_.begin(), tokens_.end(), [this](std::int32_t a, std::int32_t b) {
    const int order = bytes(a).compare(bytes(b));
    return order != 0 ? order < 0 : a < b;
  });

  std::vector<std::size_t> path;  // nodes from the root to the one before, which have no end yet
  const auto close = [&](std::size_t depth) {
    for (; path.size() > depth; path.pop_back()) {
      tree_[path.back()].skip = static_cast<std::int32_t>(tree_.size());
    }
  };
  std::string_view before;
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    const std::string_view now = bytes(tokens_[i]);
    const auto common = static_cast<std::size_t>(
        std::mismatch(before.begin(), before.end(), now.begin(), now.end()).first - before.begin());
    if (common < now.size()) close(common);  // else the same bytes as the one before
    for (std::size_t d = common; d < now.size(); ++d) {
      path.push_back(tree_.size());
      tree_.push_back({.byte = static_cast<std::uint8_t>(now[d]),
                       .depth = static_cast<std::int32_t>(d),
                       .skip = 0,
                       .first = static_cast<std::int32_t>(i)});
    }
    before = now;
  }
  close(0);
  const auto end = static_cast<std::int32_t>(tree_.size());
  tree_.push_back(
      {.byte = 0, .depth = 0, .skip = end, .first = static_cast<std::int32_t>(tokens_.size())});
}

std::string_view Vocabulary::bytes(std::int32_t token) const {
  if (token < 0 || token >= size_) return {};
  return bytes_[static_cast<std::size_t>(token)];
}

std::optional<std::int32_t> Vocabulary::added_token(std::string_view content) const {
  const std::optional<std::int32_t> id = tokenizer_.token_to_id(content);
  if (!id || !tokenizer_.is_added(*id) || bytes(*id).empty()) return std::nullopt;
  return id;
}

}  // namespace cachalot::grammar
