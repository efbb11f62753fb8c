// The texts of a model's tokens as a tree of bytes, to find all those at once that a grammar lets
// through.
//
// Owns:    its tables (DeepSeek-V3's 129,280 tokens: about 8 MB); borrows the tokenizer.
// Threads: any; immutable.
// Errors:  none. A token whose bytes can be part of no UTF-8 is left out, one of more than
//          kTwinBytes, and every special token: a grammar never lets them through. Other added
//          tokens stand as kTokenMark and their id, beside nothing that is spelt out.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace cachalot::grammar {

class Vocabulary {
 public:
  // `size`: logits of the model, which may have more of them than the tokenizer has tokens.
  Vocabulary(const text::Tokenizer& tokenizer, int size);

  int size() const noexcept { return size_; }
  const text::Tokenizer& tokenizer() const noexcept { return tokenizer_; }
  // What a grammar reads for a token; empty: nothing that any grammar lets through.
  std::string_view bytes(std::int32_t token) const;
  std::optional<std::int32_t> added_token(std::string_view content) const;

  // A node of the tree, in the order of a walk from the root, children by their byte; the root is
  // not among them.
  struct TreeNode {
    std::uint8_t byte = 0;
    std::int32_t depth = 0;  // of the byte in its tokens, from 0
    std::int32_t skip = 0;   // the node behind all that begin with it
    std::int32_t first = 0;  // of the tokens that end here, which reach to the next node's first
  };
  int longest() const noexcept { return longest_; }  // token, in bytes
  std::span<const TreeNode> tree() const noexcept { return {tree_.data(), tree_.size() - 1}; }
  std::span<const std::int32_t> tokens_at(std::size_t node) const {
    const auto first = static_cast<std::size_t>(tree_[node].first);
    return std::span(tokens_).subspan(first,
                                      static_cast<std::size_t>(tree_[node + 1].first) - first);
  }
  // Tokens that end in nodes [node, end).
  std::span<const std::int32_t> tokens_between(std::size_t node, std::size_t end) const {
    const auto first = static_cast<std::size_t>(tree_[node].first);
    return std::span(tokens_).subspan(first, static_cast<std::size_t>(tree_[end].first) - first);
  }

 private:
  const text::Tokenizer& tokenizer_;
  int size_;
  int longest_ = 0;
  std::vector<std::string> bytes_;    // by token
  std::vector<std::int32_t> tokens_;  // by their bytes
  std::vector<TreeNode> tree_;        // and one behind the last
};

}  // namespace cachalot::grammar
