#include "text/chat.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "testing/error_of.h"
#include "testing/fixtures.h"
#include "text/testing.h"

namespace cachalot::text {
namespace {

using cachalot::testing::error_of;

using nlohmann::json;

const std::vector<ChatMessage> kTalk = {{"system", "S"},
                                        {"user", "Q1"},
                                        {"assistant", "<think>hm</think>A1"},
                                        {"system", "T"},
                                        {"user", "Q2"}};

TEST(ChatFormatTest, RendersEachFormat) {
  EXPECT_EQ(ChatFormat::v2().render(kTalk, {}, "<B>", "<E>"),
            "<B>S\n\nUser: Q1\n\nAssistant: <think>hm</think>A1<E>T\n\nUser: Q2\n\nAssistant:");
  EXPECT_EQ(
      ChatFormat::v3().render(kTalk, {}, "<B>", "<E>"),
      "<B>S\n\nT<｜User｜>Q1<｜Assistant｜><think>hm</think>A1<｜end▁of▁sentence｜><｜User｜>Q2"
      "<｜Assistant｜>");
  EXPECT_EQ(
      ChatFormat::r1().render(kTalk, {}, "<B>", "<E>"),
      "<B>T<｜User｜>Q1<｜Assistant｜>A1<｜end▁of▁sentence｜><｜User｜>Q2<｜Assistant｜><think>\n");
  EXPECT_EQ(ChatFormat::r1().render(kTalk, {.add_generation_prompt = false}, "", ""),
            "T<｜User｜>Q1<｜Assistant｜>A1<｜end▁of▁sentence｜><｜User｜>Q2");
  EXPECT_EQ(ChatFormat::v3().render({}, {.add_generation_prompt = false}, "<B>", ""), "<B>");
}

TEST(ChatFormatTest, ReadsMessages) {
  const auto messages = parse_messages(R"([{"role": "user", "content": "a"},
      {"role": "assistant", "content": [{"type": "text", "text": "b"}, {"type": "text", "text": "c"}],
       "tool_calls": null}])");
  ASSERT_EQ(messages.size(), 2u);
  EXPECT_EQ(messages[0].content, "a");
  EXPECT_EQ(messages[1].content, "bc");
  for (const char* text : {"", "{}", "[1]", "[{}]", R"([{"role": 1, "content": "x"}])",
                           R"([{"role": "user"}])", R"([{"role": "user", "content": null}])"}) {
    error_of(Code::kUsage, [&] { parse_messages(text); });
  }
  error_of(Code::kUnsupported,
           [] { parse_messages(R"([{"role": "user", "content": [{"type": "image_url"}]}])"); });
}

TEST(ChatFormatTest, RefusesRolesItDoesNotKnow) {
  const ChatMessage other[] = {{"narrator", "x"}};
  for (const char* name : {"v2", "v3", "v3-0324", "r1", "r1-0528", "v3.1"}) {
    error_of(Code::kUsage, [&] { ChatFormat::named(name).render(other, {}, "", ""); });
  }
}

TEST(ChatFormatTest, Names) {
  for (const char* name : {"v2", "v3", "v3-0324", "r1", "r1-0528", "v3.1"}) {
    EXPECT_EQ(ChatFormat::named(name).name(), name);
  }
  error_of(Code::kUsage, [] { ChatFormat::named("v4"); });
}

constexpr const char* kV2Template =
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif "
    "%}"
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ 'User: ' + message['content'] + '\n\n' }}{% elif message['role'] == 'assistant' %}"
    "{{ 'Assistant: ' + message['content'] + eos_token }}{% elif message['role'] == 'system' %}"
    "{{ message['content'] + '\n\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}"
    "{{ 'Assistant:' }}{% endif %}";

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

TEST(ChatTemplateTest, RecognisesV2HoweverItIsSpaced) {
  EXPECT_EQ(ChatFormat::recognise(kV2Template, "t"), ChatFormat::v2());
  EXPECT_EQ(ChatFormat::recognise(replaced(kV2Template, "{{ bos_token }}", "{{bos_token}}"), "t"),
            ChatFormat::v2());
  EXPECT_EQ(ChatFormat::recognise(replaced(kV2Template, "{% endfor %}", "{%- endfor -%}\n"), "t"),
            ChatFormat::v2());
}

// Jinja takes one newline off the end of a source.
TEST(ChatTemplateTest, ANewlineBehindATemplateWritesNothing) {
  for (const char* newline : {"\n", "\r\n", "\r"}) {
    EXPECT_EQ(ChatFormat::recognise(cat(kV2Template, newline), "t"), ChatFormat::v2());
    EXPECT_EQ(ChatFormat::recognise(cat(v3_chat_template(), newline), "t").name(), "v3, no tools");
  }
}

