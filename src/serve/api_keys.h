// Who may ask: keys from a file, one a line as "NAME KEY" or "KEY"; '#' begins a comment.
//
// Owns:    the keys' hashes... and names; not the keys themselves in a form that a log could show.
// Threads: immutable after construction.
// Errors:  kIo, kFormat (file and line; never the key), kUsage for an empty file.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace cachalot::serve {

class ApiKeys {
 public:
  ApiKeys() = default;  // none: everyone may ask
  static ApiKeys load(const std::filesystem::path& file);
  static ApiKeys parse(std::string_view text, const std::string& file_name);

  bool required() const noexcept { return !keys_.empty(); }
  // The name behind "Bearer KEY", the value of the Authorization header; nullopt: no or a wrong
  // key. Takes the same time whichever key is given and wherever it differs.
  std::optional<std::string> name_of(std::string_view authorization) const;

 private:
  struct Key {
    std::string name;
    std::string sha256;  // 32 bytes
  };
  std::vector<Key> keys_;
};

}  // namespace cachalot::serve
