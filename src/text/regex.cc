#include "text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/error.h"

namespace cachalot::text {

// Property White_Space, as the inside of a character class.
static constexpr std::string_view kWhiteSpace =
    R"(\x{9}-\x{D}\x{20}\x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";

[[noreturn]] static void unsupported(std::string_view pattern, std::string_view what) {
  throw Error(Code::kUnsupported,
              cat("pre-tokenizer pattern '", pattern, "' uses ", what,
                  ", which regex libraries read differently. Rewrite the pattern without it."));
}

static bool compiles(const std::string& pattern) {
  int error = 0;
  PCRE2_SIZE where = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                   PCRE2_UTF | PCRE2_UCP, &error, &where, nullptr);
  pcre2_code_free(code);
  return code != nullptr;
}

// \p{...}. The name of a script stands for the script itself, where PCRE2 by itself would take the
// characters that the script shares with others too.
static std::size_t copy_property(std::string_view pattern, std::size_t i, std::string& out) {
  const std::size_t close = pattern.find('}', i);
  if (i + 2 >= pattern.size() || pattern[i + 2] != '{' || close == std::string_view::npos) {
    unsupported(pattern, "a property without braces");
  }
  std::string name(pattern.substr(i + 3, close - i - 3));
  const bool inverted = name.starts_with('^');
  const std::string script = cat("sc:", name.substr(inverted ? 1 : 0));
  if (name.size() > 2 && compiles(cat("\\p{", script, "}"))) name = (inverted ? "^" : "") + script;
  out += cat('\\', pattern[i + 1], '{', name, '}');
  return close + 1;
}

// Refuses what stands at pattern[i] == '{' where libraries differ: {,n}, {n}? and {n,m}+.
static void check_repeat(std::string_view pattern, std::size_t i) {
  std::size_t end = i + 1;
  const auto digits = [&] {
    const std::size_t first = end;
    while (end < pattern.size() && pattern[end] >= '0' && pattern[end] <= '9') ++end;
    return end - first;
  };
  const std::size_t low = digits();
  bool comma = false;
  if (end < pattern.size() && pattern[end] == ',') {
    comma = true;
    ++end;
    if (low == 0 && digits() == 0) return;  // {,} is text everywhere
    digits();
  }
  if (end >= pattern.size() || pattern[end] != '}' || (low == 0 && !comma)) return;
  const char behind = end + 1 < pattern.size() ? pattern[end + 1] : ' ';
  if (low == 0) unsupported(pattern, "a repetition without its lower bound");
  if (behind == '+') unsupported(pattern, "a '+' behind a repetition in braces");
  if (behind == '?' && !comma) unsupported(pattern, "a '?' behind a count in braces");
}

// Refuses flags other than i at pattern[i] == '(' of "(?flags)" or "(?flags:".
static void check_flags(std::string_view pattern, std::size_t i) {
  for (std::size_t at = i + 2; at < pattern.size(); ++at) {
    const char c = pattern[at];
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (!letter && c != '-') return;
    if (c != 'i' && c != '-') unsupported(pattern, cat("the flag ", c));
  }
}

// Copies one escape at pattern[i] == '\\' and returns the index behind it.
static std::size_t copy_escape(std::string_view pattern, std::size_t i, bool in_class,
                               std::string& out) {
  if (i + 1 >= pattern.size()) unsupported(pattern, "a lone backslash at its end");
  const char c = pattern[i + 1];
  if (c == 's') {
    out += in_class ? std::string(kWhiteSpace) : cat('[', kWhiteSpace, ']');
    return i + 2;
  }
  if (c == 'S') {
    if (in_class) unsupported(pattern, "\\S inside a character class");
    out += cat("[^", kWhiteSpace, ']');
    return i + 2;
  }
  const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  if (c == 'p' || c == 'P') return copy_property(pattern, i, out);
  constexpr std::string_view kSame = "dntrfxAz";
  if (letter && kSame.find(c) == std::string_view::npos) {
    unsupported(pattern, cat("the escape \\", c));
  }
  out += '\\';
  out += c;
  return i + 2;
}

