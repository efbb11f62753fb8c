// What a request's text is held to, and where one text is in it.
//
// A Constraint is made once and may serve any number of texts; each has a Matcher, which says what
// tokens may come next, is told the one that came, and knows what text is certain to follow.
//
// Which tokens may follow is found by walking the vocabulary's tree with the grammar, once for each
// state that a text comes to; states and what they allow are kept by the Constraint, so that texts
// that are held to the same one share them.
//
// Owns:    Constraint: the automaton and what was found so far (bounded, see machine.h).
// Threads: Constraint: any. Matcher: one caller.
// Errors:  the constructor: kUsage (automaton.h). allowed, accept: kUsage where the grammar is so
//          ambiguous that a text would have to be followed along too many ways at once.
#pragma once

#include <memory>
#include <string>

#include "grammar/grammar.h"
#include "grammar/vocabulary.h"

namespace cachalot::grammar {

class Machine;

class Constraint {
 public:
  // `begins_after`: the grammar holds for what follows the first time that the text has these
  // bytes, added tokens spelt out ("</think>"); all is allowed before it, but for the text's end
  // where `must_begin`. Empty: it holds from the first token on.
  Constraint(std::shared_ptr<const Vocabulary> vocabulary, const Grammar& grammar,
             std::string begins_after = {}, bool must_begin = true);
  ~Constraint();

  const Vocabulary& vocabulary() const noexcept { return *vocabulary_; }
  const std::string& begins_after() const noexcept { return begins_after_; }
  bool must_begin() const noexcept { return must_begin_; }
  Machine& machine() const noexcept { return *machine_; }

 private:
  std::shared_ptr<const Vocabulary> vocabulary_;
  std::string begins_after_;
  bool must_begin_;
  std::unique_ptr<Machine> machine_;
};

}  // namespace cachalot::grammar
