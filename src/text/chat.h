// Chat messages to the text a DeepSeek model was trained to answer.
//
// Three formats are built in (V2, V3, R1). The Jinja template in tokenizer_config.json is not run:
// it is taken apart, and only where every piece of it is known is its format used; otherwise it is
// refused, for a wrong prompt makes a model quietly worse. DeepSeek's templates differ in how they
// join system messages, whether they drop earlier thoughts, and how they open the answer: those are
// read off.
//
// Threads: values.
// Errors:  kUnsupported for an unknown template or for tool calls; kUsage for messages of another
// form.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace cachalot::text {

struct ChatMessage {
  std::string role;  // system, user, assistant
  std::string content;
};

// [{"role": ..., "content": "..." or [{"type": "text", "text": "..."}]}, ...]
std::vector<ChatMessage> parse_messages(std::string_view json);

class ChatFormat {
 public:
  enum class Family {
    kV2,  // "User: ...\n\nAssistant: ..."
    kV3,  // <｜User｜>...<｜Assistant｜>...
  };
  static ChatFormat v2();
  static ChatFormat v3();
  static ChatFormat r1();
  static ChatFormat named(std::string_view name);  // "v2", "v3", "r1"
  // From the Jinja source; `source` says in messages where it came from.
  static ChatFormat recognise(std::string_view jinja, const std::string& source);
  static ChatFormat of(const Tokenizer& tokenizer);

  // `bos` and `eos` are the tokens' texts; see below for a tokenizer's own.
  std::string render(std::span<const ChatMessage> messages, bool add_generation_prompt,
                     std::string_view bos, std::string_view eos) const;
  std::string render(std::span<const ChatMessage> messages, bool add_generation_prompt,
                     const Tokenizer& tokenizer) const;
  // "v2", "v3" or "r1", with what deviates from it.
  std::string name() const;
  bool opens_thought() const noexcept { return opens_thought_; }  // answers begin inside <think>

  bool operator==(const ChatFormat&) const = default;

 private:
  friend class TemplateReader;
  std::string render_v2(std::span<const ChatMessage> messages, std::string_view eos) const;
  std::string render_v3(std::span<const ChatMessage> messages) const;

  Family family_ = Family::kV3;
  bool joins_system_ = true;     // several system messages: joined by an empty line, or the last
  bool drops_thoughts_ = false;  // what an earlier answer has up to </think> is left out
  bool opens_thought_ = false;   // the answer begins with <think>
};

// The template written into tokenizer_config.json by what is trained here: V3's format, without
// tools.
const std::string& v3_chat_template();

}  // namespace cachalot::text
