// A conversation to learn from: which text a model reads, and which of it it is to learn to write.
//
// A file of conversations is JSON Lines, one object a line, as OpenAI's fine-tuning and TRL take
// them:
//   {"messages": [{"role", "content", "weight"?, ...}, ...], "tools"?: [...]}
//   {"prompt": "...", "completion": "..."}
// Messages are those of the chat API (text/chat.h). What is learnt are the assistant's answers,
// with the token that ends each; "weight": 0 leaves one out. An answer's thoughts stand in its
// content, or are its "reasoning_content": then they are put before it, as
// "<think>\n...\n</think>\n\n".
//
// Threads: values.
// Errors:  kUsage for a line of another form (saying which member, what was met and what is
//          needed), or a conversation too long; kUnsupported for what a chat format has no place
//          for.
// Source:  https://platform.openai.com/docs/guides/supervised-fine-tuning (fields "messages",
//          "weight", "tools"); https://huggingface.co/docs/trl/dataset_formats
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/chat.h"

namespace cachalot::text {

struct Conversation {
  std::vector<ChatMessage> messages;  // none: prompt and completion
  std::vector<bool> learnt;           // of each message: whether its text is learnt
  std::vector<Tool> tools;
  std::string prompt, completion;
};

Conversation parse_conversation(std::string_view line);

struct SamplePiece {
  std::string text;
  bool learnt = false;

  bool operator==(const SamplePiece&) const = default;
};
// A text to train on: pieces that are tokenized each by itself, for at an answer's beginning a
// server's prompt has ended. Learnt pieces end with the token that ends an answer.
using Sample = std::vector<SamplePiece>;

// What a model reads and writes in a conversation: for each learnt answer the prompt that it would
// have been given, and the answer. Answers whose prompt is what came before them (prompt and
// answer) and more go on in one sample; where a format changes what came before (R1 and V3.1 drop
// earlier thoughts), a new sample begins, whose earlier answers are read alone. A format that drops
// thoughts is given none by a client, nor the line breaks behind them. A conversation without a
// learnt answer gives no sample. `format` is null where there are no messages.
std::vector<Sample> samples_of(const Conversation& conversation, const ChatFormat* format,
                               std::string_view bos, std::string_view eos);

}  // namespace cachalot::text
