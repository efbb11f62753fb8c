// For tests only: where the fixture folders are, and temporary folders.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace cachalot::testing {

// $CACHALOT_FIXTURES, else tests/fixtures of this project.
std::filesystem::path fixtures_root();

enum class FixtureKind { kModel, kTrain, kFp8, kOps, kAdamw, kTokenizer };
// Every folder below fixtures_root() of that kind, by its name's beginning (train*, fp8*, ops*,
// adamw*, tokenizer*, else a model), sorted by name. A test over fixtures fails when this is empty.
std::vector<std::filesystem::path> fixture_folders(FixtureKind kind);

// A fresh folder below the system's temporary folder, removed with its contents in the destructor.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::filesystem::path& path() const noexcept { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace cachalot::testing
