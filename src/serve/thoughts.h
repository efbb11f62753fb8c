// An answer that begins with thoughts, cut at "</think>": what comes before is reasoning_content,
// what comes after is content, as DeepSeek's API has it.
//
// Threads: one caller.
// Errors:  none. A text that never closes its thoughts is all thoughts.
#pragma once

#include <string>
#include <string_view>

namespace cachalot::serve {

class ThoughtSplitter {
 public:
  struct Part {
    std::string reasoning, content;
  };
  // `opened`: the prompt ended with <think>. Else all is content, unless the text itself begins
  // with "<think>" (white space before it allowed).
  explicit ThoughtSplitter(bool opened);
  // The next piece of text; what may still become a tag is held back. The line breaks around the
  // tags belong to neither side. However a text is cut into pieces, the parts sum up to the same.
  Part push(std::string_view text);
  // The end: what was held back.
  Part finish();

 private:
  // kOpened: behind the opening tag, before the first thought.
  enum class Where { kStart, kOpened, kThoughts, kClosed, kContent };
  bool advance(Part& part);
  bool advance_thoughts(Part& part);
  Where where_;
  std::string held_;
};

}  // namespace cachalot::serve
