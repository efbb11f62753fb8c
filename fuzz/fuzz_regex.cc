// Patterns from strangers. The first byte says how they match and in what form; then the pattern up
// to a NUL; what is behind it is a text. A pattern becomes a grammar, or an error that can be told
// to anyone; and where PCRE2 matches the text as a whole, so does the grammar, and the reverse.
// Links: grammar
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/fields_text.h"
#include "grammar/accepts.h"
#include "grammar/automaton.h"
#include "grammar/regex.h"

using namespace cachalot;  // NOLINT: a fuzzer of one room

static void require(bool truth) {
  if (!truth) std::abort();
}

static void require_tellable(const Error& e) {
  const std::string_view text = e.what();
  require(e.code() == Code::kUsage || e.code() == Code::kUnsupported);
  require(valid_utf8(text));
  require(text.size() < 1000);
  for (const char c : text) require(static_cast<unsigned char>(c) >= 0x20 && c != 0x7F);
}

// Patterns that the two read alike: of letters, classes of letters, groups, anchors and counts. {0}
// is left out, as PCRE2 misses matches behind it.
static bool is_common(std::string_view pattern) {
  return pattern.size() < 40 && pattern.find_first_not_of("abc|()[]^$*+?-.{}12,") == pattern.npos &&
         pattern.find("[]") == pattern.npos && pattern.find("[^]") == pattern.npos &&
         pattern.find("{,") == pattern.npos && pattern.find("[[") == pattern.npos;
}

// 1 and 0, or -1 where PCRE2 has no answer.
static int pcre2_answer(std::string_view pattern, std::string_view text) {
  int error = 0;
  PCRE2_SIZE where = 0;
  pcre2_code* code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                    PCRE2_UTF | PCRE2_DOLLAR_ENDONLY | PCRE2_ANCHORED | PCRE2_ENDANCHORED, &error,
                    &where, nullptr);
  if (code == nullptr) return -1;
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_set_match_limit(context, 100'000);
  const int found = pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0, 0,
                                data, context);
  pcre2_match_context_free(context);
  pcre2_match_data_free(data);
  pcre2_code_free(code);
  return found >= 0 ? 1 : found == PCRE2_ERROR_NOMATCH ? 0 : -1;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  const std::string_view pattern = rest.substr(0, rest.find('\0'));
  const std::string_view text = rest.substr(std::min(pattern.size() + 1, rest.size()));
  const auto match =
      data[0] % 2 == 0 ? grammar::RegexMatch::kWhole : grammar::RegexMatch::kAnywhere;
  const auto form = data[0] % 4 < 2 ? grammar::CharForm::kPlain : grammar::CharForm::kJsonString;
  try {
    grammar::Grammar grammar;
    // Beside the pattern, as one that nothing matches is an error too.
    const grammar::ExprId mark = grammar.text("#");
    grammar.set_root(grammar.choice({mark, grammar::add_regex(grammar, pattern, match, form)}));
    const grammar::Automaton automaton = grammar::compile(grammar);
    if (text.size() > 20) return 0;
    const bool accepted = grammar::accepts(automaton, text);
    if (data[0] % 4 != 0 || !is_common(pattern) || text.find_first_not_of("abc-") != text.npos) {
      return 0;
    }
    const int answer = pcre2_answer(pattern, text);
    require(answer < 0 || accepted == (answer == 1));
  } catch (const Error& e) {
    require_tellable(e);
  }
  return 0;
}
