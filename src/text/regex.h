// One compiled pattern of a tokenizer.json, as the Rust `tokenizers` library (Oniguruma) reads it,
// run by PCRE2 with its JIT.
//
// Owns:    the compiled code; RegexScratch owns what a match writes.
// Threads: a Regex is shared; each thread brings its own RegexScratch.
// Errors:  kFormat for a pattern that does not compile; kUnsupported for syntax whose meaning
//          differs between the two engines, rather than a silently different split.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace cachalot::text {

class RegexScratch {
 public:
  RegexScratch();
  ~RegexScratch();
  RegexScratch(const RegexScratch&) = delete;
  RegexScratch& operator=(const RegexScratch&) = delete;

 private:
  friend class Regex;
  struct State;
  std::unique_ptr<State> state_;
};

class Regex {
 public:
  explicit Regex(const std::string& pattern);
  ~Regex();
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;

  // The leftmost match at or after `from` in VALID UTF-8: sets [begin, end). `subject` is all the
  // pattern sees: look-arounds do not reach outside it.
  bool find(std::string_view subject, std::size_t from, RegexScratch& scratch, std::size_t& begin,
            std::size_t& end) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The PCRE2 spelling of a pattern: `\s` and `\S` spelt out as the Unicode property White_Space
// (PCRE2's own `\s` also takes U+180E). For tests.
std::string to_pcre2(std::string_view pattern);

}  // namespace cachalot::text
