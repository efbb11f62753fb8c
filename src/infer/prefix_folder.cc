#include "infer/prefix_folder.h"

#include <xxhash.h>

#include <charconv>
#include <cstdio>
#include <string>
#include <system_error>
#include <utility>

#include "base/error.h"

namespace cachalot::infer {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kFirstLine = "cachalot prefix store\n";
constexpr std::size_t kMaxStoreFile = 4096;

std::string hex(std::span<const std::uint8_t> bytes) {
  std::string text;
  for (const std::uint8_t byte : bytes) {
    constexpr const char* kDigits = "0123456789abcdef";
    text.push_back(kDigits[byte >> 4]);
    text.push_back(kDigits[byte & 15]);
  }
  return text;
}

std::string checksum(std::string_view text) {
  char line[32];
  std::snprintf(line, sizeof line, "%016llx",
                static_cast<unsigned long long>(XXH3_64bits(text.data(), text.size())));
  return line;
}

std::string store_text(const ChainSecret& secret) {
  std::string text = cat(kFirstLine, "version ", kStoreVersion, "\nsecret ", hex(secret), "\n");
  text += cat("checksum ", checksum(text), "\n");
  return text;
}

// What follows `key` on a line of its own; empty where there is no such line.
std::string_view value_of(std::string_view text, std::string_view key) {
  const std::string start = cat("\n", key, " ");
  const std::size_t at = text.find(start);
  if (at == std::string_view::npos) return {};
  text.remove_prefix(at + start.size());
  return text.substr(0, text.find('\n'));
}

// The secret, where the file is exactly what store_text writes for it.
std::optional<ChainSecret> parse_secret(std::string_view text) {
  const std::string_view digits = value_of(text, "secret");
  ChainSecret secret;
  if (digits.size() != 2 * secret.size()) return std::nullopt;
  for (std::size_t i = 0; i < secret.size(); ++i) {
    const char* pair = digits.data() + 2 * i;
    if (std::from_chars(pair, pair + 2, secret[i], 16).ptr != pair + 2) return std::nullopt;
  }
  if (text != store_text(secret)) return std::nullopt;
  return secret;
}

}  // namespace

PrefixFolder::PrefixFolder(fs::path path, const Report& report) : path_(std::move(path)) {
  try {
    fs::create_directories(path_);
    refuse_a_strangers_folder();
    try {
      lock_.emplace(path_ / "lock");
    } catch (const Error& e) {
      if (e.code() != Code::kBusy) throw;
      throw Error(Code::kBusy, cat("the prefix store ", path_.string(), " is in use: ", e.what(),
                                   " Or give this process a folder of its own."));
    }
    read_or_create(report);
    fs::remove_all(incoming());
    fs::create_directory(incoming());
  } catch (const fs::filesystem_error& e) {
    throw Error(Code::kIo, cat("cannot use ", path_.string(), " as a prefix store: ",
                               e.code().message(), ". Give a folder that can be written."));
  }
}

// Before anything is written: a mistyped path must not put files among somebody's own.
void PrefixFolder::refuse_a_strangers_folder() const {
  if (fs::exists(path_ / "STORE")) return;
  for (const fs::directory_entry& entry : fs::directory_iterator(path_)) {
    const std::string name = entry.path().filename().string();
    // What a process leaves that was killed while it made a store here.
    if (name == "lock" || name.starts_with(".STORE.tmp-")) continue;
    throw Error(Code::kFormat,
                cat(path_.string(), " is not a prefix store: it has no file STORE, but it has ",
                    name, ". Give a new or an empty folder, or the folder of a store."));
  }
}

void PrefixFolder::read_or_create(const Report& report) {
  const fs::path file = path_ / "STORE";
  if (fs::exists(file)) {
    const std::string text = read_file(file, kMaxStoreFile);
    if (!text.starts_with(kFirstLine)) {
      throw Error(Code::kFormat,
                  cat(path_.string(),
                      " is not a prefix store: its file STORE does not begin as one. "
                      "Give another folder; if this was a store, delete it."));
    }
    const std::string_view digits = value_of(text, "version");
    int version = 0;
    std::from_chars(digits.data(), digits.data() + digits.size(), version);
    if (version > kStoreVersion) {
      throw Error(Code::kUnsupported,
                  cat("the prefix store ", path_.string(), " has format ", version,
                      ", and this program reads formats up to ", kStoreVersion,
                      ". Run the newer program that wrote it, or give another folder."));
    }
    if (const auto secret = parse_secret(text)) {
      secret_ = *secret;
      return;
    }
    report(cat("the prefix store ", path_.string(),
               " starts afresh: its file STORE is damaged, and without it no block can be found."));
    fs::remove_all(database());
  }
  secret_ = random_secret();
  write_file_atomically(file, store_text(secret_));
}

}  // namespace cachalot::infer
