// Whose rows a store holds.
#include "infer/prefix_blocks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/atomic_file.h"
#include "infer/computing_code.h"
#include "infer/engine_case_test.h"
#include "infer/prefix_payload_test.h"

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

// Rows that other code computed lie in the same folder and are not found; a named context of them
// is listed, can be deleted, and is no longer of use.
TEST(PrefixBlocksTest, RowsOfOtherCodeAreNotFound) {
  const Fixture f;
  const testing::TempDir dir;
  const model::CacheShape shape(f.model.config(), LatentFormat::kF32);
  const PrefixIdentity now = prefix_identity(f.folder, f.rt.context(), f.model, shape,
                                             model::AttentionMode::kAbsorbed, true);
  ASSERT_THAT(now.numerics, ::testing::HasSubstr(computing_code()));
  EXPECT_THAT(std::string(sources_fingerprint()), ::testing::MatchesRegex("[0-9a-f]{32}"));
  PrefixIdentity older = now;
  older.numerics.replace(older.numerics.find(sources_fingerprint()), 1, "x");
  const PrefixStoreConfig where{.folder = (dir.path() / "store").string()};
  const auto tokens = sequence(std::vector<int>{1, 2, 3});
  const auto hits = [&](PrefixStore& store) {
    return store.lookup(tokens, [](int, auto) { return true; }).hit_tokens;
  };
  {
    PrefixStore store(where, older);
    store.insert(tokens, 0, [&](int block, auto out) { fill_payload(tokens, block, out); });
    EXPECT_EQ(store.save_context("book", tokens).tokens, 192);
    EXPECT_EQ(hits(store), 192);
  }
  PrefixStore store(where, now);
  EXPECT_EQ(hits(store), 0);
  ASSERT_EQ(store.contexts().size(), 1U);
  EXPECT_FALSE(store.contexts().front().usable);
  EXPECT_TRUE(store.delete_context("book"));
  EXPECT_EQ(store.counters().context_bytes, 0U);
}

}  // namespace
}  // namespace cachalot::infer
