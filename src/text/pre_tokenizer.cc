#include "text/pre_tokenizer.h"

namespace cachalot::text {

const char* const kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

std::vector<std::string_view> cut_after_newlines(std::string_view text, std::size_t part_bytes) {
  std::vector<std::string_view> parts;
  while (text.size() > part_bytes) {
    std::size_t at = text.find('\n', part_bytes);
    while (at != std::string_view::npos &&
           (at + 1 >= text.size() || text[at + 1] <= ' ' || text[at + 1] > '~')) {
      at = text.find('\n', at + 1);
    }
    if (at == std::string_view::npos) break;
    parts.push_back(text.substr(0, at + 1));
    text.remove_prefix(at + 1);
  }
  if (!text.empty()) parts.push_back(text);
  return parts;
}

PreTokenizer::PreTokenizer(std::vector<std::string> patterns, Engine engine)
    : patterns_(std::move(patterns)) {
  scan_ = engine == Engine::kBest && patterns_ == v3_patterns();
  if (scan_) return;
  regexes_.reserve(patterns_.size());
  for (const std::string& pattern : patterns_) regexes_.emplace_back(pattern);
}

// Adds the matches of `regex` in `piece`, and what lies between them, to `out`.
static void isolate(const Regex& regex, std::string_view piece, RegexScratch& scratch,
                    std::vector<std::string_view>& out) {
  std::size_t done = 0, begin = 0, end = 0;
  for (std::size_t from = 0; from < piece.size() && regex.find(piece, from, scratch, begin, end);) {
    if (begin == end) {  // takes nothing, but parts what lies before it from what lies behind
      if (begin > done) out.push_back(piece.substr(done, begin - done));
      done = begin;
      if (end >= piece.size()) break;
      std::size_t next = end;
      next_code_point(piece.data(), next);
      from = next;
      continue;
    }
    if (begin > done) out.push_back(piece.substr(done, begin - done));
    out.push_back(piece.substr(begin, end - begin));
    done = from = end;
  }
  if (done < piece.size()) out.push_back(piece.substr(done));
}

std::vector<std::string_view> PreTokenizer::split_by_regex(std::string_view text,
                                                           RegexScratch& scratch) const {
  std::vector<std::string_view> pieces;
  if (!text.empty()) pieces.push_back(text);
  for (const Regex& regex : regexes_) {
    std::vector<std::string_view> finer;
    finer.reserve(pieces.size() * 2);
    for (const std::string_view piece : pieces) isolate(regex, piece, scratch, finer);
    pieces = std::move(finer);
  }
  return pieces;
}

}  // namespace cachalot::text
