#include "serve/thoughts.h"

#include <algorithm>

#include "serve/begun_tag.h"

namespace cachalot::serve {

static constexpr std::string_view kOpen = "<think>";
static constexpr std::string_view kClose = "</think>";
static constexpr std::string_view kLineBreaks = "\r\n";
static constexpr std::string_view kWhiteSpace = " \t\r\n";

static void drop_leading_line_breaks(std::string& text) {
  text.erase(0, std::min(text.find_first_not_of(kLineBreaks), text.size()));
}

// Bytes of `text` without the line breaks at its end.
static std::size_t without_line_breaks(std::string_view text) {
  return text.find_last_not_of(kLineBreaks) + 1;  // npos + 1 is 0
}

ThoughtSplitter::ThoughtSplitter(bool opened) : where_(opened ? Where::kOpened : Where::kStart) {}

ThoughtSplitter::Part ThoughtSplitter::push(std::string_view text) {
  Part part;
  held_ += text;
  while (advance(part)) {
  }
  return part;
}

// One step over what is held; true where the next one may go on.
bool ThoughtSplitter::advance(Part& part) {
  switch (where_) {
    case Where::kStart: {
      const std::size_t begin = std::min(held_.find_first_not_of(kWhiteSpace), held_.size());
      const std::string_view rest = std::string_view(held_).substr(begin);
      if (rest.starts_with(kOpen)) {
        held_.erase(0, begin + kOpen.size());
        where_ = Where::kOpened;
        return true;
      }
      if (kOpen.starts_with(rest)) return false;  // also where nothing but white space came yet
      where_ = Where::kContent;
      return true;
    }
    case Where::kOpened:
      drop_leading_line_breaks(held_);
      if (held_.empty()) return false;
      where_ = Where::kThoughts;
      return true;
    case Where::kThoughts:
      return advance_thoughts(part);
    case Where::kClosed:
      drop_leading_line_breaks(held_);
      if (held_.empty()) return false;
      where_ = Where::kContent;
      return true;
    case Where::kContent:
      part.content += held_;
      held_.clear();
      return false;
  }
  return false;
}

bool ThoughtSplitter::advance_thoughts(Part& part) {
  const std::size_t close = held_.find(kClose);
  const std::size_t end =
      close == std::string::npos ? held_.size() - begun_tag(held_, kClose) : close;
  // Line breaks before what is, or may become, the tag are held back with it.
  const std::size_t certain = without_line_breaks(std::string_view(held_).substr(0, end));
  part.reasoning.append(held_, 0, certain);
  held_.erase(0, close == std::string::npos ? certain : close + kClose.size());
  if (close == std::string::npos) return false;
  where_ = Where::kClosed;
  return true;
}

ThoughtSplitter::Part ThoughtSplitter::finish() {
  Part part;
  (where_ == Where::kThoughts ? part.reasoning : part.content) = std::move(held_);
  held_.clear();
  return part;
}

}  // namespace cachalot::serve