std::string to_pcre2(std::string_view pattern) {
  std::string out;
  bool in_class = false;
  for (std::size_t i = 0; i < pattern.size();) {
    const char c = pattern[i];
    if (c == '\\') {
      i = copy_escape(pattern, i, in_class, out);
      continue;
    }
    if (in_class) {
      if (c == '[') unsupported(pattern, "a class within a class");
      if (pattern.substr(i, 2) == "&&") unsupported(pattern, "a class intersection (&&)");
      if (c == ']') in_class = false;
    } else if (pattern.substr(i, 2) == "(*" || pattern.substr(i, 3) == "(?C") {
      unsupported(pattern, "a verb or a callout");
    } else if (pattern.substr(i, 2) == "(?") {
      check_flags(pattern, i);
    } else if (c == '{') {
      check_repeat(pattern, i);
    } else if (c == '[') {
      in_class = true;
      out += c;
      ++i;
      if (i < pattern.size() && pattern[i] == '^') out += pattern[i++];
      if (i < pattern.size() && pattern[i] == ']') unsupported(pattern, "']' first in a class");
      continue;
    }
    out += c;
    ++i;
  }
  return out;
}

struct Regex::State {
  std::string pattern;  // as given, for messages
  pcre2_code* code = nullptr;
  ~State() { pcre2_code_free(code); }
};

static constexpr std::size_t kJitStackBytes = 1 << 20;

struct RegexScratch::State {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(32 << 10, kJitStackBytes, nullptr);
  State() {
    if (data == nullptr || context == nullptr) throw std::bad_alloc();
    if (stack != nullptr) pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~State() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
};

RegexScratch::RegexScratch() : state_(std::make_unique<State>()) {}
RegexScratch::~RegexScratch() = default;

static std::string message_of(int code) {
  PCRE2_UCHAR buffer[256] = {};
  pcre2_get_error_message(code, buffer, sizeof buffer);
  return reinterpret_cast<const char*>(buffer);
}

Regex::Regex(const std::string& pattern) : state_(std::make_unique<State>()) {
  constexpr std::size_t kMaxPattern = 1 << 16;
  if (pattern.size() > kMaxPattern) {
    throw Error(Code::kFormat, cat("pre-tokenizer pattern has ", pattern.size(), " bytes, at most ",
                                   kMaxPattern, " are accepted"));
  }
  state_->pattern = pattern;
  const std::string spelt = to_pcre2(pattern);
  int error = 0;
  std::size_t where = 0;
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  if (context == nullptr) throw std::bad_alloc();
  // As in Oniguruma's Ruby syntax: ^ and $ stand at each line, a line ends with LF.
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  state_->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(spelt.data()), spelt.size(),
                               PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                               &error, &where, context);
  pcre2_compile_context_free(context);
  if (state_->code == nullptr) {
    throw Error(Code::kFormat, cat("pre-tokenizer pattern '", pattern, "' does not compile: ",
                                   message_of(error), " near '", spelt.substr(where, 20), "'"));
  }
  pcre2_jit_compile(state_->code, PCRE2_JIT_COMPLETE);  // without JIT it only runs slower
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;

bool Regex::find(std::string_view subject, std::size_t from, RegexScratch& scratch,
                 std::size_t& begin, std::size_t& end) const {
  const int found =
      pcre2_match(state_->code, reinterpret_cast<PCRE2_SPTR>(subject.data()), subject.size(), from,
                  PCRE2_NO_UTF_CHECK, scratch.state_->data, scratch.state_->context);
  if (found == PCRE2_ERROR_NOMATCH) return false;
  if (found < 0) {
    throw Error(Code::kUnsupported,
                cat("pre-tokenizer pattern '", state_->pattern, "' gives up on a text of ",
                    subject.size(), " bytes: ", message_of(found)));
  }
  const std::size_t* range = pcre2_get_ovector_pointer(scratch.state_->data);
  begin = range[0];
  end = range[1];
  return true;
}

}  // namespace cachalot::text
