#include "text/utf8.h"

#include <simdjson.h>

namespace cachalot::text {

// The table of well-formed sequences (Unicode, table 3-7): how many bytes a lead byte asks for, and
// the narrower range of its second byte, which excludes overlong forms and surrogates.
struct Lead {
  int bytes;
  unsigned char low, high;
};
static Lead lead_of(unsigned char a) noexcept {
  if (a < 0x80) return {1, 0, 0};
  if (a < 0xC2) return {0, 0, 0};
  if (a < 0xE0) return {2, 0x80, 0xBF};
  if (a == 0xE0) return {3, 0xA0, 0xBF};
  if (a == 0xED) return {3, 0x80, 0x9F};
  if (a < 0xF0) return {3, 0x80, 0xBF};
  if (a == 0xF0) return {4, 0x90, 0xBF};
  if (a < 0xF4) return {4, 0x80, 0xBF};
  if (a == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

Utf8Step utf8_step(std::string_view text, std::size_t at) noexcept {
  using Kind = Utf8Step::Kind;
  const auto first = static_cast<unsigned char>(text[at]);
  const Lead lead = lead_of(first);
  if (lead.bytes == 0) return {Kind::kInvalid, 1, 0};
  if (lead.bytes == 1) return {Kind::kValid, 1, first};
  char32_t code = first & (0x7F >> lead.bytes);
  for (int i = 1; i < lead.bytes; ++i) {
    if (at + i == text.size()) return {Kind::kIncomplete, static_cast<std::uint8_t>(i), 0};
    const auto b = static_cast<unsigned char>(text[at + i]);
    const bool fits = i == 1 ? b >= lead.low && b <= lead.high : (b & 0xC0) == 0x80;
    if (!fits) return {Kind::kInvalid, static_cast<std::uint8_t>(i), 0};
    code = code << 6 | (b & 0x3F);
  }
  return {Kind::kValid, static_cast<std::uint8_t>(lead.bytes), code};
}

bool is_valid_utf8(std::string_view text) noexcept {
  return simdjson::validate_utf8(text.data(), text.size());
}

std::size_t first_invalid_utf8(std::string_view text) noexcept {
  if (is_valid_utf8(text)) return text.size();
  std::size_t at = 0;
  while (at < text.size()) {
    const Utf8Step step = utf8_step(text, at);
    if (step.kind != Utf8Step::Kind::kValid) break;
    at += step.bytes;
  }
  return at;
}

std::string replace_invalid_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size() + 8);
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Step step = utf8_step(text, at);
    if (step.kind == Utf8Step::Kind::kValid) {
      out.append(text, at, step.bytes);
    } else {
      out += "\xEF\xBF\xBD";
    }
    at += step.bytes;
  }
  return out;
}

void append_utf8(std::string& out, char32_t c) {
  const auto put = [&](char32_t byte) { out += static_cast<char>(byte); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | c >> 6), put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | c >> 12), put(0x80 | (c >> 6 & 0x3F)), put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | c >> 18), put(0x80 | (c >> 12 & 0x3F)), put(0x80 | (c >> 6 & 0x3F)),
        put(0x80 | (c & 0x3F));
  }
}

}  // namespace cachalot::text
