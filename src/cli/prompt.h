// A prompt on the command line: --prompt, --prompt-file or --tokens.
//
// Errors: kUsage names the flag; those of the tokenizer.
#pragma once

#include <CLI/App.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "cli/session.h"

namespace cachalot::cli {

struct PromptOptions {
  std::string text, file, tokens;
  bool has_text = false;  // it may be empty
  int given() const noexcept {
    return static_cast<int>(has_text) + static_cast<int>(!file.empty()) +
           static_cast<int>(!tokens.empty());
  }
};

void add_prompt(CLI::App* command, PromptOptions& options);  // which must outlive it
// kUsage unless one of the flags was given; `command` begins the message.
void require_prompt(const PromptOptions& options, const std::string& command);
// Of the one that was given: BOS first where the tokenizer adds it, but ids as they are.
std::vector<std::int32_t> prompt_tokens(const PromptOptions& options, const Session& session);

// So many ids, 0, 1, 2, ...: where any text will do, to see how long an answer takes.
std::vector<std::int32_t> any_prompt(const Session& session, int tokens);

}  // namespace cachalot::cli
