#include "testing/fixtures.h"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>

namespace cachalot::testing {

namespace fs = std::filesystem;

fs::path fixtures_root() {
  if (const char* given = std::getenv("CACHALOT_FIXTURES")) return given;
  return fs::path(CACHALOT_SOURCE_DIR) / "tests" / "fixtures";
}

static FixtureKind kind_of(const std::string& name) {
  if (name.starts_with("train")) return FixtureKind::kTrain;
  if (name.starts_with("fp8")) return FixtureKind::kFp8;
  if (name.starts_with("ops")) return FixtureKind::kOps;
  if (name.starts_with("adamw")) return FixtureKind::kAdamw;
  if (name.starts_with("tokenizer")) return FixtureKind::kTokenizer;
  return FixtureKind::kModel;
}

std::vector<fs::path> fixture_folders(FixtureKind kind) {
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(fixtures_root())) {
    if (!entry.is_directory()) continue;
    if (kind_of(entry.path().filename().string()) == kind) found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

TempDir::TempDir() {
  std::string pattern = (fs::temp_directory_path() / "cachalot-test-XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp failed: " + pattern);
  path_ = pattern;
}

TempDir::~TempDir() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

}  // namespace cachalot::testing
