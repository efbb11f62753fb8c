// cachalot tokenize: text to ids, ids to text.
#include "base/error.h"
#include "cli/command.h"
#include "cli/inputs.h"
#include "cli/output.h"
#include "text/chat.h"
#include "text/tokenizer.h"

namespace cachalot::cli {

namespace {

struct Options {
  std::string model;
  bool decode = false;
  bool skip_special = false;
  bool bos = false;
  bool replace_invalid = false;
  bool chat = false;
  bool no_generation_prompt = false;
  std::string format;
};

void decode(const Options& o, const text::Tokenizer& tokenizer, const Globals& globals) {
  const std::string text =
      tokenizer.decode(parse_token_text(read_text("-"), "standard input"), o.skip_special);
  if (globals.json) {
    print_json({{"text", text}});
  } else {
    print(text);  // exactly: what was encoded comes back byte for byte
  }
}

void encode(const Options& o, const text::Tokenizer& tokenizer, const Globals& globals) {
  const std::string text = read_text("-");
  if (!o.replace_invalid) require_utf8(text, "standard input");
  std::vector<std::int32_t> tokens;
  if (o.bos) {
    if (!tokenizer.bos_id()) {
      throw Error(Code::kUsage, cat("--bos: the tokenizer of ", o.model, " names no BOS token"));
    }
    tokens.push_back(*tokenizer.bos_id());
  }
  tokenizer.encode(text, tokens);
  if (globals.json) {
    print_json({{"tokens", tokens}});
  } else {
    print_line(join_tokens(tokens));
  }
}

void render_chat(const Options& o, const text::Tokenizer& tokenizer, const Globals& globals) {
  const std::vector<text::ChatMessage> messages = text::parse_messages(read_text("-"));
  const text::ChatFormat format =
      o.format.empty() ? text::ChatFormat::of(tokenizer) : text::ChatFormat::named(o.format);
  const std::string text =
      format.render(messages, {.add_generation_prompt = !o.no_generation_prompt}, tokenizer);
  if (globals.json) {
    print_json({{"format", format.name()}, {"text", text}, {"tokens", tokenizer.encode(text)}});
  } else {
    print(text);
  }
}

// A flag that another way of working would not look at is refused.
void check_flags(const Options& o) {
  if (o.decode && o.chat) {
    throw Error(Code::kUsage, "tokenize got --decode and --chat, but they exclude each other");
  }
  const auto only = [](bool given, bool used, const char* flag, const char* needed) {
    if (!given || used) return;
    throw Error(Code::kUsage,
                cat("tokenize got ", flag, ", which is for ", needed, "; leave it out."));
  };
  const bool encodes = !o.decode && !o.chat;
  constexpr const char* kText = "text to ids, without --decode and --chat";
  only(o.bos, encodes, "--bos", kText);
  only(o.replace_invalid, encodes, "--replace-invalid", kText);
  only(o.skip_special, o.decode, "--skip-special", "ids to text, with --decode");
  only(o.no_generation_prompt, o.chat, "--no-generation-prompt", "messages, with --chat");
  only(!o.format.empty(), o.chat, "--format", "messages, with --chat");
}

void run(const Options& o, const Globals& globals) {
  check_flags(o);
  const text::Tokenizer tokenizer = text::Tokenizer::load(o.model);
  if (o.chat) {
    render_chat(o, tokenizer, globals);
  } else if (o.decode) {
    decode(o, tokenizer, globals);
  } else {
    encode(o, tokenizer, globals);
  }
}

}  // namespace

void add_tokenize(CLI::App& root, Globals& globals) {
  CLI::App* command = add_command(root, globals, "tokenize",
                                  "Text on stdin to token ids; --decode: ids to text; --chat: "
                                  "messages (JSON) to the text a model is given");
  auto o = std::make_shared<Options>();
  command->add_option("model", o->model, "Folder with tokenizer.json")
      ->required()
      ->type_name("MODEL");
  command->add_flag("--decode", o->decode, "Ids on stdin (1,2,3 or one a line) to text");
  command->add_flag("--skip-special", o->skip_special, "With --decode: leave special tokens out");
  command->add_flag("--bos", o->bos, "Put BOS before the text; otherwise nothing is added");
  command->add_flag("--replace-invalid", o->replace_invalid,
                    "Read bytes that are not UTF-8 as U+FFFD instead of refusing them");
  command->add_flag("--chat", o->chat,
                    "[{\"role\": \"user\", \"content\": \"...\"}, ...] on stdin to text");
  command->add_flag("--no-generation-prompt", o->no_generation_prompt,
                    "With --chat: end after the last message, without the opening of an answer");
  command
      ->add_option("--format", o->format,
                   "With --chat: default is the one of tokenizer_config.json's chat_template")
      ->check(CLI::IsMember({"v2", "v3", "v3-0324", "r1", "r1-0528", "v3.1"}))
      ->type_name("v2|v3|v3-0324|r1|r1-0528|v3.1");
  on_run(command, globals, o, run);
}

}  // namespace cachalot::cli
