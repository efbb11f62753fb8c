// For the tests of this folder: small tokenizers, and JSON as a grammar written by hand.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/thread_pool.h"
#include "grammar/grammar.h"
#include "text/bpe_train.h"
#include "text/tokenizer.h"

namespace cachalot::grammar::testing {

// Learnt from JSON and prose, so that tokens cross the borders of strings and members; with two
// added tokens that are not special, and special ones.
inline text::TokenizerSpec small_spec() {
  static const std::string kText =
      R"({"name": "Ann", "age": 31, "tags": ["a", "b"], "ok": true, "note": null})"
      "\n"
      R"([{"name": "Bob", "age": 7, "tags": []}, {"name": "Łódź \"x\"", "age": -3.5e+2}])"
      "\nthe name of the whale and the name of the ship, the whale, the ship\n";
  std::string text;
  for (int i = 0; i < 20; ++i) text += kText;
  const std::string_view documents[] = {text};
  ThreadPool pool(1);
  text::TokenizerSpec spec = text::train_bpe(documents, {.vocab_size = 400}, pool);
  std::int32_t id = 0;
  for (const auto& [token, used] : spec.vocab) id = std::max(id, used + 1);
  for (const auto& added : spec.added) id = std::max(id, added.id + 1);
  spec.added.push_back({.id = id, .content = "<call>"});
  spec.added.push_back({.id = id + 1, .content = "</call>"});
  spec.added.push_back({.id = id + 2, .content = "</think>"});
  return spec;
}

inline const text::Tokenizer& small_tokenizer() {
  static const text::Tokenizer tokenizer(small_spec(), text::trained_tokenizer_config());
  return tokenizer;
}

inline ExprId json_grammar(Grammar& g) {
  const RuleId value = g.declare("value");
  const ExprId plain = g.chars(complement({{0, 0x1F}, {'"', '"'}, {'\\', '\\'}}));
  const ExprId escape = g.sequence({g.text("\\"), g.chars({{'"', '"'}, {'\\', '\\'}, {'n', 'n'}})});
  const ExprId string = g.rule(
      "string",
      g.sequence({g.text("\""), g.repeat(g.choice({plain, escape}), 0, kUnbounded), g.text("\"")}));
  const ExprId digits = g.repeat(g.chars({{'0', '9'}}), 1, kUnbounded);
  const ExprId number =
      g.sequence({g.optional(g.text("-")), digits, g.optional(g.sequence({g.text("."), digits}))});
  const ExprId member = g.sequence({string, g.text(": "), g.use(value)});
  const auto list = [&](const char* open, ExprId item, const char* close) {
    const ExprId more = g.repeat(g.sequence({g.text(", "), item}), 0, kUnbounded);
    return g.sequence({g.text(open), g.optional(g.sequence({item, more})), g.text(close)});
  };
  g.define(value, g.choice({string, number, list("{", member, "}"), list("[", g.use(value), "]"),
                            g.text("true"), g.text("false"), g.text("null")}));
  return g.use(value);
}

}  // namespace cachalot::grammar::testing
