// What a request binds its answer to, as a constraint that the engine holds the text to: a form
// (response_format, structured_outputs), or calls of tools as the model writes them.
//
// Owns:    the last 64 constraints made, so that requests that ask for the same share one and what
//          it has found about the vocabulary; the vocabulary's tree, from the first request that
//          needs it on. Borrows the tokenizer.
// Threads: any.
// Errors:  ApiError with the member's name: what the grammar's parts say of a schema, an expression
//          or a grammar; kUnsupported where the tokenizer lacks the tokens of calls.
#pragma once

#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "grammar/constraint.h"
#include "serve/openai_forms.h"
#include "text/chat.h"

namespace cachalot::serve {

class AnswerForms {
 public:
  static constexpr std::size_t kKept = 64;

  // `vocab_size`: logits of the model.
  AnswerForms(const text::Tokenizer& tokenizer, int vocab_size)
      : tokenizer_(tokenizer), vocab_size_(vocab_size) {}

  using ConstraintPtr = std::shared_ptr<const grammar::Constraint>;
  // nullptr for Form::Kind::kFree. `after_thoughts`: it holds for what follows "</think>".
  ConstraintPtr of_form(const Form& form, bool after_thoughts);
  // Calls of `use`, which is on, as `calls` has them. Where the model may choose, they are held to
  // their form once they begin; else nothing but calls is let through.
  ConstraintPtr of_tools(const ToolUse& use, text::ToolForm calls, bool after_thoughts);

 private:
  template <class Build>
  ConstraintPtr kept_or_made(const std::string& key, const std::string& member, Build&& build);
  std::shared_ptr<const grammar::Vocabulary> vocabulary();

  const text::Tokenizer& tokenizer_;
  const int vocab_size_;
  std::mutex mutex_;  // of all below
  std::shared_ptr<const grammar::Vocabulary> vocabulary_;
  std::list<std::pair<std::string, ConstraintPtr>> kept_;  // the one used last comes first
};

}  // namespace cachalot::serve
