#include "grammar/gbnf.h"

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/fields_text.h"
#include "grammar/cursor.h"
#include "text/utf8.h"

namespace cachalot::grammar {

namespace {

constexpr std::size_t kMaxGrammarBytes = 1 << 20;

bool is_name_char(char32_t c) { return is_letter(c) || is_digit(c) || c == '-' || c == '_'; }

class Reader {
 public:
  explicit Reader(std::string_view text) : cursor_(text, kMaxGrammarBytes, "the grammar") {}

  Grammar read() {
    skip_space(/*newlines=*/true);
    while (!cursor_.at_end()) read_rule();
    if (!rules_.contains("root")) {
      throw Error(Code::kUsage,
                  "grammar: no rule is called root; \"root ::= ...\" is what a whole text is");
    }
    for (const auto& [name, rule] : rules_) {
      if (rule.defined) continue;
      refuse(rule.used, cat("the rule \"", printable(name), "\" is used here and defined nowhere"));
    }
    grammar_.set_root(grammar_.use(rules_.at("root").id));
    return std::move(grammar_);
  }

 private:
  struct Rule {
    RuleId id{};
    std::size_t used = 0;  // where first
    std::optional<std::size_t> defined;
  };

  [[noreturn]] void refuse(std::size_t place, const std::string& why,
                           Code code = Code::kUsage) const {
    const Cursor::LineColumn at = cursor_.line_column(place);
    throw Error(code, cat("grammar, line ", at.line, ", column ", at.column, ": ", why));
  }
  [[noreturn]] void refuse_here(std::string_view needed) const {
    refuse(cursor_.place(), cat("met ", cursor_.shown(cursor_.place()), ", needed ", needed));
  }

  // Spaces and comments; line ends too, where a rule cannot end at them.
  void skip_space(bool newlines) {
    for (;;) {
      const char32_t c = cursor_.peek();
      if (c == '#') {
        while (!cursor_.at_end() && !is_line_end(cursor_.peek())) cursor_.next();
      } else if (c == ' ' || c == '\t' || (newlines && is_line_end(c))) {
        cursor_.next();
      } else {
        return;
      }
    }
  }
  static bool is_line_end(char32_t c) { return c == '\n' || c == '\r'; }

  std::string read_name() {
    if (!is_name_char(cursor_.peek())) refuse_here("the name of a rule");
    std::string name;
    while (is_name_char(cursor_.peek())) name += static_cast<char>(cursor_.next());
    return name;
  }

  Rule& rule(const std::string& name, std::size_t place) {
    const auto [it, is_new] = rules_.try_emplace(name);
    if (is_new) it->second = {grammar_.declare(name), place, std::nullopt};
    return it->second;
  }

  void read_rule() {
    const std::size_t from = cursor_.place();
    const std::string name = read_name();
    skip_space(/*newlines=*/false);
    if (!cursor_.take(U"::="))
      refuse_here(cat("::= behind the rule's name \"", printable(name), '"'));
    skip_space(/*newlines=*/true);
    Rule& r = rule(name, from);
    if (r.defined) {
      const Cursor::LineColumn at = cursor_.line_column(*r.defined);
      refuse(from, cat("the rule \"", printable(name), "\" is defined in line ", at.line,
                       " already; write its alternatives there, with | between them"));
    }
    r.defined = from;
    const RuleId id = r.id;
    grammar_.define(id, read_choice(/*nested=*/false));
    if (!cursor_.at_end() && !is_line_end(cursor_.peek())) {
      refuse_here("a literal, a class, a rule, a group, a repetition, | or the line's end");
    }
    skip_space(/*newlines=*/true);
  }

  // Outside of groups a rule ends with its line, but for a | at that line's end or at the beginning
  // of the next.
  ExprId read_choice(bool nested) {
    std::vector<ExprId> parts = {read_sequence(nested)};
    while (at_bar(nested)) {
      cursor_.next();
      skip_space(/*newlines=*/true);
      parts.push_back(read_sequence(nested));
    }
    return grammar_.choice(std::move(parts));
  }

  bool at_bar(bool nested) {
    if (!nested && is_line_end(cursor_.peek())) {
      const std::size_t line_end = cursor_.place();
      skip_space(/*newlines=*/true);
      if (cursor_.peek() != '|') cursor_.go_to(line_end);
    }
    return cursor_.peek() == '|';
  }

  ExprId read_sequence(bool nested) {
    std::vector<ExprId> parts;
    int stacked = 0;  // repetitions of repetitions: a**
    for (;;) {
      if (const auto item = read_item()) {
        parts.push_back(*item);
        stacked = 0;
      } else if (const auto count = read_count(nested)) {
        if (parts.empty()) refuse(count->place, "nothing stands before this repetition");
        if (++stacked > kMaxNesting) {
          refuse(count->place,
                 cat("at most ", kMaxNesting, " repetitions of one another are read"));
        }
        parts.back() = grammar_.repeat(parts.back(), count->least, count->most);
      } else {
        return grammar_.sequence(std::move(parts));
      }
      skip_space(nested);
    }
  }

  std::optional<ExprId> read_item() {
    const std::size_t from = cursor_.place();
    const char32_t c = cursor_.peek();
    if (is_name_char(c)) return grammar_.use(rule(read_name(), from).id);
    switch (c) {
      case '"':
        return read_literal();
      case '[':
        return read_class();
      case '(':
        return read_group();
      case '<':
        return read_token();
      case '.':
        cursor_.next();
        return grammar_.chars({{0, kLastChar}});
      case '!':
        refuse(from, "tokens that are excluded (!<...>) are not supported", Code::kUnsupported);
      default:
        return std::nullopt;
    }
  }