TEST(ChatTemplateTest, RefusesAnyOther) {
  const std::string bad[] = {
      "",
      "{{ messages }}",
      "{{ bos_token",
      "{%",
      "{# comment #}",
      replaced(kV2Template, "User: ", "User : "),
      replaced(kV2Template, "{{ bos_token }}", ""),
      replaced(kV2Template, "{% endfor %}", "{% endfor %}\n"),  // writes a newline
      replaced(kV2Template, "{% endfor %}", "x{% endfor %}"),
      std::string(kV2Template) + "{{ eos_token }}",
      v3_chat_template() + " ",
      std::string(kV2Template) + "\n\n",  // one of them is written
      "\n",
  };
  for (const std::string& jinja : bad) {
    error_of(Code::kUnsupported, [&] { ChatFormat::recognise(jinja, "t"); });
  }
  const std::string text =
      error_of(Code::kUnsupported, [] { ChatFormat::recognise("{{ '<|im_start|>' }}", "config"); });
  EXPECT_NE(text.find("config"), std::string::npos);
  EXPECT_NE(text.find("im_start"), std::string::npos);
}

// From the real V3 template, changed as R1's differs from it.
TEST(ChatTemplateFixtureTest, RecognisesTheTemplatesOfV3AndR1) {
  const Tokenizer* tokenizer = testing::deepseek_v3();
  ASSERT_NE(tokenizer, nullptr);
  const std::string v3 = tokenizer->config().chat_template;
  EXPECT_EQ(ChatFormat::of(*tokenizer), ChatFormat::v3());
  EXPECT_EQ(ChatFormat::of(*tokenizer).name(), "v3");
  EXPECT_EQ(ChatFormat::recognise(v3 + "\n", "t"), ChatFormat::v3());

  const std::string answer = "{{'<｜Assistant｜>' + message['content'] + '<｜end▁of▁sentence｜>'}}";
  const std::string thought =
      "{% set content = message['content'] %}{% if '</think>' in content %}{% set content = "
      "content.split('</think>')[-1] %}{% endif %}{{'<｜Assistant｜>' + content + "
      "'<｜end▁of▁sentence｜>'}}";
  std::string r1 = replaced(v3, answer, thought);
  EXPECT_EQ(ChatFormat::recognise(r1, "t").name(), "v3, drops earlier thoughts");
  r1 = replaced(r1, "{{'<｜Assistant｜>'}}", "{{'<｜Assistant｜><think>\\n'}}");
  EXPECT_EQ(ChatFormat::recognise(r1, "t").name(), "r1, joins system messages");
  r1 = replaced(r1,
                "{%- if ns.is_first_sp %}{% set ns.system_prompt = ns.system_prompt + "
                "message['content'] %}{% set ns.is_first_sp = false %}{%- else %}{% set "
                "ns.system_prompt = ns.system_prompt + '\n\n' + message['content'] %}{%- endif %}",
                "{% set ns.system_prompt = message['content'] %}");
  EXPECT_EQ(ChatFormat::recognise(r1, "t"), ChatFormat::r1());

  for (const std::string& broken :
       {replaced(v3, "<｜User｜>", "<|User|>"), replaced(v3, "{{bos_token}}", "{{bos_token}}\n\n!"),
        replaced(v3, "{%- endfor -%}", "{{eos_token}}{%- endfor -%}"),
        replaced(r1, "<think>\\n", "<think>"), v3.substr(0, v3.size() / 2)}) {
    error_of(Code::kUnsupported, [&] { ChatFormat::recognise(broken, "t"); });
  }
}

TEST(ChatTemplateFixtureTest, RendersEveryChat) {
  const Tokenizer* tokenizer = testing::deepseek_v3();
  ASSERT_NE(tokenizer, nullptr);
  const auto folders =
      cachalot::testing::fixture_folders(cachalot::testing::FixtureKind::kTokenizer);
  ASSERT_FALSE(folders.empty());
  const ChatFormat format = ChatFormat::of(*tokenizer);
  for (const auto& folder : folders) {
    const json file = json::parse(testing::read_all(folder / "cases.json"));
    for (const json& chat : file.value("chat", json::array())) {
      const auto messages = parse_messages(chat.at("messages").dump());
      const std::string text = format.render(
          messages, {.add_generation_prompt = chat.at("add_generation_prompt")}, *tokenizer);
      EXPECT_EQ(text, chat.at("text").get<std::string>());
      EXPECT_EQ(tokenizer->encode(text), chat.at("ids").get<std::vector<std::int32_t>>());
    }
  }
}

}  // namespace
}  // namespace cachalot::text
