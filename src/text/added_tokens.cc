#include "text/added_tokens.h"

#include <cstring>
#include <optional>

#include "text/char_class.h"
#include "text/regex.h"
#include "text/utf8.h"

namespace cachalot::text {

AddedTokens::AddedTokens(const std::vector<AddedToken>& tokens) {
  for (const AddedToken& token : tokens) {
    if (token.content.empty()) continue;
    passes_[token.normalized ? 1 : 0].insert(token);
    if (token.lstrip || token.rstrip || token.content.find('\n') != std::string::npos) {
      newline_is_safe_ = false;
    }
  }
}

void AddedTokens::Pass::insert(const AddedToken& token) {
  if (nodes.empty()) nodes.emplace_back();
  std::int32_t at = 0;
  for (const char c : token.content) {
    const auto byte = static_cast<unsigned char>(c);
    std::int32_t next = nodes[at].child;
    while (next >= 0 && nodes[next].byte != byte) next = nodes[next].sibling;
    if (next < 0) {
      next = static_cast<std::int32_t>(nodes.size());
      nodes.push_back({.child = -1, .sibling = nodes[at].child, .token = -1, .byte = byte});
      nodes[at].child = next;
    }
    at = next;
  }
  nodes[at].token = static_cast<std::int32_t>(tokens.size());
  const auto begins = static_cast<unsigned char>(token.content[0]);
  only_first = tokens.empty() || only_first == begins ? begins : -1;
  first[begins] = true;
  tokens.push_back(token);
}

std::size_t AddedTokens::Pass::next_candidate(std::string_view text, std::size_t pos) const {
  if (only_first >= 0) {
    const void* hit = std::memchr(text.data() + pos, only_first, text.size() - pos);
    return hit == nullptr ? text.size() : static_cast<const char*>(hit) - text.data();
  }
  while (pos < text.size() && !first[static_cast<unsigned char>(text[pos])]) ++pos;
  return pos;
}

const AddedToken* AddedTokens::Pass::longest_at(std::string_view text, std::size_t pos) const {
  const AddedToken* found = nullptr;
  std::int32_t at = 0;
  for (; pos < text.size(); ++pos) {
    const auto byte = static_cast<unsigned char>(text[pos]);
    at = nodes[at].child;
    while (at >= 0 && nodes[at].byte != byte) at = nodes[at].sibling;
    if (at < 0) break;
    if (nodes[at].token >= 0) found = &tokens[nodes[at].token];
  }
  return found;
}

// Where the character that ends at `pos` > 0 begins.
static std::size_t begin_before(std::string_view text, std::size_t pos) {
  do --pos;
  while ((static_cast<unsigned char>(text[pos]) & 0xC0) == 0x80);
  return pos;
}

static bool is_white_space_at(std::string_view text, std::size_t pos) {
  const auto bits = CharClasses::instance().of(next_code_point(text.data(), pos));
  return (bits & (kSpace | kNewline)) != 0;
}

namespace {

// Whether no word character touches a match, a word character being what `\w` of the Rust crate
// regex takes. It is spelt out: PCRE2's `\w` of 10.42 is letters, all numbers and the underscore,
// so it takes the superscript two and leaves circled letters, marks, other connectors and joiners.
class WholeWord {
 public:
  bool stands_alone(std::string_view text, std::size_t begin, std::size_t end) {
    if (begin > 0 && is_word(text.substr(begin_before(text, begin)))) return false;
    return end >= text.size() || !is_word(text.substr(end));
  }

 private:
  bool is_word(std::string_view text) {  // its first character
    static const Regex kWord(R"([\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}])");
    std::size_t bytes = 0, begin = 0, end = 0;
    next_code_point(text.data(), bytes);
    return kWord.find(text.substr(0, bytes), 0, scratch_, begin, end);
  }

  RegexScratch scratch_;
};

}  // namespace

void AddedTokens::Pass::cut(std::string_view text, std::vector<TextPart>& out) const {
  std::size_t done = 0;
  std::optional<WholeWord> words;  // few tokens ask for it
  for (std::size_t pos = 0; (pos = next_candidate(text, pos)) < text.size();) {
    const AddedToken* token = longest_at(text, pos);
    if (token == nullptr) {
      ++pos;
      continue;
    }
    std::size_t begin = pos, end = pos + token->content.size();
    // The search goes on here, whether the match is rejected or swallows more below: matches do not
    // overlap, but one may begin in what the one before it swallowed.
    pos = end;
    if (token->single_word) {
      if (!words) words.emplace();
      if (!words->stands_alone(text, begin, end)) continue;
    }
    while (token->lstrip && begin > done) {
      const std::size_t before = begin_before(text, begin);
      if (!is_white_space_at(text, before)) break;
      begin = before;
    }
    while (token->rstrip && end < text.size() && is_white_space_at(text, end)) {
      next_code_point(text.data(), end);
    }
    if (begin > done) out.push_back({text.substr(done, begin - done), -1});
    out.push_back({text.substr(begin, end - begin), token->id});
    done = end;
  }
  if (done < text.size()) out.push_back({text.substr(done), -1});
}

std::vector<TextPart> AddedTokens::cut(std::string_view text) const {
  std::vector<TextPart> parts;
  if (!text.empty()) parts.push_back({text, -1});
  for (const Pass& pass : passes_) {
    if (pass.tokens.empty()) continue;
    std::vector<TextPart> finer;
    for (const TextPart& part : parts) {
      if (part.id >= 0) {
        finer.push_back(part);
      } else {
        pass.cut(part.text, finer);
      }
    }
    parts = std::move(finer);
  }
  return parts;
}

}  // namespace cachalot::text
