// What the store does about bytes that are not those it wrote.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/rng.h"
#include "infer/prefix_case_test.h"
#include "infer/prefix_database.h"
#include "infer/prefix_record.h"
#include "infer/prefix_segment.h"
#include "infer/prefix_store.h"

namespace cachalot::infer {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr std::size_t kPayload = 700;
constexpr std::int64_t kDisk = 8 << 20;
const PrefixIdentity kIdentity{"model", "bf16", kPayload};

class PrefixDamageTest : public ::testing::Test {
 protected:
  std::unique_ptr<PrefixStore> open(const std::string& folder) {
    PrefixStoreConfig config;
    config.folder = folder;
    config.ram_bytes = 0;
    config.disk_bytes = kDisk;
    config.context_bytes = 1 << 20;
    return std::make_unique<PrefixStore>(config, kIdentity);
  }
  std::unique_ptr<PrefixStore> open() { return open(folder_.store()); }

  void insert(PrefixStore& store, const std::vector<int>& tokens) {
    store.insert(tokens, 0, [&](int block, auto out) { fill_payload(tokens, block, out); });
    EXPECT_TRUE(store.flush());
  }
  // A wrong payload fails the test; how many tokens hit is for the caller.
  std::int64_t hit(PrefixStore& store, const std::vector<int>& tokens) {
    const auto use = [&](int block, std::span<const std::byte> payload) {
      const auto want = payload_of(tokens, block, kPayload);
      EXPECT_TRUE(std::equal(want.begin(), want.end(), payload.begin(), payload.end()));
      return true;
    };
    return store.lookup(tokens, use).hit_tokens;
  }

  // The store's database without the store.
  template <class Run>
  void with_database(Run run) {
    const Report ignore = [](std::string_view) {};
    const PrefixFolder folder(folder_.store(), ignore);
    Database database = open_database(folder, DiskBudget(kDisk, kPayload), nullptr, ignore);
    run(database, KeyChain(kIdentity, folder.secret()));
  }
  void change(Database& database, rocksdb::ColumnFamilyHandle* family, const rocksdb::Slice& key,
              const std::function<void(std::string&)>& edit) {
    std::string value;
    ASSERT_TRUE(database.db->Get({}, family, key, &value).ok());
    edit(value);
    ASSERT_TRUE(database.db->Put({}, family, key, value).ok());
  }

  void damage_any_files(int rounds, std::uint64_t seed);

