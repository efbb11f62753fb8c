#include "io/toml.h"

#include <toml++/toml.h>

#include <algorithm>
#include <string>

#include "base/error.h"
#include "base/fields_text.h"

namespace cachalot::io {

namespace {

int line_of(const toml::node& node) { return static_cast<int>(node.source().begin.line); }

// Each dot of a dotted key is one table inside another, as is each brace, and the library walks
// (and frees) those by recursion. Keys cannot span lines and few tables may be open at once, so a
// bound per line bounds the depth. Braces in texts and comments count too: they close as they open.
void check_depth(std::string_view text, const std::string& file_name) {
  constexpr int kMostDots = 1000, kMostOpen = 64;
  int line = 1, dots = 0, open = 0;
  for (const char c : text) {
    if (c == '}') open = std::max(0, open - 1);
    if (c == '{' && ++open > kMostOpen) {
      throw Error(Code::kFormat, cat(file_name, ":", line, ": more than ", kMostOpen,
                                     " braces are open; tables do not lie in each other here."));
    }
    if (c == '\n') {
      ++line;
      dots = 0;
    } else if (c == '.' && ++dots > kMostDots) {
      throw Error(Code::kFormat, cat(file_name, ":", line, ": more than ", kMostDots,
                                     " dots in one line; split it into several lines."));
    }
  }
}

[[noreturn]] void refuse(const std::string& file_name, int line, std::string_view path,
                         std::string_view what) {
  throw Error(Code::kUsage,
              cat(file_name, ":", line, ": '", cachalot::printable(path), "' is ", what,
                  "; only booleans, numbers, texts and lists of them are read."));
}

// Scalars only. False: a date, a table or a list.
bool scalar(const toml::node& node, FieldValue& out) {
  if (const auto* x = node.as_boolean()) {
    out.value = x->get();
  } else if (const auto* x = node.as_integer()) {
    out.value = x->get();
  } else if (const auto* x = node.as_floating_point()) {
    out.value = x->get();
  } else if (const auto* x = node.as_string()) {
    out.value = x->get();
  } else {
    return false;
  }
  return true;
}

FieldValue value_of(const toml::node& node, const std::string& file_name, std::string_view path) {
  FieldValue value;
  if (scalar(node, value)) return value;
  const auto* list = node.as_array();
  if (list == nullptr) refuse(file_name, line_of(node), path, "a date or time");
  std::vector<FieldValue> items(list->size());
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (!scalar(*list->get(i), items[i])) {
      refuse(file_name, line_of(*list->get(i)), path, "a list with a list, table or date in it");
    }
  }
  value.value = std::move(items);
  return value;
}

void flatten(const toml::table& table, const std::string& prefix, const std::string& file_name,
             std::vector<TomlEntry>& out) {
  for (const auto& [key, node] : table) {
    const std::string name(key.str());
    if (name.find('.') != std::string::npos || name.empty()) {
      refuse(file_name, line_of(node), prefix + name, "a key that is empty or has a dot in quotes");
    }
    if (const auto* inner = node.as_table()) {
      flatten(*inner, prefix + name + ".", file_name, out);
    } else {
      out.push_back({prefix + name, value_of(node, file_name, prefix + name), line_of(node)});
    }
  }
}

}  // namespace

std::vector<TomlEntry> parse_toml(std::string_view text, const std::string& file_name) {
  if (!valid_utf8(text)) {
    throw Error(Code::kFormat, cat(file_name, ": not UTF-8; TOML files must be."));
  }
  check_depth(text, file_name);
  std::vector<TomlEntry> entries;
  try {
    flatten(toml::parse(text, file_name), "", file_name, entries);
  } catch (const toml::parse_error& e) {
    throw Error(Code::kFormat,
                cat(file_name, ":", e.source().begin.line, ":", e.source().begin.column, ": ",
                    cachalot::printable(e.description()), "."));
  }
  std::stable_sort(entries.begin(), entries.end(),
                   [](const TomlEntry& a, const TomlEntry& b) { return a.line < b.line; });
  return entries;
}

}  // namespace cachalot::io
