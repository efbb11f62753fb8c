// Bodies from strangers. The first byte selects what reads the rest: c chat, p completion, t
// tokenize, d detokenize; s cuts it as an answer that begins with thoughts. A body gives a request
// whose values are in their ranges, or an ApiError that can be told to anyone.
// Links: serve
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "serve/openai_answer.h"
#include "serve/openai_request.h"
#include "serve/thoughts.h"
#include "text/utf8.h"

using namespace cachalot;  // NOLINT: a fuzzer of one room

static void require(bool truth) {
  if (!truth) std::abort();
}

static void require_tellable(const std::string& text) {
  require(text::is_valid_utf8(text));
  require(text.size() < 1000);
  for (const char c : text) require(static_cast<unsigned char>(c) >= 0x20 && c != 0x7F);
}

static void require_messages(const std::vector<text::ChatMessage>& messages) {
  for (const text::ChatMessage& m : messages) {
    require(m.role == "system" || m.role == "user" || m.role == "assistant");
    require(text::is_valid_utf8(m.content));
  }
}

static void require_request(const serve::ApiRequest& r, serve::Endpoint endpoint) {
  const bool chat = endpoint == serve::Endpoint::kChat;
  require(r.endpoint == endpoint);
  require(r.messages.empty() != chat);
  require_messages(r.messages);
  require(r.prompts.empty() == chat && r.prompts.size() <= serve::kMaxPrompts);
  for (const serve::PromptText& prompt : r.prompts) {
    if (const auto* ids = std::get_if<std::vector<std::int32_t>>(&prompt)) {
      require(!ids->empty());
      for (const std::int32_t id : *ids) require(id >= 0);
    }
  }
  infer::validate(r.sampling);
  require(!r.max_tokens || *r.max_tokens >= (chat ? 1 : 0));
  require(r.stop.size() <= serve::kMaxStops);
  for (const std::string& stop : r.stop) {
    require(!stop.empty() && stop.size() <= serve::kMaxStopBytes);
  }
  require(r.n >= 1 && r.n <= infer::kMaxChoices);
  require(r.logprobs >= -1 && r.logprobs <= infer::kMaxLogprobs);
  require(r.stream || !r.include_usage);
  require(!r.echo || r.logprobs < 0);
}

static void read_body(char kind, std::string_view body) {
  switch (kind) {
    case 'c':
      return require_request(serve::parse_chat_request(body, {}), serve::Endpoint::kChat);
    case 'p':
      return require_request(serve::parse_completion_request(body, {}),
                             serve::Endpoint::kCompletions);
    case 't': {
      const serve::TokenizeRequest r = serve::parse_tokenize_request(body);
      require(r.prompt.has_value() == r.messages.empty());
      return require_messages(r.messages);
    }
    default:
      for (const std::int32_t id : serve::parse_detokenize_request(body)) require(id >= 0);
  }
}

// The parts do not depend on how the text is cut: at every byte that is odd, or not at all.
static void cut_thoughts(std::string_view text) {
  for (const bool opened : {false, true}) {
    serve::ThoughtSplitter::Part sums[2];
    for (const bool cuts : {false, true}) {
      serve::ThoughtSplitter splitter(opened);
      serve::ThoughtSplitter::Part& sum = sums[cuts ? 1 : 0];
      const auto add = [&](const serve::ThoughtSplitter::Part& part) {
        sum.reasoning += part.reasoning;
        sum.content += part.content;
      };
      std::size_t from = 0;
      for (std::size_t i = 0; cuts && i < text.size(); ++i) {
        if (text[i] % 2 == 0) continue;
        add(splitter.push(text.substr(from, i - from)));
        from = i;
      }
      add(splitter.push(text.substr(from)));
      add(splitter.finish());
    }
    require(sums[0].reasoning == sums[1].reasoning && sums[0].content == sums[1].content);
    require(sums[0].reasoning.size() + sums[0].content.size() <= text.size());
  }
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view all(reinterpret_cast<const char*>(data), size);
  const std::string_view rest = all.substr(1);
  if (all[0] == 's') {
    cut_thoughts(rest);
    return 0;
  }
  try {
    read_body(all[0], rest);
  } catch (const serve::ApiError& e) {
    require(e.code() == Code::kUsage || e.code() == Code::kUnsupported);
    require_tellable(e.what());
    require_tellable(e.param());
    const serve::ErrorReply reply = serve::error_reply(e);
    require(reply.status == 400);
    require(text::is_valid_utf8(serve::dump(reply.body)));
  }
  return 0;
}