  TemporaryFolder folder_;
  const std::vector<int> tokens_ = sequence(std::vector<int>{1, 2, 3, 4});
};

TEST_F(PrefixDamageTest, EveryKindOfDamagedRecordIsDeletedReportedAndComputedAgain) {
  // One place in each field of the header, the payload's ends, and lengths.
  std::vector<std::function<void(std::string&)>> edits;
  for (const std::size_t at : {0, 4, 8, 12, 16, 24, 40, 56, 64, 319, 320, 328, 336,
                               static_cast<int>(kRecordHeaderBytes + kPayload) - 1}) {
    edits.push_back([at](std::string& value) { value[at] = static_cast<char>(value[at] ^ 0x10); });
  }
  edits.push_back([](std::string& value) { value.clear(); });
  edits.push_back([](std::string& value) { value.resize(100); });
  edits.push_back([](std::string& value) { value.pop_back(); });
  edits.push_back([](std::string& value) { value.push_back('x'); });
  insert(*open(), tokens_);
  for (const auto& edit : edits) {
    with_database([&](Database& database, const KeyChain& chain) {
      change(database, database.blocks, slice(chain.places(tokens_)[2].key), edit);
    });
    auto store = open();
    EXPECT_EQ(hit(*store, tokens_), 128);
    EXPECT_EQ(store->counters().damaged, 1u);
    ASSERT_EQ(store->reports().size(), 1u);
    EXPECT_THAT(store->reports()[0], HasSubstr("block 2 of a prompt is damaged: it"));
    EXPECT_EQ(hit(*store, tokens_), 128);  // deleted: not met again
    EXPECT_EQ(store->counters().damaged, 1u);
    insert(*store, tokens_);
    EXPECT_EQ(hit(*store, tokens_), 256);
    EXPECT_EQ(store->counters().written, 1u);
  }
}

TEST_F(PrefixDamageTest, ASoundBlockInAnothersPlaceIsNotUsed) {
  insert(*open(), tokens_);
  with_database([&](Database& database, const KeyChain& chain) {
    std::string other;
    const auto places = chain.places(tokens_);
    ASSERT_TRUE(database.db->Get({}, database.blocks, slice(places[3].key), &other).ok());
    change(database, database.blocks, slice(places[1].key), [&](std::string& v) { v = other; });
  });
  auto store = open();
  EXPECT_EQ(hit(*store, tokens_), 64);
  EXPECT_EQ(store->counters().damaged, 0u);
  insert(*store, tokens_);
  EXPECT_EQ(hit(*store, tokens_), 256);
}

TEST_F(PrefixDamageTest, ADamagedBlockOfAContextLeavesAHole) {
  {
    auto store = open();
    insert(*store, tokens_);
    store->save_context("a", tokens_);
    store->save_context("b", sequence(std::vector<int>{1, 2}));
  }
  with_database([&](Database& database, const KeyChain& chain) {
    const SegmentKey key(1, 1);
    change(database, database.kept, key.slice(), [](std::string& v) { v[400] ^= 1; });
    for (const BlockPlace& place : chain.places(tokens_)) {
      ASSERT_TRUE(database.db->Delete({}, database.blocks, slice(place.key)).ok());
    }
  });
  auto store = open();
  EXPECT_EQ(hit(*store, tokens_), 64);
  EXPECT_EQ(store->counters().damaged, 1u);
  ASSERT_EQ(store->reports().size(), 1u);
  EXPECT_THAT(store->reports()[0], HasSubstr("block 1 of a named context is damaged"));
  for (const ContextInfo& info : store->contexts()) EXPECT_EQ(info.missing, 64) << info.name;
  store = nullptr;
  store = open();  // the hole is remembered
  EXPECT_EQ(hit(*store, tokens_), 64);
  EXPECT_EQ(store->counters().damaged, 0u);
  insert(*store, tokens_);
  EXPECT_EQ(store->counters().written, 1u);  // only the hole
  EXPECT_EQ(hit(*store, tokens_), 256);
  EXPECT_EQ(store->save_context("a", tokens_).tokens, 256);
  EXPECT_EQ(store->contexts()[0].missing, 0);
  EXPECT_EQ(store->contexts()[1].missing, 64);
  // A segment that is not one clean file any more can still be deleted.
  EXPECT_TRUE(store->delete_context("a"));
  EXPECT_TRUE(store->delete_context("b"));
  EXPECT_EQ(store->counters().context_bytes, 0u);
  store.reset();
  with_database(
      [&](Database& database, const KeyChain&) { EXPECT_THAT(segments_of(database), IsEmpty()); });
}

TEST_F(PrefixDamageTest, ADamagedContextRecordIsDeleted) {
  {
    auto store = open();
    insert(*store, tokens_);
    store->save_context("a", tokens_);
    store->save_context("b", sequence(std::vector<int>{1}));
  }
  with_database([&](Database& database, const KeyChain&) {
    change(database, database.names, "a", [](std::string& v) { v[30] ^= 1; });
  });
  auto store = open();
  EXPECT_THAT(store->reports(), ElementsAre(HasSubstr("named context a is damaged")));
  EXPECT_EQ(store->counters().damaged, 1u);
  EXPECT_EQ(store->contexts().size(), 1u);
  store = nullptr;
  store = open();
  EXPECT_THAT(store->reports(), IsEmpty());
  EXPECT_GT(store->counters().context_bytes, 0u);
}

// A save that was killed between its file and its record.
TEST_F(PrefixDamageTest, SegmentsThatNothingRefersToGo) {
  {
    auto store = open();
    insert(*store, tokens_);
    store->save_context("a", tokens_);
  }
  std::ofstream(fs::path(folder_.store()) / "incoming" / "segment-9.sst") << "half";
  with_database([&](Database& database, const KeyChain&) {
    ASSERT_TRUE(database.db->Delete({}, database.names, "a").ok());
    EXPECT_EQ(segments_of(database).size(), 1u);
  });
  EXPECT_EQ(open()->counters().context_bytes, 0u);
  with_database(
      [&](Database& database, const KeyChain&) { EXPECT_THAT(segments_of(database), IsEmpty()); });
  EXPECT_TRUE(fs::is_empty(fs::path(folder_.store()) / "incoming"));
}

TEST_F(PrefixDamageTest, FoldersThatAreNoStore) {
  const fs::path strange = folder_.path() / "strange";
  fs::create_directories(strange);
  std::ofstream(strange / "thesis.tex") << "x";
  const std::string text = error_of(Code::kFormat, [&] { open(strange); });
  EXPECT_THAT(text, HasSubstr("strange is not a prefix store"));
  EXPECT_THAT(text, HasSubstr("thesis.tex"));
  EXPECT_THAT(text, HasSubstr("Give a new or an empty folder"));
  EXPECT_EQ(std::distance(fs::directory_iterator(strange), fs::directory_iterator()), 1);
  std::ofstream(strange / "STORE") << "my store\n";
  error_of(Code::kFormat, [&] { open(strange); });
  const fs::path file = folder_.path() / "file";
  std::ofstream(file) << "x";
  error_of(Code::kIo, [&] { open(file); });
  error_of(Code::kIo, [&] { open("/proc/no-such-folder"); });
  const fs::path empty = folder_.path() / "empty";
  fs::create_directories(empty);
  std::ofstream(empty / "lock") << "4711\n";  // killed while it made the store
  std::ofstream(empty / ".STORE.tmp-1-0") << "cacha";
  insert(*open(empty), tokens_);
}

TEST_F(PrefixDamageTest, VersionsAndDamageOfTheStoreFile) {
  insert(*open(), tokens_);
  const fs::path file = fs::path(folder_.store()) / "STORE";
  const std::string sound = read_file(file, 10000);
  std::string newer = sound;
  newer.replace(newer.find("version 1"), 9, "version 2");
  std::ofstream(file) << newer;
  const std::string text = error_of(Code::kUnsupported, [&] { open(); });
  EXPECT_THAT(text, HasSubstr(folder_.store() + " has format 2"));
  EXPECT_THAT(text, HasSubstr("up to 1"));
  std::ofstream(file) << sound;
  EXPECT_EQ(hit(*open(), tokens_), 256);  // unharmed
  // Every byte after the first line and the version; the secret decides all keys.
  for (std::size_t i = sound.find("secret"); i < sound.size(); i += 37) {
    std::string damaged = sound;
    damaged[i] = static_cast<char>(damaged[i] ^ 1);
    std::ofstream(file) << damaged;
    auto store = open();
    EXPECT_THAT(store->reports(), ElementsAre(HasSubstr("starts afresh")));
    insert(*store, tokens_);
    EXPECT_EQ(hit(*store, tokens_), 256);
    store = nullptr;
    EXPECT_EQ(hit(*open(), tokens_), 256);
  }
  std::ofstream(file) << sound.substr(0, 100);
  EXPECT_EQ(open()->reports().size(), 1u);
}

// Removes the file, cuts it, or writes over up to four of its bytes.
template <class Below>
void damage(const fs::path& file, const Below& below) {
  const std::uint64_t size = fs::file_size(file);
  switch (below(4)) {
    case 0:
      fs::remove(file);
      break;
    case 1:
      fs::resize_file(file, below(size + 1));
      break;
    default: {
      std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
      for (std::uint64_t n = 1 + below(4); n > 0 && size > 0; --n) {
        stream.seekp(static_cast<std::streamoff>(below(size)));
        stream.put(static_cast<char>(below(256)));
      }
    }
  }
}

// Flips, cuts, holes and missing files, anywhere in a store with logs, tables and contexts: it
// opens, says what it found or just misses, never returns a wrong byte, and works from then on.
void PrefixDamageTest::damage_any_files(int rounds, std::uint64_t seed) {
  const fs::path whole = folder_.path() / "whole";
  std::vector<std::vector<int>> all;
  {
    for (int i = 0; i < 40; ++i) {
      std::vector<int> choices{i % 3};
      for (int b = 0; b < 10; ++b) choices.push_back(100 + 10 * i + b);
      all.push_back(sequence(choices));
    }
    auto store = open(whole);
    for (const auto& tokens : all) insert(*store, tokens);
    for (int i = 0; i < 3; ++i) store->save_context(cat("context ", i), all[i]);
    store->delete_context("context 1");
  }
  insert(*open(whole), sequence(std::vector<int>{77}));  // and a second life's files
  const Rng rng(seed);
  std::uint64_t at = 0;
  const auto below = [&](std::uint64_t n) { return rng.below(at++, n); };
  int repaired = 0;
  int afresh = 0;
  std::int64_t kept = 0;
  for (int round = 0; round < rounds; ++round) {
    const fs::path folder = folder_.path() / "damaged";
    fs::remove_all(folder);
    fs::copy(whole, folder, fs::copy_options::recursive);
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(folder / "db")) files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    std::string victims;
    for (std::uint64_t n = 1 + below(4); n > 0 && !files.empty(); --n) {
      const auto victim = files.begin() + static_cast<std::ptrdiff_t>(below(files.size()));
      damage(*victim, below);
      victims += " " + victim->filename().string();
      files.erase(victim);
    }
    SCOPED_TRACE(cat("round ", round, victims));
    auto store = open(folder);
    for (const std::string& text : store->reports()) {
      repaired += text.find("has been repaired") != std::string::npos;
      afresh += text.find("starts afresh") != std::string::npos;
    }
    for (const auto& tokens : all) kept += hit(*store, tokens) / kBlockTokens;
    for (const auto& tokens : all) insert(*store, tokens);
    for (const auto& tokens : all) EXPECT_EQ(hit(*store, tokens), 11 * kBlockTokens);
    store->save_context("again", all[5]);
    store->contexts();
    store = nullptr;
    store = open(folder);
    for (const auto& tokens : all) EXPECT_EQ(hit(*store, tokens), 11 * kBlockTokens);
  }
  std::printf(
      "of %d damaged databases %d were repaired, %d begun afresh; %.0f %% of the blocks survived\n",
      rounds, repaired, afresh,
      100.0 * static_cast<double>(kept) / (rounds * 11.0 * static_cast<double>(all.size())));
  EXPECT_GT(repaired, 0);
}

TEST_F(PrefixDamageTest, AnyDamageToAnyFileOfTheDatabase) { damage_any_files(25, 11); }

using PrefixDamageSlowTest = PrefixDamageTest;
TEST_F(PrefixDamageSlowTest, AnyDamageToAnyFileOfTheDatabase) { damage_any_files(400, 12); }

}  // namespace
}  // namespace cachalot::infer
