#include "grammar/regex_piece.h"

#include <algorithm>
#include <utility>

namespace cachalot::grammar {

namespace {

constexpr std::size_t kWhole = Piece::kAtStart | Piece::kAtEnd;

using Form = Piece::Form;
using Forms = std::array<std::vector<Form>, Piece::kForms>;  // what each form is a choice of

// Each of the four as one expression, in which the empty text stands once.
Piece joined(Grammar& grammar, const Forms& found) {
  Piece piece;
  for (std::size_t i = 0; i < Piece::kForms; ++i) {
    if (found[i].empty()) continue;
    Form form;
    std::vector<ExprId> parts;
    for (const Form& f : found[i]) {
      parts.push_back(f.expr);
      form.can_be_empty = form.can_be_empty || f.can_be_empty;
    }
    form.expr = grammar.choice(std::move(parts));
    piece.forms[i] = form;
  }
  return piece;
}

Form in_sequence(Grammar& grammar, const Form& a, const Form& b) {
  return {grammar.sequence({a.expr, b.expr}), a.can_be_empty && b.can_be_empty};
}

// A form of `a`, then one of `b`. Where b is to stand at the beginning, a has read nothing; where a
// is to stand at the end, b reads nothing.
Piece pair(Grammar& grammar, const Piece& a, const Piece& b) {
  const Form empty{grammar.text(""), true};
  Forms found;
  for (std::size_t i = 0; i < Piece::kForms; ++i) {
    for (std::size_t j = 0; j < Piece::kForms; ++j) {
      if (!a.forms[i] || !b.forms[j]) continue;
      const bool a_is_empty = (j & Piece::kAtStart) != 0, b_is_empty = (i & Piece::kAtEnd) != 0;
      if ((a_is_empty && !a.forms[i]->can_be_empty) || (b_is_empty && !b.forms[j]->can_be_empty)) {
        continue;
      }
      std::vector<Form>& to = found[i | j];
      if (a_is_empty && b_is_empty) {
        to.push_back(empty);
      } else if (a_is_empty) {
        to.push_back(*b.forms[j]);
      } else if (b_is_empty) {
        to.push_back(*a.forms[i]);
      } else {
        to.push_back(in_sequence(grammar, *a.forms[i], *b.forms[j]));
      }
    }
  }
  return joined(grammar, found);
}

int less(int count, int by) { return count == kUnbounded ? count : std::max(count - by, 0); }

Form repeated(Grammar& grammar, const Form& form, int least, int most) {
  return {grammar.repeat(form.expr, least, most), least == 0 || form.can_be_empty};
}

}  // namespace

Piece free_piece(ExprId expr, bool can_be_empty) {
  Piece piece;
  piece.forms[0] = Form{expr, can_be_empty};
  return piece;
}

Piece anchor_piece(Grammar& grammar, std::size_t where) {
  Piece piece;
  piece.forms[where] = Form{grammar.text(""), true};
  return piece;
}

// Parts without anchors lie in one flat sequence: only anchors nest, and a pattern has few of them.
Piece sequence(Grammar& grammar, const std::vector<Piece>& parts) {
  std::optional<Piece> all;
  const auto append = [&](const Piece& piece) { all = all ? pair(grammar, *all, piece) : piece; };
  for (std::size_t i = 0; i < parts.size();) {
    if (parts[i].is_anchored() || !parts[i].forms[0]) {
      append(parts[i++]);
      continue;
    }
    std::vector<ExprId> run;
    bool can_be_empty = true;
    for (; i < parts.size() && parts[i].forms[0] && !parts[i].is_anchored(); ++i) {
      run.push_back(parts[i].forms[0]->expr);
      can_be_empty = can_be_empty && parts[i].forms[0]->can_be_empty;
    }
    append(free_piece(grammar.sequence(std::move(run)), can_be_empty));
  }
  return all ? *all : free_piece(grammar.text(""), true);
}

Piece choice(Grammar& grammar, const std::vector<Piece>& parts) {
  if (parts.size() == 1) return parts.front();
  Forms found;
  for (const Piece& part : parts) {
    for (std::size_t i = 0; i < Piece::kForms; ++i) {
      if (part.forms[i]) found[i].push_back(*part.forms[i]);
    }
  }
  return joined(grammar, found);
}

// Times that read nothing change no text, so that only the first one that reads may be held to the
// beginning and only the last one to the end:
//   at the beginning      S F{..}     where S, F, E, W are the forms at the beginning, free, at the
//   at the end            F{..} E     end and as a whole
//   as a whole            W  and  S F{..} E
// The times left for F are least - 1 (or - 2) or more; as many as one likes where one that is held
// to the same place may read nothing and so make up the number.
Piece repeat(Grammar& grammar, const Piece& part, int least, int most) {
  Forms found;
  const Form empty{grammar.text(""), true};
  const std::optional<Form>& free = part.forms[0];
  const std::optional<Form>& start = part.forms[Piece::kAtStart];
  const std::optional<Form>& end = part.forms[Piece::kAtEnd];
  const std::optional<Form>& whole = part.forms[kWhole];
  if (most == 0) return free_piece(empty.expr, true);
  if (free) {
    found[0].push_back(repeated(grammar, *free, least, most));
  } else if (least == 0) {
    found[0].push_back(empty);
  }
  const auto may_fill = [](const std::optional<Form>& form) { return form && form->can_be_empty; };
  // `fixed` times are taken by S and E.
  const auto between = [&](int fixed, bool any_number) {
    const int from = any_number ? 0 : less(least, fixed);
    if (free) return repeated(grammar, *free, from, less(most, fixed));
    return Form{from == 0 ? empty.expr : grammar.nothing(), from == 0};
  };
  if (start)
    found[Piece::kAtStart].push_back(in_sequence(grammar, *start, between(1, may_fill(start))));
  if (end) found[Piece::kAtEnd].push_back(in_sequence(grammar, between(1, may_fill(end)), *end));
  if (start && end && most != 1) {
    const Form middle = between(2, may_fill(start) || may_fill(end));
    found[kWhole].push_back(in_sequence(grammar, in_sequence(grammar, *start, middle), *end));
  }
  if (whole) {
    // The times beside the one that reads the whole text stand at its beginning or end, not both.
    const bool may_be_alone = least <= 1 || may_fill(free) || may_fill(start) || may_fill(end);
    if (may_be_alone || whole->can_be_empty) {
      found[kWhole].push_back(may_be_alone ? *whole : empty);
    }
  }
  return joined(grammar, found);
}

}  // namespace cachalot::grammar
