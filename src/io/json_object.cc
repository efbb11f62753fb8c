#include "io/json_object.h"

#include "base/error.h"

namespace cachalot::io {

simdjson::dom::object parse_json_object(simdjson::dom::parser& parser, std::string_view text,
                                        const std::string& where) {
  simdjson::dom::element root;
  // The parser copies the text into padded memory of its own.
  if (const auto error = parser.parse(text.data(), text.size()).get(root)) {
    throw Error(Code::kFormat, cat(where, " is not JSON: ", simdjson::error_message(error)));
  }
  simdjson::dom::object object;
  if (root.get(object) != simdjson::SUCCESS) {
    throw Error(Code::kFormat, cat(where, " is not a JSON object."));
  }
  return object;
}

std::string printable(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = '?';
  }
  return out;
}

std::map<std::string, std::string> parse_string_map(const simdjson::dom::element& value,
                                                    const std::string& where) {
  simdjson::dom::object object;
  if (value.get(object) != simdjson::SUCCESS) {
    throw Error(Code::kFormat, cat(where, " is not a JSON object."));
  }
  std::map<std::string, std::string> map;
  for (const auto& [key, field] : object) {
    std::string_view text;
    if (field.get(text) != simdjson::SUCCESS) {
      throw Error(Code::kFormat, cat(where, ": '", printable(key), "' is not a string."));
    }
    if (!map.emplace(std::string(key), std::string(text)).second) {
      throw Error(Code::kFormat, cat(where, ": '", printable(key), "' is there twice."));
    }
  }
  return map;
}

void refuse_deep_json(std::string_view text, const std::string& where) {
  constexpr int kMostDepth = 64;
  int depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kMostDepth) {
        throw Error(Code::kFormat, cat(where, ": lists and objects lie more than ", kMostDepth,
                                       " deep in each other; nothing that is read here does."));
      }
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
}

}  // namespace cachalot::io
