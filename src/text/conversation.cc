#include "text/conversation.h"

#include "base/error.h"

namespace cachalot::text {

namespace {

// Each answer's prompt is rendered anew, so work grows with the square of the messages.
constexpr std::size_t kMostMessages = 4096;
constexpr std::size_t kMostText = 64 << 20;

// A message as later prompts have it. A format that drops thoughts gets them from no client: what
// is split off an answer (serve/thoughts.h) does not come back, nor do the line breaks behind it.
ChatMessage remembered(const ChatMessage& message, const ChatFormat& format) {
  ChatMessage kept = message;
  if (message.role != "assistant" || !format.drops_thoughts()) return kept;
  const std::size_t end = kept.content.rfind(kThoughtEnd);
  if (end == std::string::npos) return kept;
  const std::size_t begin = kept.content.find_first_not_of("\r\n", end + kThoughtEnd.size());
  kept.content.erase(0, begin);  // npos: all of it
  return kept;
}

// Samples of prompts and answers as they come.
class SampleWriter {
 public:
  void add(std::string_view prompt, std::string answer) {
    if (sample_.empty() || !prompt.starts_with(text_)) finish();
    const std::string_view rest = prompt.substr(text_.size());
    if (!rest.empty()) sample_.push_back({std::string(rest), false});
    text_ += rest;
    text_ += answer;
    sample_.push_back({std::move(answer), true});
  }
  std::vector<Sample> take() {
    finish();
    return std::move(samples_);
  }

 private:
  void finish() {
    if (!sample_.empty()) samples_.push_back(std::move(sample_));
    sample_.clear();
    text_.clear();
  }
  std::vector<Sample> samples_;
  Sample sample_;     // that may go on
  std::string text_;  // of all its pieces
};

std::vector<Sample> samples_of_messages(const Conversation& conversation, const ChatFormat& format,
                                        std::string_view bos, std::string_view eos) {
  const std::vector<ChatMessage>& messages = conversation.messages;
  if (messages.size() > kMostMessages) {
    throw Error(Code::kUsage,
                cat("the conversation has ", messages.size(), " messages, but at most ",
                    kMostMessages, " are taken: divide it"));
  }
  std::vector<ChatMessage> before;
  before.reserve(messages.size());
  SampleWriter writer;
  std::size_t rendered = 0;
  for (std::size_t m = 0; m < messages.size(); ++m) {
    if (m < conversation.learnt.size() && conversation.learnt[m]) {
      RenderOptions options{.tools = conversation.tools};
      if (format.chooses_thoughts()) {
        options.thinking = messages[m].content.find(kThoughtEnd) != std::string::npos;
      }
      const std::string prompt = format.render(before, options, bos, eos);
      std::string answer = format.answer(before, messages[m], options, eos);
      if (!answer.ends_with(eos)) {
        throw Error(Code::kUnsupported,
                    cat("the chat format (", format.name(), ") ends an answer with ", kAnswerEnd,
                        ", but the tokenizer's end-of-sentence token is ", eos,
                        ": generation would not end there. Make that its \"eos_token\"."));
      }
      rendered += prompt.size() + answer.size();
      if (rendered > kMostText) {
        throw Error(Code::kUsage, cat("the prompts of the conversation's answers have more than ",
                                      kMostText >> 20, " MiB together: divide the conversation"));
      }
      writer.add(prompt, std::move(answer));
    }
    before.push_back(remembered(messages[m], format));
  }
  return writer.take();
}

}  // namespace

std::vector<Sample> samples_of(const Conversation& conversation, const ChatFormat* format,
                               std::string_view bos, std::string_view eos) {
  if (eos.empty()) {
    throw Error(Code::kUnsupported,
                "an answer needs a token that ends it, but the tokenizer names none: "
                "tokenizer_config.json needs \"eos_token\"");
  }
  if (conversation.messages.empty()) {
    Sample sample;
    std::string read = cat(bos, conversation.prompt);
    if (!read.empty()) sample.push_back({std::move(read), false});
    sample.push_back({cat(conversation.completion, eos), true});
    return {std::move(sample)};
  }
  if (format == nullptr) {
    throw Error(Code::kUnsupported,
                "messages need a model with a chat format. Lines of \"prompt\" and \"completion\" "
                "need none.");
  }
  return samples_of_messages(conversation, *format, bos, eos);
}

}  // namespace cachalot::text
