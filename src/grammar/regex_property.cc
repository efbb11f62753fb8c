#include "grammar/regex_property.h"

#include <algorithm>
#include <array>
#include <map>
#include <mutex>

#include "base/error.h"
#include "text/regex.h"
#include "text/utf8.h"

namespace cachalot::grammar {

namespace {

struct LongName {
  std::string_view name;
  std::string_view code;
};
// PropertyValueAliases.txt of the Unicode database; PCRE2 knows the codes alone.
constexpr std::array<LongName, 38> kCategories = {{
    {"Cased_Letter", "LC"},
    {"Close_Punctuation", "Pe"},
    {"Connector_Punctuation", "Pc"},
    {"Control", "Cc"},
    {"Currency_Symbol", "Sc"},
    {"Dash_Punctuation", "Pd"},
    {"Decimal_Number", "Nd"},
    {"Enclosing_Mark", "Me"},
    {"Final_Punctuation", "Pf"},
    {"Format", "Cf"},
    {"Initial_Punctuation", "Pi"},
    {"Letter", "L"},
    {"Letter_Number", "Nl"},
    {"Line_Separator", "Zl"},
    {"Lowercase_Letter", "Ll"},
    {"Mark", "M"},
    {"Math_Symbol", "Sm"},
    {"Modifier_Letter", "Lm"},
    {"Modifier_Symbol", "Sk"},
    {"Nonspacing_Mark", "Mn"},
    {"Number", "N"},
    {"Open_Punctuation", "Ps"},
    {"Other", "C"},
    {"Other_Letter", "Lo"},
    {"Other_Number", "No"},
    {"Other_Punctuation", "Po"},
    {"Other_Symbol", "So"},
    {"Paragraph_Separator", "Zp"},
    {"Private_Use", "Co"},
    {"Punctuation", "P"},
    {"Separator", "Z"},
    {"Space_Separator", "Zs"},
    {"Spacing_Mark", "Mc"},
    {"Surrogate", "Cs"},
    {"Symbol", "S"},
    {"Titlecase_Letter", "Lt"},
    {"Unassigned", "Cn"},
    {"Uppercase_Letter", "Lu"},
}};

constexpr std::array<std::string_view, 26> kBinary = {"Alphabetic",
                                                      "Any",
                                                      "ASCII",
                                                      "ASCII_Hex_Digit",
                                                      "Cased",
                                                      "Dash",
                                                      "Diacritic",
                                                      "Emoji",
                                                      "Emoji_Component",
                                                      "Emoji_Modifier",
                                                      "Emoji_Modifier_Base",
                                                      "Emoji_Presentation",
                                                      "Extended_Pictographic",
                                                      "Extender",
                                                      "Hex_Digit",
                                                      "ID_Continue",
                                                      "ID_Start",
                                                      "Ideographic",
                                                      "Lowercase",
                                                      "Math",
                                                      "Quotation_Mark",
                                                      "Radical",
                                                      "Unified_Ideograph",
                                                      "Uppercase",
                                                      "XID_Continue",
                                                      "XID_Start"};

// Every code point but the surrogates, in order: one search finds a whole run of a property.
std::string all_characters() {
  std::string all;
  all.reserve(4u << 20);
  for (char32_t c = 0; c <= kLastChar; ++c) {
    if (c < 0xD800 || c > 0xDFFF) text::append_utf8(all, c);
  }
  return all;
}

// The ranges of \p{`name`} in PCRE2's spelling; nothing if it knows no such name.
std::optional<std::vector<CharRange>> scan(const std::string& name) {
  std::optional<text::Regex> regex;
  try {
    regex.emplace(cat("\\p{", name, "}+"));
  } catch (const Error&) {
    return std::nullopt;
  }
  const std::string all = all_characters();
  text::RegexScratch scratch;
  std::vector<CharRange> ranges;
  for (std::size_t begin = 0, end = 0; regex->find(all, end, scratch, begin, end);) {
    std::size_t from = begin;
    std::size_t last = end - 1;
    while ((static_cast<unsigned char>(all[last]) & 0xC0) == 0x80) --last;
    const char32_t low = text::next_code_point(all.data(), from);
    ranges.push_back({low, text::next_code_point(all.data(), last)});
  }
  return normalised(std::move(ranges));
}

// Found once: a scan takes some milliseconds. PCRE2 passes over capitals and '_', so there is one
// spelling for all that it takes for the same name, and a pattern cannot ask for ever more scans.
std::optional<std::vector<CharRange>> kept_scan(std::string_view spelling) {
  std::string name;
  for (const char c : spelling) {
    if (c != '_') name += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  static std::mutex mutex;
  static std::map<std::string, std::vector<CharRange>> known;
  const std::lock_guard lock(mutex);
  if (const auto found = known.find(name); found != known.end()) return found->second;
  auto ranges = scan(name);
  if (ranges) known.emplace(name, *ranges);
  return ranges;
}

std::optional<std::vector<CharRange>> category(std::string_view name) {
  for (const LongName& c : kCategories) {
    if (name != c.name && name != c.code) continue;
    if (c.code == "Cs") return std::vector<CharRange>{};  // no text has them
    return kept_scan(c.code == "LC" ? "L&" : c.code);
  }
  return std::nullopt;
}

std::optional<std::vector<CharRange>> script(std::string_view name, bool extensions) {
  // PCRE2 takes other spellings, too ("greek", "G r e e k"); a script's name is in capitals.
  if (name.size() < 3 || name[0] < 'A' || name[0] > 'Z') return std::nullopt;
  return kept_scan(cat(extensions ? "scx:" : "sc:", name));
}

}  // namespace

std::optional<std::vector<CharRange>> property(const std::string& name) {
  const bool plain =
      !name.empty() && name.size() <= 64 && std::all_of(name.begin(), name.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '=' ||
               (c >= '0' && c <= '9');
      });
  if (!plain) return std::nullopt;
  const std::size_t equals = name.find('=');
  if (equals == std::string::npos) {
    if (auto found = category(name)) return found;
    if (name == "Assigned") return complement(*category("Cn"));
    if (name == "White_Space" || name == "space") return kept_scan("White_Space");
    if (std::find(kBinary.begin(), kBinary.end(), name) != kBinary.end()) return kept_scan(name);
    return script(name, /*extensions=*/false);
  }
  const std::string_view key = std::string_view(name).substr(0, equals);
  const std::string_view value = std::string_view(name).substr(equals + 1);
  if (key == "General_Category" || key == "gc") return category(value);
  if (key == "Script" || key == "sc") return script(value, /*extensions=*/false);
  if (key == "Script_Extensions" || key == "scx") return script(value, /*extensions=*/true);
  return std::nullopt;
}

std::vector<CharRange> digits() { return {{'0', '9'}}; }

std::vector<CharRange> word_chars() { return {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}; }

// WhiteSpace and LineTerminator: the space separators (Zs) are written out, as they are few.
std::vector<CharRange> white_space() {
  return {{0x9, 0xD},       {0x20, 0x20},     {0xA0, 0xA0},     {0x1680, 0x1680}, {0x2000, 0x200A},
          {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
}

std::vector<CharRange> line_ends() { return {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}}; }

}  // namespace cachalot::grammar
