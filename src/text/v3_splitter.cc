#include "text/v3_splitter.h"

namespace cachalot::text {

const std::vector<std::string>& v3_patterns() {
  static const std::vector<std::string> patterns = {
      R"(\p{N}{1,3})",
      "[一-龥\u3040-ゟ゠-ヿ]+",
      R"re([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+)re"
      "|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
      "| ?[\\p{P}\\p{S}]+[\r\n]*"
      "|\\s*[\r\n]+"
      "|\\s+(?!\\S)|\\s+",
  };
  return patterns;
}

static bool is_ascii_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

// One character as pattern 3 sees it inside a piece of stage S.
template <V3Splitter::Stage S>
V3Splitter::Char V3Splitter::peek(std::size_t pos) const {
  if (pos >= text_.size()) return {kStop, pos};
  const Char c = at(pos);
  const bool inside = S == Stage::kCjk ? (c.bits & kCjk) != 0 : (c.bits & (kCjk | kNumber)) == 0;
  return inside ? c : Char{kStop, pos};
}

// Where the run of characters of these classes that begins at `pos` ends.
template <V3Splitter::Stage S>
std::size_t V3Splitter::run(std::size_t pos, unsigned mask) const {
  for (;;) {
    const Char c = peek<S>(pos);
    if ((c.bits & mask) == 0 || c.bits == kStop) return pos;
    pos = c.end;
  }
}

// Pattern 3 on white space: its last three alternatives.
template <V3Splitter::Stage S>
std::size_t V3Splitter::spaces(std::size_t pos) const {
  std::size_t last = pos, after_newline = 0, end = pos;
  for (;;) {
    const Char c = peek<S>(end);
    if (c.bits == kStop || (c.bits & (kSpace | kNewline)) == 0) {
      if (after_newline != 0) return after_newline;  // \s*[\r\n]+
      // \s+(?!\S) gives back one space before a word; \s+ takes a lone one.
      return c.bits == kStop || last == pos ? end : last;
    }
    if ((c.bits & kNewline) != 0) after_newline = c.end;
    last = end;
    end = c.end;
  }
}

// The match of pattern 3 that begins at `pos`; 0 if there is none.
template <V3Splitter::Stage S>
std::size_t V3Splitter::match(std::size_t pos) const {
  constexpr unsigned kWord = kLetter | kMark;
  const Char c = peek<S>(pos);
  if ((c.bits & kPunct) != 0) {
    const bool ascii = static_cast<unsigned char>(text_[pos]) < 128;
    if (S == Stage::kRest && ascii && c.end < text_.size() && is_ascii_letter(text_[c.end])) {
      std::size_t end = c.end + 1;
      while (end < text_.size() && is_ascii_letter(text_[end])) ++end;
      return end;
    }
    return run<S>(run<S>(c.end, kPunct), kNewline);
  }
  // A mark may play the optional first character too; the match is the same run either way.
  if ((c.bits & kWord) != 0) return run<S>(c.end, kWord);
  if ((c.bits & kNewline) == 0) {
    const Char follower = peek<S>(c.end);
    if (follower.bits != kStop && (follower.bits & kWord) != 0) return run<S>(follower.end, kWord);
    if (text_[pos] == ' ' && follower.bits != kStop && (follower.bits & kPunct) != 0) {
      return run<S>(run<S>(follower.end, kPunct), kNewline);
    }
  }
  return (c.bits & (kSpace | kNewline)) != 0 ? spaces<S>(pos) : 0;
}

template <V3Splitter::Stage S>
std::size_t V3Splitter::piece(std::size_t begin) const {
  if (const std::size_t end = match<S>(begin)) return end;
  // Isolated: what no match covers is one piece up to the next match.
  for (std::size_t pos = at(begin).end;;) {
    const Char c = peek<S>(pos);
    if (c.bits == kStop || match<S>(pos) != 0) return pos;
    pos = c.end;
  }
}

std::size_t V3Splitter::numbers(std::size_t begin) const {
  std::size_t end = begin;
  for (int i = 0; i < 3 && end < text_.size(); ++i) {
    const Char c = at(end);
    if ((c.bits & kNumber) == 0) break;
    end = c.end;
  }
  return end;
}

std::size_t V3Splitter::next(std::size_t begin) const {
  const std::uint8_t bits = at(begin).bits;
  if ((bits & (kNumber | kCjk)) == 0) return piece<Stage::kRest>(begin);
  return (bits & kNumber) != 0 ? numbers(begin) : piece<Stage::kCjk>(begin);
}

}  // namespace cachalot::text
