#include <algorithm>
#include <span>

#include "grammar/schema_builder.h"
#include "text/utf8.h"

namespace cachalot::grammar {

namespace {

constexpr std::size_t kMostNameLength = 64;  // what counts of a longer name

// Names as a tree of their characters: at each place a text may leave it or end, where no name
// does.
class OtherNames {
 public:
  OtherNames(Grammar& grammar, JsonRules& rules)
      : g_(grammar),
        tail_(g_.rule(
            "end of a name",
            g_.sequence({g_.repeat(rules.plain_character(), 0, kUnbounded), g_.text("\"")}))) {}

  // `names`, in order, are alike in their first `at` characters, which are written.
  ExprId from(std::span<const std::u32string> names, std::size_t at) {
    if (at == kMostNameLength) return g_.nothing();
    std::vector<CharRange> taken{{0, 0x1F}, {'"', '"'}, {'\\', '\\'}};
    std::vector<ExprId> parts;
    const bool ends = !names.empty() && names.front().size() == at;
    if (ends) names = names.subspan(1);
    while (!names.empty()) {
      const char32_t c = names.front()[at];
      const auto end = std::find_if(names.begin(), names.end(),
                                    [&](const std::u32string& name) { return name[at] != c; });
      const auto n = static_cast<std::size_t>(end - names.begin());
      std::string text;
      text::append_utf8(text, c);
      parts.push_back(g_.sequence({g_.text(text), from(names.first(n), at + 1)}));
      taken.push_back({c, c});
      names = names.subspan(n);
    }
    parts.push_back(g_.sequence({g_.chars(complement(std::move(taken))), tail_}));
    if (!ends) parts.push_back(g_.text("\""));
    return g_.choice(std::move(parts));
  }

 private:
  Grammar& g_;
  ExprId tail_;
};

}  // namespace

ExprId add_other_names(Grammar& grammar, JsonRules& rules, const std::vector<std::string>& names) {
  std::vector<std::u32string> ways;
  const auto needs_escape = [](char c) {
    return static_cast<unsigned char>(c) < 0x20 || c == '"' || c == '\\';
  };
  for (const std::string& name : names) {
    // No text without escapes is such a name.
    if (std::any_of(name.begin(), name.end(), needs_escape)) continue;
    std::u32string way;
    for (std::size_t i = 0; i < name.size() && way.size() < kMostNameLength;) {
      way += text::next_code_point(name.data(), i);
    }
    ways.push_back(std::move(way));
  }
  std::sort(ways.begin(), ways.end());
  ways.erase(std::unique(ways.begin(), ways.end()), ways.end());
  return grammar.sequence({grammar.text("\""), OtherNames(grammar, rules).from(ways, 0)});
}

}  // namespace cachalot::grammar
