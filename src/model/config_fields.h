// One JSON object of a config.json, read field by field with errors that name file, field and
// value.
//
// Owns:    nothing; points into the simdjson parser that made the object.
// Threads: one thread.
// Errors:  kConfig for a value of the wrong kind or a missing one; kFormat for a key given twice.
#pragma once

#include <simdjson.h>

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace cachalot::model {

class Fields {
 public:
  // `prefix` goes before a field's name in messages: "rope_scaling.".
  Fields(const simdjson::dom::object& object, std::string file, std::string prefix);

  const std::string& file() const noexcept { return file_; }
  // "config.json: rope_scaling.factor"
  std::string where(std::string_view key) const;
  [[noreturn]] void fail(std::string_view key, const std::string& text) const;
  // ... is <value as it stands in the file>; <needed>
  [[noreturn]] void wrong(std::string_view key, const std::string& needed) const;
  [[noreturn]] void unsupported(std::string_view key, const std::string& needed) const;

  std::vector<std::string> names() const;
  bool is_written(std::string_view key) const;  // also as null
  bool has(std::string_view key) const;         // and not null
  // All readers give nothing where the key is absent or null.
  std::optional<int> whole(std::string_view key) const;  // 3 and 3.0; limited to int
  std::optional<double> real(std::string_view key) const;
  std::optional<bool> boolean(std::string_view key) const;
  std::optional<std::string> text(std::string_view key) const;
  std::optional<Fields> object(std::string_view key) const;
  std::optional<simdjson::dom::array> list(std::string_view key) const;
  std::optional<int> whole_of(const simdjson::dom::element& value) const;

  int required_whole(std::string_view key) const;
  // A number, or null for none (0); absent is an error.
  int whole_or_null(std::string_view key) const;
  // Of each key that no reader has asked for and that is spelt almost as one that was asked for in
  // vain, one text. To be called when all has been read.
  void remark_misspelt(std::vector<std::string>& remarks) const;
  // kUnsupported unless every key is one of `known`.
  void only(std::initializer_list<std::string_view> known) const;

 private:
  [[noreturn]] void missing(std::string_view key, const std::string& advice) const;
  const simdjson::dom::element* find(std::string_view key) const;

  std::map<std::string, simdjson::dom::element, std::less<>> fields_;
  mutable std::set<std::string, std::less<>> asked_;  // keys that readers know
  std::string file_;
  std::string prefix_;
};

// `quantization_config` of `f`, into config.fp8 or config.packed (config_quantization.cc).
struct Config;
void parse_quantization(const Fields& f, Config& config);

}  // namespace cachalot::model
