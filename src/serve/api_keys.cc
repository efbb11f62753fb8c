#include "serve/api_keys.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <unordered_map>

#include "base/atomic_file.h"
#include "base/error.h"

namespace cachalot::serve {

namespace {

constexpr std::uint64_t kMostFileBytes = 1 << 20;
constexpr std::string_view kBlanks = " \t";
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
constexpr std::size_t kSha256Bytes = 32;

std::string sha256(std::string_view text) {
  std::string hash(kSha256Bytes, '\0');
  unsigned int bytes = 0;
  if (EVP_Digest(text.data(), text.size(), reinterpret_cast<unsigned char*>(hash.data()), &bytes,
                 EVP_sha256(), nullptr) != 1 ||
      bytes != kSha256Bytes) {
    throw Error(Code::kInternal,
                "SHA-256 of a key could not be computed: OpenSSL has no such digest; check its "
                "configuration (openssl.cnf)");
  }
  return hash;
}

// Letters, digits and signs of ASCII alone: keys travel in a header, names are shown in logs, and
// neither place can bear a control character.
bool visible(std::string_view word) {
  return std::all_of(word.begin(), word.end(), [](char c) { return c > ' ' && c < '\x7F'; });
}

std::vector<std::string_view> words_of(std::string_view line) {
  std::vector<std::string_view> words;
  while (true) {
    const std::size_t begin = line.find_first_not_of(kBlanks);
    if (begin == std::string_view::npos) return words;
    line.remove_prefix(begin);
    const std::size_t length = std::min(line.find_first_of(kBlanks), line.size());
    words.push_back(line.substr(0, length));
    line.remove_prefix(length);
  }
}

std::vector<std::string_view> without_comment(std::vector<std::string_view> words) {
  const auto comment = std::find_if(words.begin(), words.end(),
                                    [](std::string_view word) { return word.front() == '#'; });
  words.erase(comment, words.end());
  return words;
}

// The word after "Bearer"; empty where there is none, or another scheme.
std::string_view bearer_token(std::string_view authorization) {
  constexpr std::string_view kScheme = "bearer";
  const std::vector<std::string_view> words = words_of(authorization);
  const bool is_bearer = words.size() == 2 &&
                         std::equal(words[0].begin(), words[0].end(), kScheme.begin(),
                                    kScheme.end(), [](char met, char wanted) {
                                      return (met >= 'A' && met <= 'Z' ? met + 32 : met) == wanted;
                                    });
  return is_bearer ? words[1] : std::string_view();
}

// The lines of one file, and where each name and key was met first.
class Reader {
 public:
  explicit Reader(const std::string& file) : file_(file) {}

  // {name, key} of a line that has a key.
  std::optional<std::pair<std::string, std::string_view>> read(std::string_view line, int number) {
    number_ = number;
    const std::vector<std::string_view> words = without_comment(words_of(line));
    if (words.empty()) return std::nullopt;
    if (words.size() > 2) {
      fail(cat("has ", words.size(),
               " words, but must be NAME KEY or KEY: write names without "
               "blanks, and '#' before a comment"));
    }
    const std::string_view key = words.back();
    if (!visible(key)) {
      fail(
          "has a control character, or one that is not ASCII, in its key: make a key of letters "
          "and digits, as `openssl rand -hex 32` does");
    }
    if (key.size() < ApiKeys::kLeastKeyBytes) {
      fail(cat("has a key of ", key.size(), " characters, but a key must have ",
               ApiKeys::kLeastKeyBytes,
               " at least, or it could be guessed: `openssl rand -hex 32` makes a good one"));
    }
    if (key.size() > ApiKeys::kMostKeyBytes) {
      fail(cat("has a key of ", key.size(), " characters, but a key may have ",
               ApiKeys::kMostKeyBytes, " at most"));
    }
    return std::pair(words.size() == 2 ? named(words.front()) : cat("line ", number), key);
  }
  void hashed(const std::string& hash) {
    const auto [first, is_new] = hashes_.try_emplace(hash, number_);
    if (!is_new) {
      fail(cat("has the key of line ", first->second,
               " again: give each its own key, so that one can be taken back alone"));
    }
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw Error(Code::kFormat, cat(file_, ":", number_, ": this line ", what));
  }
  std::string named(std::string_view name) {
    if (!visible(name)) {
      fail(
          "has a control character, or one that is not ASCII, in its name: names are shown in the "
          "log; write it in ASCII");
    }
    if (name.size() > ApiKeys::kMostNameBytes) {
      // Not shown: name and key may have been swapped.
      fail(cat("has a name of ", name.size(), " characters, but a name may have ",
               ApiKeys::kMostNameBytes, " at most; a line is NAME KEY, in that order"));
    }
    const auto [first, is_new] = names_.try_emplace(std::string(name), number_);
    if (!is_new) {
      fail(cat("has the name of line ", first->second,
               " again: give each key a name of its own, or none"));
    }
    return first->first;
  }

