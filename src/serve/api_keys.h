// Who may ask: keys from a file, one a line as "NAME KEY" or "KEY"; a word that begins with '#'
// begins a comment.
//
// Owns:    the names, and the keys' SHA-256. A key itself stays nowhere that a log could show it.
// Threads: immutable after construction.
// Errors:  kIo, kFormat (file and line; never the key), kUsage for a file without keys.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace cachalot::serve {

class ApiKeys {
 public:
  // A shorter key could be found by trying; a longer one would not pass as a header everywhere.
  static constexpr std::size_t kLeastKeyBytes = 16, kMostKeyBytes = 512;
  static constexpr std::size_t kMostNameBytes = 64;
  static constexpr std::size_t kMostKeys = 4096;  // every request is compared with all of them

  ApiKeys() = default;  // none: everyone may ask
  static ApiKeys load(const std::filesystem::path& file);
  static ApiKeys parse(std::string_view text, const std::string& file_name);
  // What is to be said of a file of keys that others than its owner may read or change.
  static std::optional<std::string> warning(const std::filesystem::path& file);

  bool required() const noexcept { return !keys_.empty(); }
  std::size_t size() const noexcept { return keys_.size(); }
  // The name behind "Bearer KEY", the value of the Authorization header; nullopt: no or a wrong
  // key. A key without a name is "line N" of its file. Takes the same time whichever key is given
  // and wherever it differs.
  std::optional<std::string> name_of(std::string_view authorization) const;

 private:
  struct Key {
    std::string name;
    std::string sha256;  // 32 bytes
  };
  std::vector<Key> keys_;
};

}  // namespace cachalot::serve
