#include "cli/prompt.h"

#include "base/error.h"
#include "cli/inputs.h"

namespace cachalot::cli {

void add_prompt(CLI::App* command, PromptOptions& o) {
  command->add_option("--prompt", o.text, "Text to continue, after BOS where the tokenizer adds it")
      ->type_name("TEXT")
      ->each([&o](const std::string&) { o.has_text = true; });
  command->add_option("--prompt-file", o.file, "File with the text to continue; - for stdin")
      ->type_name("FILE");
  command->add_option("--tokens", o.tokens, "Token ids to continue, as they are: LIST or @FILE")
      ->type_name("1,2,3");
}

void require_prompt(const PromptOptions& o, const std::string& command) {
  if (o.given() == 1) return;
  throw Error(Code::kUsage, cat(command, " got ", o.given(),
                                " prompts, but needs exactly one of --prompt, --prompt-file and "
                                "--tokens"));
}

std::vector<std::int32_t> prompt_tokens(const PromptOptions& o, const Session& session) {
  if (!o.tokens.empty()) return parse_tokens(o.tokens);
  const bool file = !o.file.empty();
  const text::Tokenizer& tokenizer = session.need_tokenizer(file ? "--prompt-file" : "--prompt",
                                                            ", or give the prompt as --tokens");
  const std::string text = file ? read_text(o.file) : o.text;
  require_utf8(text, file ? o.file : std::string("--prompt"));
  std::vector<std::int32_t> tokens;
  if (tokenizer.config().add_bos_token && tokenizer.bos_id()) tokens.push_back(*tokenizer.bos_id());
  tokenizer.encode(text, tokens);
  return tokens;
}

std::vector<std::int32_t> any_prompt(const Session& session, int tokens) {
  std::vector<std::int32_t> ids;
  for (int t = 0; t < tokens; ++t) ids.push_back(t % session.model.config().vocab_size);
  return ids;
}

}  // namespace cachalot::cli
