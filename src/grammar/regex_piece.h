// A part of a regular expression and what its anchors ask of its surroundings.
//
// ^ and $ are no characters: they say that nothing lies before or behind. So a part is up to four
// expressions: the texts that it matches anywhere, those that it matches at the text's beginning
// alone, at its end alone, and as the whole text alone. Put together they stay four, and anchors
// are right wherever they stand: (^|,)a+(,|$), and a^b, which nothing matches.
//
// Threads: values.
// Errors:  those of Grammar.
#pragma once

#include <array>
#include <optional>
#include <vector>

#include "grammar/grammar.h"

namespace cachalot::grammar {

struct Piece {
  // Where a form holds: a sum of these.
  static constexpr std::size_t kAtStart = 1, kAtEnd = 2, kForms = 4;
  struct Form {
    ExprId expr{};
    bool can_be_empty = false;
  };
  std::array<std::optional<Form>, kForms> forms = {};  // no form: it matches nothing there

  bool is_anchored() const noexcept { return forms[1] || forms[2] || forms[3]; }
};

Piece free_piece(ExprId expr, bool can_be_empty);         // matches alike wherever it stands
Piece anchor_piece(Grammar& grammar, std::size_t where);  // kAtStart: ^, kAtEnd: $
Piece sequence(Grammar& grammar, const std::vector<Piece>& parts);
Piece choice(Grammar& grammar, const std::vector<Piece>& parts);
Piece repeat(Grammar& grammar, const Piece& part, int least, int most);

}  // namespace cachalot::grammar
