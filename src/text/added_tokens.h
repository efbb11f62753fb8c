// Finds added tokens in raw text, before any splitting: leftmost, then longest.
//
// Threads: read-only after construction.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "text/spec.h"

namespace cachalot::text {

// One stretch of text: a token, or (id < 0) text between tokens.
struct TextPart {
  std::string_view text;
  std::int32_t id = -1;
};

class AddedTokens {
 public:
  explicit AddedTokens(const std::vector<AddedToken>& tokens);

  // Cuts VALID UTF-8 into parts, none empty. Where a token is found in the white space that the one
  // before it swallowed, parts overlap, and what was swallowed behind it is text again: so the
  // `tokenizers` library has it, and so the ids come out.
  std::vector<TextPart> cut(std::string_view text) const;
  // True where no token contains a newline or swallows white space: text may be cut after a
  // newline.
  bool newline_is_safe() const noexcept { return newline_is_safe_; }

 private:
  // Two passes, as the `tokenizers` library does: tokens that are not normalised, then the others.
  struct Pass {
    struct Node {
      std::int32_t child = -1, sibling = -1, token = -1;
      unsigned char byte = 0;
    };
    std::vector<AddedToken> tokens;
    std::vector<Node> nodes;
    std::array<bool, 256> first{};
    int only_first = -1;  // the one first byte, if all tokens share it

    void insert(const AddedToken& token);
    const AddedToken* longest_at(std::string_view text, std::size_t pos) const;
    std::size_t next_candidate(std::string_view text, std::size_t pos) const;
    void cut(std::string_view text, std::vector<TextPart>& out) const;
  };
  Pass passes_[2];
  bool newline_is_safe_ = true;
};

}  // namespace cachalot::text