  const std::string& file_;
  int number_ = 0;
  std::unordered_map<std::string, int> names_, hashes_;
};

}  // namespace

ApiKeys ApiKeys::load(const std::filesystem::path& file) {
  std::string text = read_file(file, kMostFileBytes);
  ApiKeys keys = parse(text, file.string());
  OPENSSL_cleanse(text.data(), text.size());  // no later core dump has the keys
  return keys;
}

ApiKeys ApiKeys::parse(std::string_view text, const std::string& file_name) {
  ApiKeys keys;
  Reader reader(file_name);
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  for (int number = 1; !text.empty(); ++number) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    const auto entry = reader.read(line, number);
    if (!entry) continue;
    std::string hash = sha256(entry->second);
    reader.hashed(hash);
    if (keys.keys_.size() == kMostKeys) {
      throw Error(Code::kFormat, cat(file_name, ":", number, ": there are more than ", kMostKeys,
                                     " keys, with all of which every request is compared; put a "
                                     "gateway before the server that knows so many users"));
    }
    keys.keys_.push_back({entry->first, std::move(hash)});
  }
  if (keys.keys_.empty()) {
    throw Error(Code::kUsage,
                cat(file_name,
                    " has no key, so that nobody could ask: write one a line, as NAME "
                    "KEY (`openssl rand -hex 32` makes one), or leave --api-keys out"));
  }
  return keys;
}

std::optional<std::string> ApiKeys::warning(const std::filesystem::path& file) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(file, error);
  constexpr auto kOthers = std::filesystem::perms::group_all | std::filesystem::perms::others_all;
  if (error || status.type() != std::filesystem::file_type::regular ||
      (status.permissions() & kOthers) == std::filesystem::perms::none) {
    return std::nullopt;
  }
  const auto mode = static_cast<unsigned int>(status.permissions() & std::filesystem::perms::all);
  std::array<char, 4> digits = {static_cast<char>('0' + (mode >> 6)),
                                static_cast<char>('0' + (mode >> 3 & 7)),
                                static_cast<char>('0' + (mode & 7)), '\0'};
  return cat(file.string(), " holds keys, but its mode ", digits.data(),
             " gives rights to others than its owner: `chmod 600 ", file.string(), "`");
}

std::optional<std::string> ApiKeys::name_of(std::string_view authorization) const {
  const std::string_view token = bearer_token(authorization);
  if (token.empty() || token.size() > kMostKeyBytes) return std::nullopt;
  const std::string hash = sha256(token);
  // All keys are looked at, and without a branch, so that time tells nothing.
  std::size_t found = keys_.size();
  for (std::size_t i = 0; i < keys_.size(); ++i) {
    const bool same = CRYPTO_memcmp(hash.data(), keys_[i].sha256.data(), kSha256Bytes) == 0;
    found ^= (found ^ i) & (std::size_t{0} - static_cast<std::size_t>(same));
  }
  if (found == keys_.size()) return std::nullopt;
  return keys_[found].name;
}

}  // namespace cachalot::serve