  ExprId read_literal() {
    const std::size_t from = cursor_.place();
    cursor_.next();
    std::string text;
    while (!cursor_.take('"')) {
      if (cursor_.at_end()) refuse(from, "this literal has no closing \"");
      const std::size_t at = cursor_.place();
      const char32_t c = read_char();
      if (c >= 0xD800 && c <= 0xDFFF) {
        refuse(at, "half of a surrogate pair is no character; write \\UHHHHHHHH");
      }
      text::append_utf8(text, c);
    }
    return grammar_.text(text);
  }

  ExprId read_class() {
    const std::size_t from = cursor_.place();
    cursor_.next();
    const bool inverted = cursor_.take('^');
    std::vector<CharRange> ranges;
    while (!cursor_.take(']')) {
      if (cursor_.at_end()) refuse(from, "this class has no closing ]");
      const std::size_t first_at = cursor_.place();
      const char32_t first = read_char();
      char32_t last = first;
      if (cursor_.peek() == '-' && cursor_.peek(1) != ']' && cursor_.peek(1) != Cursor::kEnd) {
        cursor_.next();
        last = read_char();
      }
      if (last < first) refuse(first_at, "this range ends before it begins");
      ranges.push_back({first, last});
    }
    if (ranges.empty()) {
      refuse(from, "an empty class; write \\] for the bracket, and . for any character");
    }
    return grammar_.chars(inverted ? complement(std::move(ranges)) : std::move(ranges));
  }

  // One character of a literal or a class.
  char32_t read_char() {
    const std::size_t from = cursor_.place();
    const char32_t c = cursor_.next();
    if (c != '\\') return c;
    switch (const char32_t escaped = cursor_.next()) {
      case 'n':
        return '\n';
      case 'r':
        return '\r';
      case 't':
        return '\t';
      case '"':
      case '\\':
      case '[':
      case ']':
      case '-':
        return escaped;
      case 'x':
        return read_hex(from, 2);
      case 'u':
        return read_hex(from, 4);
      case 'U':
        return read_hex(from, 8);
      default:
        refuse(from, R"(no such escape; there are \n \r \t \" \\ \[ \] \- \xHH \uHHHH \UHHHHHHHH)");
    }
  }

  char32_t read_hex(std::size_t from, int digits) {
    const auto value = cursor_.hex(digits);
    if (!value) refuse(from, cat("this escape needs ", digits, " hexadecimal digits"));
    if (*value > kLastChar) refuse(from, "the last character is \\U0010FFFF");
    return *value;
  }

  ExprId read_group() {
    const std::size_t from = cursor_.place();
    if (++depth_ > kMaxNesting) refuse(from, cat("groups lie at most ", kMaxNesting, " deep"));
    cursor_.next();
    skip_space(/*newlines=*/true);
    const ExprId inside = read_choice(/*nested=*/true);
    if (cursor_.at_end()) refuse(from, "this group has no closing )");
    if (!cursor_.take(')'))
      refuse_here("a literal, a class, a rule, a group, a repetition, | or )");
    --depth_;
    return inside;
  }

  ExprId read_token() {
    const std::size_t from = cursor_.place();
    cursor_.next();
    if (cursor_.peek() == '[') {
      refuse(from,
             "tokens by their number (<[1000]>) are not supported; write the token's text: <think>",
             Code::kUnsupported);
    }
    std::string content = "<";
    while (cursor_.peek() != '>') {
      if (cursor_.at_end() || is_line_end(cursor_.peek())) {
        refuse(from, "this token has no closing >; text stands in \"quotes\"");
      }
      text::append_utf8(content, cursor_.next());
    }
    cursor_.next();
    if (content.size() == 1) refuse(from, "<> names no token");
    return grammar_.token(content + ">");
  }

  struct Count {
    std::size_t place = 0;
    int least = 0, most = 0;
  };

  std::optional<Count> read_count(bool nested) {
    const std::size_t from = cursor_.place();
    if (cursor_.take('*')) return Count{from, 0, kUnbounded};
    if (cursor_.take('+')) return Count{from, 1, kUnbounded};
    if (cursor_.take('?')) return Count{from, 0, 1};
    if (!cursor_.take('{')) return std::nullopt;
    const auto number = [&] {
      skip_space(nested);
      const auto n = cursor_.number();
      skip_space(nested);
      return n;
    };
    const auto least = number();
    std::optional<int> most = least;
    if (least && cursor_.take(',')) {
      most = number();
      if (!most && cursor_.peek() == '}') most = kUnbounded;
    }
    if (!least || !most || !cursor_.take('}')) refuse_here("a count as {m}, {m,} or {m,n}");
    if (*least > kMaxRepeat || *most > kMaxRepeat) {
      refuse(from, cat("at most ", kMaxRepeat, " times are possible"));
    }
    if (*most != kUnbounded && *most < *least) refuse(from, "the larger number stands first");
    return Count{from, *least, *most};
  }

  Cursor cursor_;
  Grammar grammar_;
  std::map<std::string, Rule> rules_;
  int depth_ = 0;
};

}  // namespace

Grammar parse_gbnf(std::string_view text) { return Reader(text).read(); }

}  // namespace cachalot::grammar
