// Bodies from strangers. The first byte selects what reads the rest: c chat, p completion, t
// tokenize, d detokenize; s cuts it as an answer that begins with thoughts, k as one with calls of
// tools. A body gives a request
// whose values are in their ranges, or an ApiError that can be told to anyone.
// Links: serve
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "serve/openai_answer.h"
#include "serve/openai_request.h"
#include "serve/thoughts.h"
#include "serve/tool_calls.h"
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
    const bool tool = m.role == "tool";
    require(m.role == "system" || m.role == "user" || m.role == "assistant" || tool);
    require(text::is_valid_utf8(m.content));
    require(m.tool_calls.empty() || m.role == "assistant");
    require(m.tool_call_id.empty() != tool);
    for (const text::ToolCall& call : m.tool_calls) {
      require(!call.id.empty() && text::is_tool_name(call.name));
      require(text::is_valid_utf8(call.arguments));
    }
  }
}

static void require_form(const serve::Form& form) {
  using Kind = serve::Form::Kind;
  require(form.text.size() <= serve::kMaxFormBytes);
  require(form.choices.size() <= serve::kMaxFormChoices);
  require(form.choices.empty() == (form.kind != Kind::kChoice));
  require(form.member.empty() == (form.kind == Kind::kFree));
  if (form.kind == Kind::kFree || form.kind == Kind::kJsonObject) require(form.text.empty());
}

static void require_tools(const serve::ToolUse& use) {
  require(use.tools.size() <= serve::kMaxTools);
  require(!use.on() || !use.tools.empty());
  std::size_t bytes = 0;
  bool named = false;
  for (const text::Tool& tool : use.tools) {
    require(text::is_tool_name(tool.name) && text::is_valid_utf8(tool.description));
    // One line of JSON, whatever it was.
    require(nlohmann::json::parse(tool.parameters).is_object());
    require(tool.parameters.find('\n') == std::string::npos);
    bytes += tool.parameters.size();
    named |= tool.name == use.name;
  }
  require(bytes <= serve::kMaxToolBytes);
  require(named == (use.choice == serve::ToolChoice::kNamed));
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
  require_form(r.form);
  require_tools(r.tools);
  require(chat || (!r.tools.on() && !r.thinking));
  require(!r.tools.on() || r.form.kind == serve::Form::Kind::kFree);
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
      require_tools(r.tools);
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

// As cut_thoughts. Nothing is told that the text does not have.
static void cut_calls(std::string_view text) {
  for (const text::ToolForm form : {text::ToolForm::kV3, text::ToolForm::kV31}) {
    std::string sums[2];
    for (const bool cuts : {false, true}) {
      serve::ToolCallSplitter splitter(form, [] { return "id"; });
      std::string content;
      std::vector<std::string> calls;
      const auto add = [&](const serve::ToolCallSplitter::Part& part) {
        content += part.content;
        for (const auto& call : part.calls) {
          if (!call.name.empty()) {
            require(call.id == "id" && text::is_tool_name(call.name));
            calls.push_back(call.name + '\0');
          }
          require(static_cast<std::size_t>(call.index) + 1 == calls.size());
          calls.back() += call.arguments;
        }
      };
      std::size_t from = 0;
      for (std::size_t i = 0; cuts && i < text.size(); ++i) {
        if (text[i] % 2 == 0) continue;
        add(splitter.push(text.substr(from, i - from)));
        from = i;
      }
      add(splitter.push(text.substr(from)));
      add(splitter.finish());
      require(static_cast<std::size_t>(splitter.calls()) == calls.size());
      std::string& sum = sums[cuts ? 1 : 0];
      sum = content;
      for (const std::string& call : calls) sum += '\1' + call;
      require(content.size() <= text.size());
    }
    require(sums[0] == sums[1]);
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
  if (all[0] == 'k') {
    cut_calls(rest);
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
