// Whose rows a store holds.
#include "infer/prefix_blocks.h"

#include <gtest/gtest.h>

#include "base/atomic_file.h"
#include "infer/engine_case_test.h"

namespace cachalot::infer {
namespace {

namespace fs = std::filesystem;

// One changed bit anywhere is another model, whose rows are others; a copy is the same one.
TEST(PrefixBlocksTest, AnyChangedBitIsAnotherModel) {
  const Fixture f;
  const testing::TempDir dir;
  const model::CacheShape shape(f.model.config(), LatentFormat::kF32);
  const auto identity = [&](const fs::path& folder) {
    return prefix_identity(folder, f.rt.context(), f.model, shape, model::AttentionMode::kAbsorbed,
                           true)
        .model;
  };
  const std::string whole = identity(f.folder);
  const fs::path copy = dir.path() / "m";
  fs::copy(f.folder, copy, fs::copy_options::recursive);
  EXPECT_EQ(identity(copy), whole);
  const fs::path file = copy / "model.safetensors";
  const std::string bytes = read_file(file, 1 << 28);
  constexpr int kPlaces = 23;
  for (std::size_t i = 1; i < kPlaces; ++i) {
    std::string changed = bytes;
    const std::size_t at = bytes.size() / kPlaces * i;
    changed[at] = static_cast<char>(changed[at] ^ 1);
    write_file_atomically(file, changed);
    EXPECT_NE(identity(copy), whole) << "byte " << at << " of " << bytes.size();
  }
  write_file_atomically(file, bytes);
  EXPECT_EQ(identity(copy), whole);
  write_file_atomically(copy / "config.json", read_file(copy / "config.json", 1 << 20) + "\n");
  EXPECT_NE(identity(copy), whole);
}

}  // namespace
}  // namespace cachalot::infer
