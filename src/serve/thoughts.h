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
  // with
  // "<think>" (white space before it allowed).
  explicit ThoughtSplitter(bool opened);
  // The next piece of text; what may still become a tag is held back. The line breaks around the
  // tags belong to neither side.
  Part push(std::string_view text);
  // The end: what was held back.
  Part finish();

 private:
  enum class Where { kStart, kThoughts, kAfterThoughts, kContent };
  Where where_;
  std::string held_;
};

}  // namespace cachalot::serve
