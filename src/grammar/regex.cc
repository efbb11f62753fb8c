#include "grammar/regex.h"

#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "grammar/char_form.h"
#include "grammar/cursor.h"
#include "grammar/regex_atoms.h"
#include "grammar/regex_piece.h"
#include "grammar/regex_property.h"

namespace cachalot::grammar {

namespace {

constexpr std::size_t kMaxPatternBytes = 1 << 16;
// Each may double what a sequence is made of (regex_piece.h); real patterns have two.
constexpr int kMaxAnchors = 64;

class Reader {
 public:
  Reader(Grammar& grammar, std::string_view pattern, CharForm form)
      : grammar_(grammar), cursor_(pattern, kMaxPatternBytes, "the pattern"), form_(form) {}

  Piece read() {
    Piece all = read_choice();
    if (!cursor_.at_end()) {  // nothing else ends a choice
      refuse_pattern(cursor_, cursor_.place(), "this ) closes no group; a plain one is \\)");
    }
    return all;
  }

 private:
  Piece read_choice() {
    std::vector<Piece> parts;
    do {
      parts.push_back(read_sequence());
    } while (cursor_.take('|'));
    return choice(grammar_, parts);
  }

  // Characters side by side become one text, all but the last one where it is repeated.
  Piece read_sequence() {
    std::vector<Piece> parts;
    std::string literal;
    const auto flush = [&] {
      if (!literal.empty()) parts.push_back(free_piece(grammar_.text(literal), false));
      literal.clear();
    };
    while (!cursor_.at_end() && cursor_.peek() != '|' && cursor_.peek() != ')') {
      if (const auto anchor = read_anchor()) {
        flush();
        parts.push_back(*anchor);
        continue;
      }
      const std::size_t from = cursor_.place();
      if (const auto c = read_literal()) {
        if (!at_repetition()) {
          append_char(literal, *c, form_);
          continue;
        }
        cursor_.go_to(from);
      }
      flush();
      parts.push_back(read_repetition(read_atom()));
    }
    flush();
    return sequence(grammar_, parts);
  }

  std::optional<Piece> read_anchor() {
    const std::size_t from = cursor_.place();
    const char32_t c = cursor_.peek();
    if (c != '^' && c != '$') return std::nullopt;
    cursor_.next();
    if (++anchors_ > kMaxAnchors) {
      refuse_pattern(cursor_, from, cat("at most ", kMaxAnchors, " anchors are read"));
    }
    if (at_repetition()) refuse_pattern(cursor_, from, "an anchor cannot be repeated");
    return anchor_piece(grammar_, c == '^' ? Piece::kAtStart : Piece::kAtEnd);
  }

  // A character that stands for itself; nothing is taken where something else stands. A surrogate
  // is a character that no text has.
  std::optional<char32_t> read_literal() {
    const std::size_t from = cursor_.place();
    const char32_t c = cursor_.next();
    if (c == '\\') {
      const Atom atom = read_escape(cursor_);
      const auto* one = std::get_if<char32_t>(&atom);
      if (one != nullptr && (*one < 0xD800 || *one > 0xDFFF)) return *one;
    } else if (std::u32string_view(U".[()*+?{").find(c) == std::u32string_view::npos) {
      return c;
    } else if (c == '{' && !is_digit(cursor_.peek()) && cursor_.peek() != ',') {
      return c;  // as a brace that begins no count is read without the flag u, and in Python
    }
    cursor_.go_to(from);
    return std::nullopt;
  }

  Piece read_atom() {
    const std::size_t from = cursor_.place();
    const char32_t c = cursor_.next();
    switch (c) {
      case '.':
        return chars(complement(line_ends()));
      case '[':
        return chars(read_class(cursor_));
      case '(':
        return read_group(from);
      case '\\': {
        const Atom atom = read_escape(cursor_);
        if (const auto* one = std::get_if<char32_t>(&atom)) return chars({{*one, *one}});
        return chars(std::get<std::vector<CharRange>>(atom));
      }
      case '*':
      case '+':
      case '?':
        refuse_pattern(cursor_, from, "nothing stands before it that could be repeated");
      case '{':
        if (cursor_.peek() == ',' || is_digit(cursor_.peek())) {
          refuse_pattern(cursor_, from, "nothing stands before this count; a plain { is \\{");
        }
        [[fallthrough]];
      default:
        return chars({{c, c}});
    }
  }

  Piece chars(std::vector<CharRange> ranges) {
    return free_piece(add_chars(grammar_, std::move(ranges), form_), false);
  }

  // Behind "(".
  Piece read_group(std::size_t from) {
    if (++depth_ > kMaxNesting) {
      refuse_pattern(cursor_, from, cat("groups lie at most ", kMaxNesting, " deep"));
    }
    if (cursor_.take('?')) read_group_kind(from);
    Piece inside = read_choice();
    if (!cursor_.take(')')) refuse_pattern(cursor_, from, "this group has no )");
    --depth_;
    return inside;
  }

