#include "report/escape.h"

namespace cachalot::report {

namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

std::string valid_utf8(std::string_view text) {
  const std::string quoted =
      Json(std::string(text)).dump(-1, ' ', false, Json::error_handler_t::replace);
  return Json::parse(quoted).get<std::string>();
}

// Bytes of a character at the front of valid UTF-8 that a page must not hold: a control character
// other than tab and newline, or one that turns the direction of writing (it would let a name
// rearrange the line it stands in). 0: none.
std::size_t unwanted(std::string_view rest) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(rest[i]); };
  const unsigned char c = byte(0);
  if (c < 0x20) return c == '\t' || c == '\n' ? 0 : 1;
  if (c == 0x7F) return 1;
  if (c == 0xC2 && byte(1) < 0xA0) return 2;  // U+0080 to U+009F
  if (c != 0xE2) return 0;
  if (byte(1) == 0x80 && (byte(2) == 0x8E || byte(2) == 0x8F)) return 3;  // U+200E, U+200F
  if (byte(1) == 0x80 && byte(2) >= 0xAA && byte(2) <= 0xAE) return 3;    // U+202A to U+202E
  return byte(1) == 0x81 && byte(2) >= 0xA6 && byte(2) <= 0xA9 ? 3 : 0;   // U+2066 to U+2069
}

std::string_view entity(char c) {
  switch (c) {
    case '&':
      return "&amp;";
    case '<':
      return "&lt;";
    case '>':
      return "&gt;";
    case '"':
      return "&quot;";
    case '\'':
      return "&#39;";
    default:
      return {};
  }
}

}  // namespace

std::string html(std::string_view text) {
  const std::string valid = valid_utf8(text);
  std::string out;
  out.reserve(valid.size());
  for (std::size_t i = 0; i < valid.size();) {
    const std::size_t skip = unwanted(std::string_view(valid).substr(i));
    if (skip > 0) {
      out += kReplacement;
      i += skip;
      continue;
    }
    const std::string_view special = entity(valid[i]);
    if (special.empty()) {
      out += valid[i];
    } else {
      out += special;
    }
    ++i;
  }
  return out;
}

std::string script_json(const Json& value) {
  // ensure_ascii: U+2028, U+2029 and everything else beyond ASCII becomes \uXXXX.
  const std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    // These three stand in JSON only within strings.
    if (c == '<') {
      out += "\\u003c";
    } else if (c == '>') {
      out += "\\u003e";
    } else if (c == '&') {
      out += "\\u0026";
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace cachalot::report
