// The folder never takes more than it may, at any moment of writing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "base/rng.h"
#include "infer/prefix_case_test.h"
#include "infer/prefix_database.h"
#include "infer/prefix_disk.h"
#include "infer/prefix_store.h"

namespace cachalot::infer {
namespace {

// Looks at the folder's size all the time.
class Watch {
 public:
  explicit Watch(std::filesystem::path folder)
      : thread_([this, path = std::move(folder)] {
          while (!stop_) {
            largest_ = std::max(largest_.load(), bytes_under(path));
            ++looks_;
          }
        }) {}
  std::uint64_t finish() {
    stop_ = true;
    thread_.join();
    EXPECT_GT(looks_, 20);
    return largest_;
  }

 private:
  std::atomic<bool> stop_{false};
  std::atomic<std::uint64_t> largest_{0};
  std::atomic<int> looks_{0};
  std::thread thread_;
};

void write_much(PrefixStore& store, std::uint64_t bytes, std::size_t payload_bytes, int& fresh) {
  for (std::uint64_t written = 0; written < bytes; written += 8 * payload_bytes) {
    std::vector<int> choices;
    for (int b = 0; b < 8; ++b) choices.push_back(++fresh);
    const auto tokens = sequence(choices);
    store.insert(tokens, 0, [&](int block, auto out) { fill_payload(tokens, block, out); });
    store.flush();
  }
}

TEST(PrefixBoundTest, TheFolderKeepsToItsBudgets) {
  struct Case {
    std::int64_t disk;
    std::size_t payload;
  };
  for (const Case c :
       {Case{6 << 20, 500}, {8 << 20, 20'000}, {24 << 20, 700'000}, {64 << 20, 60'000}}) {
    SCOPED_TRACE(cat(c.disk, " bytes, blocks of ", c.payload));
    const TemporaryFolder folder;
    PrefixStoreConfig config;
    config.folder = folder.store();
    config.ram_bytes = 0;
    config.disk_bytes = c.disk;
    config.context_bytes = 3 << 20;
    Watch watch(folder.store());
    int fresh = 0;
    for (int life = 0; life < 3; ++life) {  // logs of former lives count too
      PrefixStore store(config, {"model", "bf16", c.payload});
      for (int i = 0; i < 3; ++i) {
        write_much(store, static_cast<std::uint64_t>(c.disk) / 4, c.payload, fresh);
        const auto last = sequence(std::vector<int>{fresh - 7, fresh - 6});
        store.save_context(cat("context ", fresh % 4), last);
      }
      EXPECT_EQ(store.counters().dropped, 0u);
    }
    const std::uint64_t largest = watch.finish();
    std::printf("allowed %lld + %lld, largest %llu\n", static_cast<long long>(c.disk),
                static_cast<long long>(config.context_bytes),
                static_cast<unsigned long long>(largest));
    EXPECT_LE(largest, static_cast<std::uint64_t>(c.disk + config.context_bytes));
    EXPECT_GE(largest, static_cast<std::uint64_t>(c.disk) / 2);
  }
}

TEST(PrefixBoundTest, ASmallerBudgetHoldsFromTheOpeningOn) {
  const TemporaryFolder folder;
  PrefixStoreConfig config;
  config.folder = folder.store();
  config.ram_bytes = 0;
  config.disk_bytes = 40 << 20;
  int fresh = 0;
  write_much(*std::make_unique<PrefixStore>(config, PrefixIdentity{"model", "bf16", 5000}),
             36 << 20, 5000, fresh);
  EXPECT_GT(bytes_under(folder.path()), 20u << 20);
  config.disk_bytes = 8 << 20;
  PrefixStore store(config, {"model", "bf16", 5000});
  // RocksDB removes the files a moment after it has let go of them.
  for (int wait = 0; wait < 200 && bytes_under(folder.path()) > 8u << 20; ++wait) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_LE(bytes_under(folder.path()), 8u << 20);
}

TEST(PrefixBoundTest, StampsTellWhatIsYoung) {
  const TemporaryFolder folder;
  const Report report = [](std::string_view text) { ADD_FAILURE() << text; };
  const PrefixFolder store(folder.store(), report);
  const DiskBudget budget(8 << 20, 1000);
  const KeyChain chain({"model", "bf16", 1000}, store.secret());
  std::uint64_t first = 0;
  for (int life = 0; life < 2; ++life) {
    const Database database = open_database(store, budget, nullptr, report);
    PrefixDisk disk(database, budget, 1000, report);
    EXPECT_FALSE(disk.fresh(kNotOnDisk));
    EXPECT_FALSE(disk.fresh(kOnItsWay));
    if (life == 0) {
      const auto blocks = blocks_of(chain, sequence(std::vector<int>{1}));
      first = disk.write(blocks).value();
      EXPECT_EQ(disk.read(blocks[0]->place).stamp, first);
    }
    EXPECT_TRUE(disk.fresh(first));
  }
  const Database database = open_database(store, budget, nullptr, report);
  PrefixDisk disk(database, budget, 1000, report);
  int more = 0;
  while (disk.fresh(first) && more < 100'000) {
    disk.write(blocks_of(chain, sequence(std::vector<int>{++more + 1})));
  }
  EXPECT_NEAR(static_cast<double>(more) * 1352, static_cast<double>(budget.tables) / 2, 5000);
}

}  // namespace
}  // namespace cachalot::infer
