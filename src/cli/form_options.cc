#include "cli/form_options.h"

#include "base/error.h"
#include "cli/inputs.h"
#include "grammar/automaton.h"
#include "grammar/gbnf.h"
#include "grammar/json_schema.h"
#include "grammar/regex.h"

namespace cachalot::cli {

namespace {

grammar::Grammar grammar_of(const FormOptions& o) {
  if (!o.grammar.empty()) return grammar::parse_gbnf(read_text(o.grammar));
  grammar::Grammar g;
  g.set_root(o.regex.empty() ? grammar::add_json_schema(g, read_text(o.json_schema))
                             : grammar::add_regex(g, o.regex, grammar::RegexMatch::kWhole,
                                                  grammar::CharForm::kPlain));
  return g;
}

}  // namespace

void add_form(CLI::App* command, FormOptions& options) {
  command
      ->add_option("--json-schema", options.json_schema,
                   "Answer with JSON that a schema accepts; - is standard input")
      ->type_name("FILE");
  command->add_option("--regex", options.regex, "Answer with a text that all of PATTERN matches")
      ->type_name("PATTERN");
  command
      ->add_option("--grammar", options.grammar,
                   "Answer with a text of a grammar in GBNF; - is standard input")
      ->type_name("FILE");
}

std::optional<grammar::Grammar> read_form(const FormOptions& o) {
  const int given = static_cast<int>(!o.json_schema.empty()) + static_cast<int>(!o.regex.empty()) +
                    static_cast<int>(!o.grammar.empty());
  if (given == 0) return std::nullopt;
  if (given > 1) {
    throw Error(Code::kUsage,
                "an answer is held to one of --json-schema, --regex and --grammar: give one");
  }
  try {
    grammar::Grammar form = grammar_of(o);
    // Which added tokens there are is known later; all else that can be wrong is seen here.
    grammar::compile(form, [](std::string_view) { return 0; });
    return form;
  } catch (const Error& e) {
    if (e.code() != Code::kUsage && e.code() != Code::kUnsupported) throw;
    const std::string flag = !o.grammar.empty()       ? cat("--grammar ", o.grammar)
                             : !o.json_schema.empty() ? cat("--json-schema ", o.json_schema)
                                                      : "--regex";
    throw Error(e.code(), cat(flag, ": ", e.what()));
  }
}

std::shared_ptr<const grammar::Constraint> constraint_of(
    const std::optional<grammar::Grammar>& form, const Session& session) {
  if (!form) return nullptr;
  const text::Tokenizer& tokenizer =
      session.need_tokenizer("--json-schema, --regex and --grammar", ", or leave them out");
  return std::make_shared<const grammar::Constraint>(
      std::make_shared<const grammar::Vocabulary>(tokenizer, session.model.config().vocab_size),
      *form);
}

}  // namespace cachalot::cli
