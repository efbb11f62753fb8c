#include "grammar/schema_document.h"

#include <optional>
#include <vector>

#include "text/strict_json.h"

namespace cachalot::grammar {

namespace {

// An ordered object is searched from its first member on, also while it is read.
constexpr std::size_t kMostSearched = 20'000'000;

[[noreturn]] void refuse_text(const std::string& why) {
  throw Error(Code::kUsage, "the schema " + why);
}

class SchemaCheck final : public text::StrictJsonCheck<Json> {
 public:
  bool number_float(Json::number_float_t, const std::string& text) override {
    // It would become the nearest double, which is another integer.
    if (text.find_first_of(".eE") == std::string::npos) {
      throw Error(Code::kUnsupported, cat("the schema has the integer ", shown_name(text),
                                          ", which needs more than 64 bits"));
    }
    return true;
  }
  bool key(std::string& name) override {
    StrictJsonCheck::key(name);
    searched_ += members_here();
    if (searched_ > kMostSearched) {
      refuse_text("has too many members in its objects: make it smaller");
    }
    return true;
  }

 private:
  void refuse_twice(const std::string& name) override {
    refuse_text(cat("has \"", shown_name(name), "\" twice in one object: leave one of them out"));
  }
  std::size_t searched_ = 0;
};

Json parse_schema(std::string_view text) {
  text::require_json_text(text, "the schema");
  SchemaCheck check;
  if (!Json::sax_parse(text, &check)) {
    refuse_text(
        cat("is not JSON: it cannot be read from byte ", check.at(), " of ", text.size(), " on"));
  }
  return Json::parse(text);
}

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

// Of a fragment: "%25" becomes "%".
std::optional<std::string> percent_decoded(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    const int high = i + 2 < text.size() ? hex_value(text[i + 1]) : -1;
    const int low = i + 2 < text.size() ? hex_value(text[i + 2]) : -1;
    if (high < 0 || low < 0) return std::nullopt;
    out += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return out;
}

// Of a pointer's part: "~1" becomes "/", "~0" becomes "~".
std::optional<std::string> unescaped(std::string_view part) {
  std::string out;
  for (std::size_t i = 0; i < part.size(); ++i) {
    if (part[i] != '~') {
      out += part[i];
      continue;
    }
    if (++i == part.size() || (part[i] != '0' && part[i] != '1')) return std::nullopt;
    out += part[i] == '0' ? '~' : '/';
  }
  return out;
}

const Json* child(const Json& value, const std::string& name) {
  if (value.is_object()) {
    const auto found = value.find(name);
    return found == value.end() ? nullptr : &*found;
  }
  constexpr std::size_t kMostIndexDigits = 7;
  if (!value.is_array() || name.empty() || name.size() > kMostIndexDigits ||
      name.find_first_not_of("0123456789") != std::string::npos ||
      (name[0] == '0' && name.size() > 1)) {
    return nullptr;
  }
  const std::size_t index = std::stoul(name);
  return index < value.size() ? &value[index] : nullptr;
}

// nullptr: it leads nowhere.
const Json* walk(const Json& root, std::string_view fragment) {
  const std::optional<std::string> pointer = percent_decoded(fragment);
  if (!pointer) return nullptr;
  const Json* at = &root;
  std::string_view rest = *pointer;
  while (!rest.empty() && at != nullptr) {
    if (rest[0] != '/') return nullptr;
    rest.remove_prefix(1);
    const std::size_t end = std::min(rest.find('/'), rest.size());
    const std::optional<std::string> name = unescaped(rest.substr(0, end));
    at = name ? child(*at, *name) : nullptr;
    rest.remove_prefix(end);
  }
  return at;
}

// The way from `value` to `place` is put before `path`. A document is at most 64 deep.
bool find_place(const Json& value, const Json& place, std::string& path) {
  if (&value == &place) return true;
  if (!value.is_structured()) return false;
  std::size_t index = 0;
  for (const auto& member : value.items()) {
    if (find_place(member.value(), place, path)) {
      path.insert(0, "/" + (value.is_array() ? std::to_string(index) : shown_name(member.key())));
      return true;
    }
    ++index;
  }
  return false;
}

}  // namespace

std::string shown_name(std::string_view name) { return text::shown_text(name, 40); }

SchemaDocument::SchemaDocument(std::string_view text) : root_(parse_schema(text)) {}

const Json& SchemaDocument::target(const Json& from, const Json& ref) {
  if (!ref.is_string()) refuse(Code::kUsage, from, "$ref", "it must be a string");
  const auto& text = ref.get_ref<const std::string&>();
  const auto [known, is_new] = targets_.try_emplace(text, nullptr);
  if (is_new) {
    if (text.empty() || text[0] != '#' || (text.size() > 1 && text[1] != '/')) {
      refuse(Code::kUnsupported, from, "$ref",
             cat("\"", shown_name(text),
                 "\" is not in this document: only \"#\" and pointers such as \"#/$defs/name\" "
                 "are followed"));
    }
    known->second = walk(root_, std::string_view(text).substr(1));
  }
  if (known->second == nullptr) {
    refuse(Code::kUsage, from, "$ref",
           cat("\"", shown_name(text), "\" leads to nothing in this document"));
  }
  return *known->second;
}

void SchemaDocument::refuse(Code code, const Json& place, std::string_view keyword,
                            const std::string& why) const {
  constexpr std::size_t kMostPath = 300;
  std::string path;
  find_place(root_, place, path);
  if (!keyword.empty()) path += cat("/", keyword);
  if (path.size() > kMostPath) {
    const std::size_t cut = path.find('/', path.size() - kMostPath);
    path = cut == std::string::npos ? "/..." : "/..." + path.substr(cut);
  }
  throw Error(code, cat("the schema at #", path, ": ", why));
}

}  // namespace cachalot::grammar
