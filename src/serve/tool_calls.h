// An answer with calls of tools, cut into what it says and what it calls, as OpenAI's API has them.
//
// Threads: one caller.
// Errors:  none. What breaks the form, or ends in the middle of it, comes out as what it is: the
//          arguments so far, or content.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "text/chat.h"

namespace cachalot::serve {

// "call_" and 24 random letters and digits.
std::string random_call_id();

class ToolCallSplitter {
 public:
  struct Delta {
    int index = 0;   // of the call in its answer
    std::string id;  // of a call that begins here, with its name; else empty
    std::string name;
    std::string arguments;  // that came
  };
  struct Part {
    std::string content;
    std::vector<Delta> calls;  // one delta a call at most
  };
  // ToolForm::kNone: all is content.
  explicit ToolCallSplitter(text::ToolForm form,
                            std::function<std::string()> make_id = random_call_id);
  // The next piece of text; what may still become a tag is held back. Line breaks before the first
  // call belong to nobody. However a text is cut into pieces, the parts sum up to the same.
  Part push(std::string_view text);
  // The end: what was held back.
  Part finish();

  int calls() const noexcept { return calls_; }
  // No call is unfinished, and none had to be taken for content.
  bool whole() const noexcept { return whole_; }

 private:
  enum class Where : std::uint8_t {
    kContent,    // before any call
    kBetween,    // where a call may begin or all may end
    kName,       // behind a call's first tag
    kArguments,  // behind its name
    kEnded,      // behind the last call's end
    kBroken,     // all else is content
  };
  bool advance(Part& part);
  bool advance_content(Part& part);
  bool advance_between();
  bool advance_name(Part& part);
  bool advance_arguments(Part& part);
  bool break_off();
  Delta& delta(Part& part) const;

  text::ToolForm form_;
  std::function<std::string()> make_id_;
  Where where_;
  bool whole_ = true;
  int calls_ = 0;
  std::string held_;
};

}  // namespace cachalot::serve
