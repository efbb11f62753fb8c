// Splits text into the pieces BPE works in: regexes of behaviour Isolated, one after the other,
// each inside the pieces the one before left. DeepSeek-V3's patterns run as a hand-written scan.
//
// Threads: shared; each thread brings its own RegexScratch.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/regex.h"
#include "text/v3_splitter.h"

namespace cachalot::text {

// GPT-2's pattern: what a ByteLevel pre-tokenizer with use_regex applies.
extern const char* const kGpt2Pattern;

// Cuts a long text where V3's patterns always end a piece: behind a newline before a printable
// ASCII character. Pieces are the same in the parts as in the whole; a part has `part_bytes` or
// more.
std::vector<std::string_view> cut_after_newlines(std::string_view text, std::size_t part_bytes);

class PreTokenizer {
 public:
  enum class Engine { kBest, kRegex };  // kRegex: no hand-written scan, for tests and benchmarks
  explicit PreTokenizer(std::vector<std::string> patterns, Engine engine = Engine::kBest);

  // Calls piece(std::string_view) for each piece of VALID UTF-8 text, in order; none is empty.
  template <class F>
  void split(std::string_view text, RegexScratch& scratch, F&& piece) const {
    if (scan_) {
      const V3Splitter splitter(text);
      for (std::size_t at = 0; at < text.size();) {
        const std::size_t end = splitter.next(at);
        piece(text.substr(at, end - at));
        at = end;
      }
      return;
    }
    for (const std::string_view part : split_by_regex(text, scratch)) piece(part);
  }

  // A newline before a character that is no white space always ends a piece, whatever stands around
  // it: long texts may be cut there without changing any piece. Shown for V3's patterns only.
  bool splits_after_newlines() const noexcept { return scan_; }
  const std::vector<std::string>& patterns() const noexcept { return patterns_; }

 private:
  std::vector<std::string_view> split_by_regex(std::string_view text, RegexScratch& scratch) const;

  std::vector<std::string> patterns_;
  std::vector<Regex> regexes_;
  bool scan_ = false;
};

}  // namespace cachalot::text
