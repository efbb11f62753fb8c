// For the prefix store's tests: sequences that share beginnings, and payloads that follow from
// their tokens.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "base/error.h"
#include "infer/prefix_payload_test.h"
#include "infer/prefix_tree.h"

namespace cachalot::infer {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern =
        (std::filesystem::temp_directory_path() / "cachalot-prefix-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) std::abort();
    path_ = pattern;
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  std::filesystem::path path() const { return path_; }
  std::string store() const { return (path_ / "store").string(); }

 private:
  std::filesystem::path path_;
};

// All that lies under a folder, in bytes; files may come and go meanwhile.
inline std::uint64_t bytes_under(const std::filesystem::path& folder) {
  namespace fs = std::filesystem;
  std::uint64_t bytes = 0;
  std::error_code gone;
  for (auto it = fs::recursive_directory_iterator(folder, gone);
       !gone && it != fs::recursive_directory_iterator(); it.increment(gone)) {
    std::error_code missing;
    const std::uint64_t size = fs::file_size(it->path(), missing);
    if (!missing) bytes += size;
  }
  return bytes;
}

template <class Run>
std::string error_of(Code code, Run run) {
  try {
    run();
  } catch (const Error& e) {
    EXPECT_EQ(name(e.code()), name(code)) << e.what();
    return e.what();
  }
  ADD_FAILURE() << "no error";
  return {};
}

// Blocks of a sequence with their payloads, as the store makes them.
inline std::vector<BlockPtr> blocks_of(const KeyChain& chain, const std::vector<int>& tokens) {
  std::vector<BlockPtr> blocks;
  for (const BlockPlace& place : chain.places(tokens)) {
    auto payload = std::make_shared<std::vector<std::byte>>(
        payload_of(tokens, static_cast<int>(place.position), chain.payload_bytes()));
    blocks.push_back(std::make_shared<Block>(Block{place, *payload, payload}));
  }
  return blocks;
}

}  // namespace cachalot::infer