  // Behind "(?".
  void read_group_kind(std::size_t from) {
    if (cursor_.take(':')) return;
    const char32_t c = cursor_.next();
    const char32_t behind = cursor_.peek();
    if (c == '=' || c == '!' || (c == '<' && (behind == '=' || behind == '!'))) {
      refuse_pattern(cursor_, from, "look-around is not supported", Code::kUnsupported);
    }
    if (c == '<') return read_name(from);
    if (c == 'P' && behind == '<') {
      refuse_pattern(cursor_, from, "a group with a name is (?<name>...)");
    }
    if (is_letter(c) || c == '-') {
      refuse_pattern(cursor_, from, "flags are not supported", Code::kUnsupported);
    }
    if (c == '>') {
      refuse_pattern(cursor_, from, "atomic groups are not supported", Code::kUnsupported);
    }
    refuse_pattern(cursor_, from, "groups begin with (, (?: or (?<name>");
  }

  void read_name(std::size_t from) {
    std::size_t length = 0;
    for (char32_t c = cursor_.next(); c != '>'; c = cursor_.next(), ++length) {
      const bool fits = is_letter(c) || c == '_' || c == '$' || (c >= 0x80 && c <= kLastChar) ||
                        (is_digit(c) && length > 0);
      if (!fits) refuse_pattern(cursor_, from, "a group's name is letters, digits and _, then >");
    }
    if (length == 0) refuse_pattern(cursor_, from, "this group's name is empty");
  }

  bool at_repetition() const {
    const char32_t c = cursor_.peek();
    return c == '*' || c == '+' || c == '?' ||
           (c == '{' && (is_digit(cursor_.peek(1)) || cursor_.peek(1) == ','));
  }

  struct Count {
    int least = 1, most = 1;
  };

  Piece read_repetition(const Piece& part) {
    if (!at_repetition()) return part;
    const std::size_t from = cursor_.place();
    const Count count = read_count(from);
    cursor_.take('?');  // which of several matches is found first is no part of what matches
    if (cursor_.peek() == '+') {
      cursor_.next();
      refuse_pattern(cursor_, from, "possessive repetitions are not supported", Code::kUnsupported);
    }
    if (at_repetition()) {
      refuse_pattern(cursor_, cursor_.place(), "a repetition is repeated; put it in a group");
    }
    return repeat(grammar_, part, count.least, count.most);
  }

  Count read_count(std::size_t from) {
    switch (cursor_.next()) {
      case '*':
        return {0, kUnbounded};
      case '+':
        return {1, kUnbounded};
      case '?':
        return {0, 1};
      default:
        break;
    }
    const auto least = cursor_.number();
    std::optional<int> most = least;
    if (cursor_.take(',')) most = cursor_.peek() == '}' ? kUnbounded : cursor_.number();
    if (!least || !most || !cursor_.take('}')) {
      refuse_pattern(cursor_, from, "a count is {m}, {m,} or {m,n}; a plain { is \\{");
    }
    if (*least > kMaxRepeat || *most > kMaxRepeat) {
      refuse_pattern(cursor_, from, cat("at most ", kMaxRepeat, " times are possible"));
    }
    if (*most != kUnbounded && *most < *least) {
      refuse_pattern(cursor_, from, "the larger number stands first");
    }
    return {*least, *most};
  }

  Grammar& grammar_;
  Cursor cursor_;
  CharForm form_;
  int depth_ = 0;
  int anchors_ = 0;
};

}  // namespace

ExprId add_regex(Grammar& grammar, std::string_view pattern, RegexMatch match, CharForm form) {
  const Piece piece = Reader(grammar, pattern, form).read();
  std::vector<ExprId> ways;
  const bool anywhere = match == RegexMatch::kAnywhere;
  const auto rest = [&] {
    return grammar.repeat(add_chars(grammar, {{0, kLastChar}}, form), 0, kUnbounded);
  };
  for (std::size_t i = 0; i < Piece::kForms; ++i) {
    if (!piece.forms[i]) continue;
    const bool before = anywhere && (i & Piece::kAtStart) == 0;
    const bool behind = anywhere && (i & Piece::kAtEnd) == 0;
    // Every text has the empty text somewhere.
    if (before && behind && piece.forms[i]->can_be_empty) return rest();
    std::vector<ExprId> parts;
    if (before) parts.push_back(rest());
    parts.push_back(piece.forms[i]->expr);
    if (behind) parts.push_back(rest());
    ways.push_back(grammar.sequence(std::move(parts)));
  }
  return grammar.choice(std::move(ways));
}

}  // namespace cachalot::grammar
