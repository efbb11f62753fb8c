#include "base/fields_text.h"

#include <algorithm>
#include <charconv>
#include <cstdio>

namespace cachalot {

namespace {

// The length of the UTF-8 character at the start of `text`; 0 where there is none.
std::size_t utf8_length(std::string_view text) noexcept {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) return 1;
  const std::size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || text.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
  }
  const unsigned second = byte(1);  // too long a form, a surrogate, past U+10FFFF
  if ((lead == 0xE0 && second < 0xA0) || (lead == 0xED && second > 0x9F) ||
      (lead == 0xF0 && second < 0x90) || (lead == 0xF4 && second > 0x8F)) {
    return 0;
  }
  return length;
}

std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out.append({'\\', c});
    } else if (byte < 0x20 || byte == 0x7F) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04X", static_cast<unsigned>(byte));
      out += escape;
    } else {
      out += c;
    }
  }
  return out + '"';
}

// The shortest text that reads back as the same double, and as a float rather than an integer.
std::string real_text(double x) {
  char text[32];
  std::string out(text, std::to_chars(text, text + sizeof text, x).ptr);
  if (out.find_first_of(".en") == std::string::npos) out += ".0";
  return out;
}

std::string_view section_of(const Field& field) {
  const auto dot = field.path.rfind('.');
  return dot == std::string::npos ? std::string_view()
                                  : std::string_view(field.path).substr(0, dot);
}
std::string_view key_of(const Field& field) {
  const auto dot = field.path.rfind('.');
  return dot == std::string::npos ? std::string_view(field.path)
                                  : std::string_view(field.path).substr(dot + 1);
}

}  // namespace

bool valid_utf8(std::string_view text) noexcept {
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

std::string printable(std::string_view text) {
  constexpr std::size_t kMost = 80;
  std::string out;
  while (!text.empty() && out.size() < kMost) {
    const std::size_t length = utf8_length(text);
    const auto byte = static_cast<unsigned char>(text[0]);
    if (length == 0 || byte < 0x20 || byte == 0x7F) {
      out += '?';
      text.remove_prefix(1);
    } else {
      out.append(text.substr(0, length));
      text.remove_prefix(length);
    }
  }
  return text.empty() ? out : out + "...";
}

std::string field_text(const FieldValue& value) {
  if (const auto* x = std::get_if<bool>(&value.value)) return *x ? "true" : "false";
  if (const auto* x = std::get_if<std::int64_t>(&value.value)) return std::to_string(*x);
  if (const auto* x = std::get_if<double>(&value.value)) return real_text(*x);
  if (const auto* x = std::get_if<std::string>(&value.value)) return quoted(*x);
  std::string out = "[";
  for (const FieldValue& item : std::get<std::vector<FieldValue>>(value.value)) {
    if (out.size() > 1) out += ", ";
    out += field_text(item);
  }
  return out + "]";
}

std::string to_toml(std::span<const Field> fields) {
  std::string out;
  std::string_view section;
  for (const Field& field : fields) {
    if (section_of(field) != section) {
      section = section_of(field);
      out += cat(out.empty() ? "" : "\n", "[", section, "]\n");
    }
    out += cat(key_of(field), " = ", field_text(value_of(field)), "\n");
  }
  return out;
}

std::string to_json(std::span<const Field> fields) {
  // Sections follow each other and are one level deep or at the top, as in the recipes.
  std::string out = "{";
  std::string_view section;
  bool first = true;
  for (const Field& field : fields) {
    if (section_of(field) != section) {
      if (!section.empty()) out += "}";
      section = section_of(field);
      out += cat(first ? "" : ", ", quoted(section), ": {");
      first = true;
    }
    out += cat(first ? "" : ", ", quoted(key_of(field)), ": ", field_text(value_of(field)));
    first = false;
  }
  return out + (section.empty() ? "}" : "}}");
}

std::string help_table(std::span<const Field> fields) {
  std::size_t key_width = 0, value_width = 0;
  for (const Field& field : fields) {
    key_width = std::max(key_width, key_of(field).size());
    value_width = std::max(value_width, field_text(value_of(field)).size());
  }
  const auto padded = [](std::string text, std::size_t width) {
    text.resize(std::max(text.size(), width), ' ');
    return text;
  };
  std::string out;
  std::string_view section;
  for (const Field& field : fields) {
    if (section_of(field) != section) {
      section = section_of(field);
      out += cat(out.empty() ? "" : "\n", "[", section, "]\n");
    }
    out += cat("  ", padded(std::string(key_of(field)), key_width), "  ",
               padded(field_text(value_of(field)), value_width), "  ", field.help, " (",
               range_of(field), ")\n");
  }
  return out;
}

std::string help_table_markdown(std::span<const Field> fields) {
  const auto cell = [](std::string text) {
    for (std::size_t at = 0; (at = text.find('|', at)) != std::string::npos; at += 2) {
      text.insert(at, 1, '\\');
    }
    return text;
  };
  std::string out = "| key | default | range | meaning |\n| --- | --- | --- | --- |\n";
  for (const Field& field : fields) {
    out += cat("| `", field.path, "` | `", field_text(value_of(field)), "` | ",
               cell(range_of(field)), " | ", cell(field.help), " |\n");
  }
  return out;
}

}  // namespace cachalot
