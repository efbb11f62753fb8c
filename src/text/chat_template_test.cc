// Templates that call tools, put together from their tags: the published ones differ in white space
// alone. Those of V2, V3 and R1 are in chat_test.cc.
#include <gtest/gtest.h>

#include "base/error.h"
#include "text/chat.h"

namespace cachalot::text {
namespace {

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

bool is_refused(const std::string& jinja) {
  try {
    ChatFormat::recognise(jinja, "t");
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kUnsupported);
    return true;
  }
  return false;
}

// "%if x" as {%- if x -%}, "=x" as {{- x -}}.
std::string jinja_of(const std::vector<std::string>& tags) {
  std::string text;
  for (const std::string& tag : tags) {
    text +=
        tag[0] == '%' ? cat("{%- ", tag.substr(1), " -%}\n") : cat("{{- ", tag.substr(1), " -}}\n");
  }
  return text;
}

std::vector<std::string> joined(const std::vector<std::vector<std::string>>& parts) {
  std::vector<std::string> all;
  for (const auto& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

const std::vector<std::string> kBegin = {
    "%if not add_generation_prompt is defined",
    "%set add_generation_prompt = false",
    "%endif",
};
const std::vector<std::string> kSystem = {
    "%set ns = namespace(is_first=false, is_tool=false, is_output_first=true, system_prompt='')",
    "%for message in messages",
    "%if message['role'] == 'system'",
    "%if ns.is_first_sp",
    "%set ns.system_prompt = ns.system_prompt + message['content']",
    "%set ns.is_first_sp = false",
    "%else",
    "%set ns.system_prompt = ns.system_prompt + '\\n\\n' + message['content']",
    "%endif",
    "%endif",
    "%endfor",
    "=bos_token",
    "=ns.system_prompt",
    "%for message in messages",
};
const std::string kIfCalls =
    "%if message['role'] == 'assistant' and message['tool_calls'] is defined and "
    "message['tool_calls'] is not none";
const std::string kIfNoCalls =
    "%if message['role'] == 'assistant' and (message['tool_calls'] is not defined or "
    "message['tool_calls'] is none)";
const std::string kEnd = "='<｜tool▁calls▁end｜><｜end▁of▁sentence｜>'";

std::string v31(const std::vector<std::string>& thinking, const std::string& json = "") {
  const std::string call =
      "<｜tool▁call▁begin｜>' + tool['function']['name'] + '<｜tool▁sep｜>' + "
      "tool['function']['arguments']" +
      json + " + '<｜tool▁call▁end｜>'";
  return jinja_of(joined(
      {kBegin,
       thinking,
       kSystem,
       {"%if message['role'] == 'user'", "%set ns.is_tool = false", "%set ns.is_first = false",
        "%set ns.is_last_user = true", "='<｜User｜>' + message['content']", "%endif"},
       {kIfCalls,
        "%if ns.is_last_user",
        "='<｜Assistant｜></think>'",
        "%endif",
        "%set ns.is_last_user = false",
        "%set ns.is_first = false",
        "%set ns.is_tool = false",
        "%for tool in message['tool_calls']",
        "%if not ns.is_first",
        "%if message['content'] is none",
        "='<｜tool▁calls▁begin｜>" + call,
        "%else",
        "=message['content'] + '<｜tool▁calls▁begin｜>" + call,
        "%endif",
        "%set ns.is_first = true",
        "%else",
        "='" + call,
        "%endif",
        "%endfor",
        kEnd,
        "%endif"},
       {kIfNoCalls,
        "%if ns.is_last_user",
        "='<｜Assistant｜>'",
        "%if message['prefix'] is defined and message['prefix'] and thinking",
        "='<think>'",
        "%else",
        "='</think>'",
        "%endif",
        "%endif",
        "%set ns.is_last_user = false",
        "%if ns.is_tool",
        "=message['content'] + '<｜end▁of▁sentence｜>'",
        "%set ns.is_tool = false",
        "%else",
        "%set content = message['content']",
        "%if '</think>' in content",
        "%set content = content.split('</think>', 1)[1]",
        "%endif",
        "=content + '<｜end▁of▁sentence｜>'",
        "%endif",
        "%endif"},
       {"%if message['role'] == 'tool'", "%set ns.is_last_user = false", "%set ns.is_tool = true",
        "='<｜tool▁output▁begin｜>' + message['content'] + '<｜tool▁output▁end｜>'", "%endif",
        "%endfor", "%if add_generation_prompt and ns.is_last_user and not ns.is_tool",
        "='<｜Assistant｜>'", "%if not thinking", "='</think>'", "%else", "='<think>'", "%endif",
        "%endif"}}));
}
const std::vector<std::string> kThinking = {"%if not thinking is defined", "%set thinking = false",
                                            "%endif"};

TEST(ChatToolTemplateTest, RecognisesV31) {
  EXPECT_EQ(ChatFormat::recognise(v31(kThinking), "t"), ChatFormat::v3_1());
  EXPECT_EQ(ChatFormat::recognise(v31(kThinking, "|tojson"), "t"), ChatFormat::v3_1());
  const std::vector<std::string> either = {"%if not thinking is defined",
                                           "%if enable_thinking is defined",
                                           "%set thinking = enable_thinking",
                                           "%else",
                                           "%set thinking = false",
                                           "%endif",
                                           "%endif"};
  EXPECT_EQ(ChatFormat::recognise(v31(either), "t"), ChatFormat::v3_1());
}

TEST(ChatToolTemplateTest, WhatDeviatesFromV31IsRefused) {
  const std::string good = v31(kThinking);
  for (const auto& [from, to] : std::initializer_list<std::pair<const char*, const char*>>{
           {"set thinking = false", "set thinking = true"},
           {"</think>'", "</think>\\n'"},
           {"', 1)[1]", "')[-1]"},
           {"<｜tool▁sep｜>", "<｜tool▁sep｜>\\n"},
           {"if not thinking -%}\n{{- '</think>'", "if thinking -%}\n{{- '</think>'"},
           {"<｜tool▁output▁begin｜>", "<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>"}}) {
    EXPECT_TRUE(is_refused(replaced(good, from, to))) << from;
  }
  EXPECT_TRUE(is_refused(good + "{{ eos_token }}"));
  // Each tag is needed.
  for (std::size_t at = good.rfind("{%- endif"); at > 0; at = good.rfind('\n', at - 1)) {
    EXPECT_TRUE(is_refused(good.substr(0, at))) << at;
    if (good.find('\n') == at) break;
  }
}

std::string call_v3() {
  return "<｜tool▁call▁begin｜>' + tool['type'] + '<｜tool▁sep｜>' + tool['function']['name'] + "
         "'\\n' + "
         "'```json' + '\\n' + tool['function']['arguments'] + '\\n' + '```' + "
         "'<｜tool▁call▁end｜>'";
}

// V3-0324's, or with `content` = "content" R1-0528's.
std::string v0324(const std::string& content) {
  const bool thinks = content == "content";
  const std::vector<std::string> name = {"%set content = message['content']"}, none;
  return jinja_of(
      joined({kBegin,
              kSystem,
              thinks ? name : none,
              {"%if message['role'] == 'user'", "%set ns.is_tool = false",
               "%set ns.is_first = false", "%set ns.is_last_user = true",
               "='<｜User｜>' + " + content + " + '<｜Assistant｜>'", "%endif"},
              thinks ? std::vector<std::string>{"%if message['role'] == 'assistant'",
                                                "%if '</think>' in content",
                                                "%set content = content.split('</think>')[-1]",
                                                "%endif", "%endif"}
                     : none,
              {kIfCalls,
               "%set ns.is_last_user = false",
               "%if ns.is_tool",
               "='<｜tool▁outputs▁end｜>'",
               "%endif",
               "%set ns.is_first = false",
               "%set ns.is_tool = false",
               "%set ns.is_output_first = true",
               "%for tool in message['tool_calls']",
               "%if not ns.is_first",
               "%if " + content + " is none",
               "='<｜tool▁calls▁begin｜>" + call_v3(),
               "%else",
               "=" + content + " + '<｜tool▁calls▁begin｜>" + call_v3(),
               "%endif",
               "%set ns.is_first = true",
               "%else",
               "='\\n' + '" + call_v3(),
               "%endif",
               "%endfor",
               kEnd,
               "%endif"},
              {kIfNoCalls, "%set ns.is_last_user = false", "%if ns.is_tool",
               "='<｜tool▁outputs▁end｜>' + " + content + " + '<｜end▁of▁sentence｜>'",
               "%set ns.is_tool = false", "%else"},
              thinks ? none : name,
              {"=content + '<｜end▁of▁sentence｜>'",
               "%endif",
               "%endif",
               "%if message['role'] == 'tool'",
               "%set ns.is_last_user = false",
               "%set ns.is_tool = true",
               "%if ns.is_output_first",
               "='<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>' + " + content +
                   " + '<｜tool▁output▁end｜>'",
               "%set ns.is_output_first = false",
               "%else",
               "='\\n<｜tool▁output▁begin｜>' + " + content + " + '<｜tool▁output▁end｜>'",
               "%endif",
               "%endif",
               "%endfor",
               "%if ns.is_tool",
               "='<｜tool▁outputs▁end｜>'",
               "%endif",
               "%if add_generation_prompt and not ns.is_last_user and not ns.is_tool",
               "='<｜Assistant｜>'",
               "%endif"}}));
}

TEST(ChatToolTemplateTest, RecognisesV30324AndR10528) {
  EXPECT_EQ(ChatFormat::recognise(v0324("message['content']"), "t"), ChatFormat::v3_0324());
  EXPECT_EQ(ChatFormat::recognise(v0324("content"), "t"), ChatFormat::r1_0528());
  for (const char* content : {"content", "message['content']"}) {
    const std::string good = v0324(content);
    EXPECT_TRUE(is_refused(replaced(good, "```json", "```")));
    EXPECT_TRUE(is_refused(replaced(good, "<｜tool▁outputs▁end｜>", "")));
    EXPECT_EQ(ChatFormat::recognise(
                  replaced(good, "'\\n<｜tool▁output▁begin｜>", "'<｜tool▁output▁begin｜>"), "t")
                  .name(),
              cat(ChatFormat::recognise(good, "t").name(), ", results on one line"));
  }
}

std::string r1() {
  return jinja_of(joined(
      {kBegin,
       kSystem,
       {"%if message['role'] == 'user'",
        "%set ns.is_tool = false",
        "='<｜User｜>' + message['content']",
        "%endif",
        "%if message['role'] == 'assistant' and 'tool_calls' in message",
        "%set ns.is_tool = false",
        "%for tool in message['tool_calls']",
        "%if not ns.is_first",
        "%if message['content'] is none",
        "='<｜Assistant｜><｜tool▁calls▁begin｜>" + call_v3(),
        "%else",
        "='<｜Assistant｜>' + message['content'] + '<｜tool▁calls▁begin｜>" + call_v3(),
        "%endif",
        "%set ns.is_first = true",
        "%else",
        "='\\n' + '" + call_v3(),
        "%endif",
        "%endfor",
        kEnd,
        "%endif"},
       {"%if message['role'] == 'assistant' and 'tool_calls' not in message", "%if ns.is_tool",
        "='<｜tool▁outputs▁end｜>' + message['content'] + '<｜end▁of▁sentence｜>'",
        "%set ns.is_tool = false", "%else", "%set content = message['content']",
        "%if '</think>' in content", "%set content = content.split('</think>')[-1]", "%endif",
        "='<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>'", "%endif", "%endif"},
       {"%if message['role'] == 'tool'", "%set ns.is_tool = true", "%if ns.is_output_first",
        "='<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>' + message['content'] + "
        "'<｜tool▁output▁end｜>'",
        "%set ns.is_output_first = false", "%else",
        "='<｜tool▁output▁begin｜>' + message['content'] + '<｜tool▁output▁end｜>'", "%endif",
        "%endif", "%endfor", "%if ns.is_tool", "='<｜tool▁outputs▁end｜>'", "%endif",
        "%if add_generation_prompt and not ns.is_tool", "='<｜Assistant｜><think>\\n'",
        "%endif"}}));
}

// Chats without tools are rendered alike whatever a branch says that only tools reach; what it says
// of them has to be known.
TEST(ChatToolTemplateTest, AnUnknownBranchForToolsCostsTheTools) {
  const ChatFormat known = ChatFormat::recognise(r1(), "t");
  EXPECT_EQ(known.name(), "r1, joins system messages, results on one line");
  EXPECT_EQ(known.tools(), ToolForm::kV3);
  for (const auto& [from, to] : std::initializer_list<std::pair<const char*, const char*>>{
           {"```json", "```"},
           {"'<｜tool▁outputs▁end｜>' + message", "'\\n<｜tool▁outputs▁end｜>' + message"},
           {"<｜tool▁outputs▁begin｜>", ""},
           {"{{- '<｜tool▁outputs▁end｜>' -}}", "{{- '<｜tool▁outputs▁end｜>\\n' -}}"}}) {
    const ChatFormat plain = ChatFormat::recognise(replaced(r1(), from, to), "t");
    EXPECT_EQ(plain.tools(), ToolForm::kNone) << from;
    EXPECT_EQ(plain.name(), "r1, joins system messages, no tools") << from;
  }
}

}  // namespace
}  // namespace cachalot::text
