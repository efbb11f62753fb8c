// Lines of conversations, as anyone writes them. A line gives samples under each chat format, whose
// pieces are not empty and whose learnt ones end with the token that ends an answer, or an Error
// that can be told to anyone.
// Links: text
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/error.h"
#include "text/conversation.h"
#include "text/utf8.h"

using namespace cachalot;  // NOLINT: a fuzzer of one room

static constexpr std::string_view kBos = "<｜begin▁of▁sentence｜>";

static void require(bool truth) {
  if (!truth) std::abort();
}

static void require_refusal(const Error& e) {
  const std::string_view text = e.what();
  require(e.code() == Code::kUsage || e.code() == Code::kUnsupported);
  require(text::is_valid_utf8(text) && text.size() < 1000);
  for (const char c : text) require(static_cast<unsigned char>(c) >= 0x20 && c != 0x7F);
}

static void require_conversation(const text::Conversation& c) {
  require(c.learnt.size() == c.messages.size());
  require(text::is_valid_utf8(c.prompt) && text::is_valid_utf8(c.completion));
  for (std::size_t m = 0; m < c.messages.size(); ++m) {
    const text::ChatMessage& message = c.messages[m];
    require(text::is_valid_utf8(message.content));
    require(!c.learnt[m] || message.role == "assistant");
    require(message.tool_calls.empty() || message.role == "assistant");
    require(message.tool_call_id.empty() || message.role == "tool");
  }
  for (const text::Tool& tool : c.tools) {
    require(text::is_tool_name(tool.name) && text::is_valid_utf8(tool.description));
    require(tool.parameters.starts_with('{') && tool.parameters.ends_with('}'));
    require(tool.parameters.find('\n') == std::string::npos);
  }
}

static void require_samples(const text::Conversation& c, const text::ChatFormat* format) {
  std::size_t learnt = 0, wanted = c.messages.empty() ? 1 : 0;
  for (const bool one : c.learnt) wanted += one ? 1 : 0;
  try {
    for (const text::Sample& sample : text::samples_of(c, format, kBos, text::kAnswerEnd)) {
      require(!sample.empty() && sample.back().learnt);
      require(sample.front().text.starts_with(kBos));
      bool read = false;  // the piece before
      for (const text::SamplePiece& piece : sample) {
        require(!piece.text.empty());
        require(!piece.learnt || piece.text.ends_with(text::kAnswerEnd));
        require(piece.learnt || !read);
        read = !piece.learnt;
        learnt += piece.learnt ? 1 : 0;
      }
    }
    require(learnt == wanted);
  } catch (const Error& e) {
    require_refusal(e);
  }
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  text::Conversation conversation;
  try {
    conversation =
        text::parse_conversation(std::string_view(reinterpret_cast<const char*>(data), size));
  } catch (const Error& e) {
    require_refusal(e);
    return 0;
  }
  require_conversation(conversation);
  for (const char* name : {"v2", "v3", "v3-0324", "r1", "r1-0528", "v3.1"}) {
    const text::ChatFormat format = text::ChatFormat::named(name);
    require_samples(conversation, &format);
  }
  require_samples(conversation, nullptr);
  return 0;
}
