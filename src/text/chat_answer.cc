// What a model is to write behind its prompt, so that it has given a certain answer.
#include "base/error.h"
#include "text/chat.h"

namespace cachalot::text {

// Of an answer without thoughts where the prompt has begun them. R1's model card has "<think>\n\n
// </think>" for thoughts that are passed over; the prompt wrote its first line break.
static constexpr std::string_view kNoThoughtsR1 = "\n</think>\n\n";

std::string ChatFormat::answer(std::span<const ChatMessage> before, const ChatMessage& answer,
                               const RenderOptions& options, std::string_view eos) const {
  if (answer.role != "assistant") {
    throw Error(Code::kUsage, cat("an answer is a message of the role \"assistant\", but this one "
                                  "has another (",
                                  answer.role.substr(0, 16), ")"));
  }
  check(std::span(&answer, 1), options);
  // "Assistant:" ends the prompt, "Assistant: " begins an answer of the history.
  if (family_ == Family::kV2) return cat(" ", answer.content, eos);

  std::string_view content = answer.content;
  std::string text;
  RenderOptions prompt = options;
  prompt.add_generation_prompt = true;
  if (opens_thought(before, prompt)) {
    if (content.find(kThoughtEnd) == std::string_view::npos) {
      text = opens_thought_ ? kNoThoughtsR1 : kThoughtEnd;
    } else if (content.starts_with(kThoughtBegin)) {
      content.remove_prefix(kThoughtBegin.size());
      // R1's prompt wrote the line break too, V3.1's did not.
      if (opens_thought_ && content.starts_with('\n')) content.remove_prefix(1);
    }
  }
  text += content;
  if (!answer.tool_calls.empty()) text += calls_text(answer.tool_calls);
  return text += kAnswerEnd;
}

}  // namespace cachalot::text
