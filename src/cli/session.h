// A model opened to be run by a command: runtime, weights and, where the folder has one, its
// tokenizer.
//
// Owns:    all three.
// Threads: one command.
// Errors:  those of Runtime, Model and Tokenizer.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/inputs.h"
#include "model/weights.h"
#include "runtime/runtime.h"
#include "text/tokenizer.h"

namespace cachalot::cli {

// kUsage where the folder is there and has no tokenizer.json, which `what` needs ("--prompt");
// `instead` helps. For commands that want to know before the weights are loaded.
void require_tokenizer_file(const std::string& folder, const std::string& what,
                            const std::string& instead);

struct Session {
  // `asked`: of --precision.
  Session(const std::string& folder, const std::string& asked, int threads,
          ModelUse use = ModelUse::kOnce);

  const Context& context() const noexcept { return runtime.context(); }
  // As require_tokenizer_file, or what is wrong with the tokenizer.json there is.
  const text::Tokenizer& need_tokenizer(const std::string& what, const std::string& instead) const;
  // Tokens that end a text: config.json's and generation_config.json's.
  std::vector<std::int32_t> eos() const;

  std::string folder;
  runtime::Runtime runtime;
  // Set while `model` is made, so they come before.
  double load_seconds = 0;
  std::string precision;  // of the products: as asked for, or what `auto` chose
  model::Model model;
  std::optional<text::Tokenizer> tokenizer;  // none: token ids only

 private:
  std::unique_ptr<Error> unusable_tokenizer_;  // a tokenizer.json of a kind that is not read
};

}  // namespace cachalot::cli
