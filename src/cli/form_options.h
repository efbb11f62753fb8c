// What the answer is held to, on the command line: --json-schema, --regex or --grammar.
//
// Errors: kUsage: more than one of them, no tokenizer; those of the files and of what they hold.
#pragma once

#include <CLI/App.hpp>
#include <memory>
#include <optional>
#include <string>

#include "cli/session.h"
#include "grammar/constraint.h"

namespace cachalot::cli {

struct FormOptions {
  std::string json_schema, regex, grammar;
  bool asked() const noexcept { return !json_schema.empty() || !regex.empty() || !grammar.empty(); }
};

void add_form(CLI::App* command, FormOptions& options);  // which must outlive it
// What the flags ask for, if they do: before the weights are loaded, so that what is wrong with it
// is said at once.
std::optional<grammar::Grammar> read_form(const FormOptions& options);
// Of what read_form gave; nullptr for nothing. Borrows the session's tokenizer.
std::shared_ptr<const grammar::Constraint> constraint_of(
    const std::optional<grammar::Grammar>& form, const Session& session);

}  // namespace cachalot::cli
