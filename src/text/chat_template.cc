// Recognises DeepSeek's Jinja chat templates by their structure.
#include <optional>

#include "base/error.h"
#include "text/chat.h"
#include "text/chat_template_reader.h"

namespace cachalot::text {

// A template as a list of tags, spelt without the white space and dashes that do not change what it
// writes: "%if...", "%endif", "=expression". nullopt when something else would be written.
static std::optional<std::vector<std::string>> tags_of(std::string_view jinja) {
  std::vector<std::string> tags;
  std::size_t at = 0;
  bool trimmed_before = true;  // white space at the very beginning is not expected anyway
  while (at < jinja.size()) {
    const std::size_t open = jinja.find('{', at);
    const std::string_view between = jinja.substr(at, open - at);
    if (between.find_first_not_of(" \t\r\n") != std::string_view::npos) return std::nullopt;
    if (open == std::string_view::npos) {
      if (!between.empty() && !trimmed_before) return std::nullopt;
      break;
    }
    const char kind = open + 1 < jinja.size() ? jinja[open + 1] : ' ';
    if (kind != '%' && kind != '{') return std::nullopt;
    std::size_t i = open + 2;
    const bool trims_before = i < jinja.size() && jinja[i] == '-';
    if (!between.empty() && !trimmed_before && !trims_before) return std::nullopt;
    if (trims_before) ++i;
    std::string tag(1, kind == '%' ? '%' : '=');
    const char close = kind == '%' ? '%' : '}';
    char quote = 0;
    for (;; ++i) {
      if (i + 1 >= jinja.size()) return std::nullopt;
      const char c = jinja[i];
      if (quote != 0) {
        if (c == '\\' && jinja[i + 1] == 'n') {
          tag += '\n', ++i;
        } else {
          tag += c == quote ? '\'' : c;
          if (c == quote) quote = 0;
        }
      } else if (c == '\'' || c == '"') {
        quote = c;
        tag += '\'';
      } else if (c == close && jinja[i + 1] == '}') {
        break;
      } else if (c != ' ' && c != '\n' && c != '\t' && c != '\r') {
        tag += c;
      }
    }
    trimmed_before = jinja[i - 1] == '-';
    if (trimmed_before && tag.back() == '-') tag.pop_back();
    tags.push_back(std::move(tag));
    at = i + 2;
  }
  return tags;
}

// Jinja drops one newline from the end of a source before it reads it (keep_trailing_newline is off
// unless asked for), so what an editor puts there writes nothing.
static std::string_view without_last_newline(std::string_view jinja) {
  for (const std::string_view newline : {"\r\n", "\n", "\r"}) {
    if (jinja.ends_with(newline)) return jinja.substr(0, jinja.size() - newline.size());
  }
  return jinja;
}

ChatFormat ChatFormat::recognise(std::string_view jinja, const std::string& source) {
  jinja = without_last_newline(jinja);
  if (jinja == v3_chat_template()) {
    ChatFormat plain = v3();
    plain.tools_ = ToolForm::kNone;
    return plain;
  }
  if (const auto tags = tags_of(jinja)) {
    TemplateReader reader(*tags);
    if (const auto format = reader.v2()) return *format;
    if (const auto format = reader.v3()) return *format;
    if (const auto format = reader.v3_0324()) return *format;
    if (const auto format = reader.v3_1()) return *format;
  }
  std::string_view begin = jinja.substr(0, 80);
  throw Error(
      Code::kUnsupported,
      cat(source, " is none that is known here (it begins '", begin,
          "'). Those of DeepSeek V2, V3, R1 and V3.1 are; name one of them (v2, v3, v3-0324, r1, "
          "r1-0528, v3.1) if the model follows it."));
}

}  // namespace cachalot::text
