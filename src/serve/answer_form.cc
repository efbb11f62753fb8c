#include "serve/answer_form.h"

#include <algorithm>

#include "grammar/gbnf.h"
#include "grammar/json_schema.h"
#include "grammar/regex.h"
#include "io/json_object.h"
#include "serve/api_error.h"
#include "text/utf8.h"

namespace cachalot::serve {

namespace {

using grammar::ExprId;
using grammar::Grammar;

// A message that quotes a stranger's schema, cut to what can be told to anyone.
std::string tellable(std::string_view message) {
  constexpr std::size_t kMost = 800;
  std::string text = io::printable(text::replace_invalid_utf8(message.substr(0, kMost)));
  return message.size() > kMost ? text + "..." : text;
}

[[noreturn]] void refuse(const Error& e, const std::string& member) {
  if (e.code() != Code::kUsage && e.code() != Code::kUnsupported) throw e;
  throw ApiError(e.code(), tellable(cat(member, ": ", e.what())), member);
}

// Models that thought begin their answer behind an empty line, or at once.
ExprId behind_thoughts(Grammar& g, ExprId answer) {
  return g.sequence({g.optional(g.text("\n\n")), answer});
}

ExprId add_form(Grammar& g, const Form& form) {
  switch (form.kind) {
    case Form::Kind::kFree:
      break;
    case Form::Kind::kJsonObject:
      return grammar::add_json_object(g);
    case Form::Kind::kJsonSchema:
      return grammar::add_json_schema(g, form.text);
    case Form::Kind::kRegex:
      return grammar::add_regex(g, form.text, grammar::RegexMatch::kWhole,
                                grammar::CharForm::kPlain);
    case Form::Kind::kChoice: {
      std::vector<ExprId> texts;
      for (const std::string& text : form.choices) texts.push_back(g.text(text));
      return g.choice(std::move(texts));
    }
    case Form::Kind::kGrammar:
      break;
  }
  throw Error(Code::kInternal, "a form that is no expression");
}

// Whether arguments can be held to the tool's schema; a fault of it is thrown, with the tool's
// name.
bool is_promised(const text::Tool& tool) {
  try {
    Grammar trial;
    grammar::add_json_schema(trial, tool.parameters);
    return true;
  } catch (const Error& e) {
    if (e.code() == Code::kUnsupported && !tool.strict) return false;
    throw Error(e.code(), cat("the parameters of ", tool.name, ": ", e.what()));
  }
}

// JSON that the tool's schema accepts; any object where that cannot be promised and need not be.
ExprId add_arguments(Grammar& g, const text::Tool& tool) {
  return is_promised(tool) ? grammar::add_json_schema(g, tool.parameters)
                           : grammar::add_json_object(g);
}

// One call, without its first token: which tool is the first thing to decide.
ExprId add_call(Grammar& g, const ToolUse& use, text::ToolForm form) {
  const bool v3 = form == text::ToolForm::kV3;
  std::vector<ExprId> tools;
  for (const text::Tool& tool : use.tools) {
    if (use.choice == ToolChoice::kNamed && tool.name != use.name) continue;
    const ExprId arguments = add_arguments(g, tool);
    if (v3) {
      tools.push_back(g.sequence(
          {g.text(cat(tool.name, text::kFenceOpen)), arguments, g.text(text::kFenceClose)}));
    } else {
      tools.push_back(g.sequence({g.text(tool.name), g.token(text::kCallSeparator), arguments}));
    }
  }
  std::vector<ExprId> parts{g.token(text::kCallBegin)};
  if (v3) {
    parts.push_back(g.text(text::kCallType));
    parts.push_back(g.token(text::kCallSeparator));
  }
  parts.push_back(g.choice(std::move(tools)));
  parts.push_back(g.token(text::kCallEnd));
  return g.rule("call", g.sequence(std::move(parts)));
}

// What follows the token that begins calls.
ExprId add_calls(Grammar& g, const ToolUse& use, text::ToolForm form) {
  const ExprId call = add_call(g, use, form);
  std::vector<ExprId> parts{call};
  if (use.parallel) {
    const ExprId next =
        form == text::ToolForm::kV3 ? g.sequence({g.text("\n"), call}) : g.sequence({call});
    parts.push_back(g.repeat(next, 0, grammar::kUnbounded));
  }
  parts.push_back(g.token(text::kCallsEnd));
  return g.sequence(std::move(parts));
}

// Parts of a key, each with its length, so that no two requests have one key.
void append(std::string& key, std::string_view part) { key += cat(part.size(), ":", part, ";"); }

std::string key_of(const Form& form, bool after_thoughts) {
  std::string key = cat("form ", static_cast<int>(form.kind), after_thoughts ? " after " : " ");
  append(key, form.text);
  for (const std::string& choice : form.choices) append(key, choice);
  return key;
}

std::string key_of(const ToolUse& use, text::ToolForm calls, bool after_thoughts) {
  std::string key = cat("tools ", static_cast<int>(calls), static_cast<int>(use.choice),
                        use.parallel ? " many" : " one", after_thoughts ? " after " : " ");
  append(key, use.name);
  for (const text::Tool& tool : use.tools) {
    append(key, tool.name);
    append(key, tool.parameters);
    key += tool.strict ? 's' : ' ';
  }
  return key;
}

void check_tokens(const text::Tokenizer& tokenizer) {
  for (const std::string_view content : {text::kCallsBegin, text::kCallsEnd, text::kCallBegin,
                                         text::kCallEnd, text::kCallSeparator}) {
    const auto id = tokenizer.token_to_id(content);
    if (id && tokenizer.is_added(*id) && !tokenizer.is_special(*id)) continue;
    throw ApiError(Code::kUnsupported,
                   cat("this model's tokenizer has no token ", content,
                       ", which calls of tools are written with: leave tools out"),
                   "tools");
  }
}

}  // namespace

std::shared_ptr<const grammar::Vocabulary> AnswerForms::vocabulary() {
  const std::lock_guard lock(mutex_);
  if (vocabulary_ == nullptr) {
    vocabulary_ = std::make_shared<const grammar::Vocabulary>(tokenizer_, vocab_size_);
  }
  return vocabulary_;
}

template <class Build>
AnswerForms::ConstraintPtr AnswerForms::kept_or_made(const std::string& key,
                                                     const std::string& member, Build&& build) {
  const auto find = [&] {
    const auto found = std::find_if(kept_.begin(), kept_.end(),
                                    [&](const auto& entry) { return entry.first == key; });
    if (found == kept_.end()) return ConstraintPtr();
    kept_.splice(kept_.begin(), kept_, found);
    return kept_.front().second;
  };
  {
    const std::lock_guard lock(mutex_);
    if (ConstraintPtr kept = find()) return kept;
  }
  // Others need not wait for it. Who makes the same at the same time makes it for nothing.
  ConstraintPtr made;
  try {
    made = build(vocabulary());
  } catch (const ApiError&) {
    throw;
  } catch (const Error& e) {
    refuse(e, member);
  }
  const std::lock_guard lock(mutex_);
  if (ConstraintPtr kept = find()) return kept;
  kept_.emplace_front(key, std::move(made));
  if (kept_.size() > kKept) kept_.pop_back();
  return kept_.front().second;
}

AnswerForms::ConstraintPtr AnswerForms::of_form(const Form& form, bool after_thoughts) {
  if (form.kind == Form::Kind::kFree) return nullptr;
  return kept_or_made(key_of(form, after_thoughts), form.member, [&](auto vocabulary) {
    Grammar g;
    ExprId root{};
    if (form.kind == Form::Kind::kGrammar) {
      g = grammar::parse_gbnf(form.text);
      root = g.root();
    } else {
      root = add_form(g, form);
    }
    g.set_root(after_thoughts ? behind_thoughts(g, root) : root);
    return std::make_shared<const grammar::Constraint>(
        std::move(vocabulary), g, std::string(after_thoughts ? text::kThoughtEnd : ""));
  });
}

AnswerForms::ConstraintPtr AnswerForms::of_tools(const ToolUse& use, text::ToolForm calls,
                                                 bool after_thoughts) {
  check_tokens(tokenizer_);
  const bool may_choose = use.choice == ToolChoice::kAuto;
  // A model that may choose is free until it calls, thoughts or none.
  after_thoughts = after_thoughts && !may_choose;
  return kept_or_made(key_of(use, calls, after_thoughts), "tools", [&](auto vocabulary) {
    Grammar g;
    const ExprId all = add_calls(g, use, calls);
    if (may_choose) {
      g.set_root(all);
      return std::make_shared<const grammar::Constraint>(
          std::move(vocabulary), g, std::string(text::kCallsBegin), /*must_begin=*/false);
    }
    const ExprId root = g.sequence({g.token(text::kCallsBegin), all});
    g.set_root(after_thoughts ? behind_thoughts(g, root) : root);
    return std::make_shared<const grammar::Constraint>(
        std::move(vocabulary), g, std::string(after_thoughts ? text::kThoughtEnd : ""));
  });
}

}  // namespace cachalot::serve
