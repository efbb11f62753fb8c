#include "infer/prefix_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <set>
#include <thread>

#include "base/rng.h"
#include "infer/prefix_case_test.h"

#if defined(__SANITIZE_THREAD__)
// Debian's RocksDB is not instrumented, so its atomics are not seen, but its calls of memcpy are.
extern "C" const char* __tsan_default_suppressions();
extern "C" const char* __tsan_default_suppressions() { return "called_from_lib:librocksdb.so\n"; }
#endif

namespace cachalot::infer {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr std::size_t kPayload = 3000;
const PrefixIdentity kIdentity{"model", "bf16", kPayload};

PrefixStoreConfig config_of(const TemporaryFolder& folder, std::int64_t ram_blocks = 1000) {
  PrefixStoreConfig config;
  config.folder = folder.store();
  config.ram_bytes = ram_blocks * (static_cast<std::int64_t>(kPayload) + 1100);
  config.disk_bytes = 64 << 20;
  config.context_bytes = 8 << 20;
  return config;
}

PrefixInsert insert(PrefixStore& store, const std::vector<int>& tokens, int first = 0) {
  return store.insert(tokens, first, [&](int block, std::span<std::byte> out) {
    EXPECT_GE(block, first);
    fill_payload(tokens, block, out);
  });
}

// Every payload is compared with what follows from the tokens.
PrefixLookup lookup(PrefixStore& store, const std::vector<int>& tokens,
                    std::size_t payload_bytes = kPayload) {
  int next = 0;
  return store.lookup(tokens, [&](int block, std::span<const std::byte> payload) {
    EXPECT_EQ(block, next++);
    const auto want = payload_of(tokens, block, payload_bytes);
    EXPECT_TRUE(std::equal(want.begin(), want.end(), payload.begin(), payload.end()));
    return true;
  });
}

TEST(PrefixStoreTest, CountsAsDeepSeeksApi) {
  PrefixStoreConfig config;  // RAM alone
  PrefixStore store(config, kIdentity);
  auto tokens = sequence(std::vector<int>{1, 2, 3});
  tokens.resize(tokens.size() + 10, 5);
  EXPECT_EQ(lookup(store, tokens).miss_tokens, 202);
  EXPECT_EQ(insert(store, tokens).inserted, 3);
  EXPECT_EQ(insert(store, tokens).present, 3);
  auto longer = tokens;
  longer.resize(500, 6);
  const auto found = lookup(store, longer);
  EXPECT_EQ(found.hit_tokens, 192);
  EXPECT_EQ(found.miss_tokens, 308);
  EXPECT_EQ(lookup(store, sequence(std::vector<int>{1, 9, 3})).hit_tokens, 64);
  const auto counters = store.counters();
  EXPECT_EQ(counters.lookups, 3u);
  EXPECT_EQ(counters.hit_tokens, 256u);
  EXPECT_EQ(counters.miss_tokens, 202u + 308u + 128u);
  EXPECT_EQ(counters.ram_blocks, 4u);
  EXPECT_EQ(counters.inserted, 3u);
  EXPECT_TRUE(store.flush());
  EXPECT_THAT(error_of(Code::kUnsupported, [&] { store.save_context("a", tokens); }),
              HasSubstr("has no folder"));
}

TEST(PrefixStoreTest, TheCallerMayStopAndMayLimit) {
  PrefixStore store({}, kIdentity);
  const auto tokens = sequence(std::vector<int>{1, 2, 3, 4});
  insert(store, tokens);
  const auto two = store.lookup(tokens, [](int block, auto) { return block < 2; });
  EXPECT_EQ(two.hit_tokens, 128);
  EXPECT_EQ(two.miss_tokens, 128);
  // An engine needs the last token itself, so the last block of a prompt of whole blocks is of no
  // use.
  const auto three = store.lookup(
      tokens, [](int, auto) { return true; }, tokens.size() - 1);
  EXPECT_EQ(three.hit_tokens, 192);
  EXPECT_EQ(store.lookup(std::vector<int>{}, [](int, auto) { return true; }).hit_tokens, 0);
}

TEST(PrefixStoreTest, FoundAtOnceEvenWithoutRam) {
  const TemporaryFolder folder;
  PrefixStore store(config_of(folder, /*ram_blocks=*/0), kIdentity);
  for (int i = 0; i < 100; ++i) {
    const auto tokens = sequence(std::vector<int>{3 * i, 3 * i + 1, 3 * i + 2});
    insert(store, tokens);
    EXPECT_EQ(lookup(store, tokens).hit_tokens, 192);
  }
  EXPECT_EQ(store.counters().ram_bytes, 0u);
}

TEST(PrefixStoreTest, SurvivesRestarts) {
  const TemporaryFolder folder;
  const auto tokens = sequence(std::vector<int>{1, 2, 3});
  {
    PrefixStore store(config_of(folder), kIdentity);
    insert(store, tokens);  // no flush: the destructor writes what is queued
  }
  for (int life = 0; life < 3; ++life) {
    PrefixStore store(config_of(folder), kIdentity);
    EXPECT_EQ(lookup(store, tokens).hit_tokens, 192);
    EXPECT_EQ(store.counters().disk_blocks, 3u);
    EXPECT_EQ(lookup(store, tokens).hit_tokens, 192);
    EXPECT_EQ(store.counters().ram_blocks, 3u);
    EXPECT_TRUE(store.flush(PrefixStore::Durability::kDevice));
    EXPECT_EQ(store.counters().written, 0u);  // young blocks are not written again
    EXPECT_THAT(store.reports(), IsEmpty());
  }
}

TEST(PrefixStoreTest, ModelsDoNotMeet) {
  const TemporaryFolder folder;
  const auto tokens = sequence(std::vector<int>{1, 2, 3});
  {
    PrefixStore store(config_of(folder), kIdentity);
    insert(store, tokens);
  }
  for (const PrefixIdentity& other : {PrefixIdentity{"model2", "bf16", kPayload},
                                      {"model", "fp8", kPayload},
                                      {"model", "bf16", 8}}) {
    PrefixStore store(config_of(folder), other);
    EXPECT_EQ(lookup(store, tokens, other.payload_bytes).hit_tokens, 0);
  }
  PrefixStore store(config_of(folder), kIdentity);
  EXPECT_EQ(lookup(store, tokens).hit_tokens, 192);
}

TEST(PrefixStoreTest, OneProcessAtATime) {
  const TemporaryFolder folder;
  PrefixStore store(config_of(folder), kIdentity);
  const std::string text =
      error_of(Code::kBusy, [&] { PrefixStore second(config_of(folder), kIdentity); });
  EXPECT_THAT(text, HasSubstr(folder.store()));
  EXPECT_THAT(text, HasSubstr("a folder of its own"));
  const auto tokens = sequence(std::vector<int>{1});
  insert(store, tokens);  // unharmed
  EXPECT_EQ(lookup(store, tokens).hit_tokens, 64);
}

TEST(PrefixStoreTest, BudgetsThatCannotHoldABlockAreRefused) {
  const TemporaryFolder folder;
  auto config = config_of(folder);
  config.disk_bytes = 1 << 20;
  const std::string text = error_of(Code::kUsage, [&] { PrefixStore(config, kIdentity); });
  EXPECT_THAT(text, HasSubstr("Allow at least "));
  EXPECT_FALSE(std::filesystem::exists(folder.store()));
  // The number it names is enough.
  config.disk_bytes = std::stoll(text.substr(text.find("at least ") + 9));
  PrefixStore store(config, kIdentity);
  const PrefixIdentity large{"model", "bf16", std::size_t{64} * 61 * 1152};
  const TemporaryFolder second;
  config.folder = second.store();
  const std::string of_v3 = error_of(Code::kUsage, [&] { PrefixStore(config, large); });
  config.disk_bytes = std::stoll(of_v3.substr(of_v3.find("at least ") + 9));
  PrefixStore(config, large);
}

TEST(PrefixStoreTest, AFullQueueDropsAndCounts) {
  const TemporaryFolder folder;
  auto config = config_of(folder);
  config.queue_bytes = 0;  // one block at a time
  std::uint64_t dropped = 0;
  std::vector<int> tokens;
  {
    PrefixStore store(config, kIdentity);
    for (int i = 0; i < 200; ++i) {
      for (int t = 0; t < kBlockTokens; ++t) tokens.push_back(i + t);
    }
    dropped = static_cast<std::uint64_t>(insert(store, tokens).dropped);
    EXPECT_EQ(store.counters().dropped, dropped);
    EXPECT_GT(dropped, 0u);
    EXPECT_EQ(lookup(store, tokens).miss_tokens, 0);  // RAM has them
    EXPECT_TRUE(store.flush());
    EXPECT_GT(store.counters().written, 0u);
  }
  // What RAM still has gets another chance each time it is used.
  config.queue_bytes = 64 << 20;
  PrefixStore store(config, kIdentity);
  insert(store, tokens);
  EXPECT_TRUE(store.flush());
  EXPECT_EQ(lookup(store, tokens).miss_tokens, 0);
}

// Whoever comes back with what there was no room for gets it in, block after block.
TEST(PrefixStoreTest, SaysWhereToGoOn) {
  const TemporaryFolder folder;
  auto config = config_of(folder, /*ram_blocks=*/0);
  config.queue_bytes = 0;  // one block at a time
  PrefixStore store(config, kIdentity);
  std::vector<int> choices;
  for (int i = 0; i < 60; ++i) choices.push_back(i);
  const auto tokens = sequence(choices);
  int inserted = 0;
  for (int next = 0; next < 60;) {
    const PrefixInsert put = insert(store, tokens, next);
    ASSERT_GT(put.next, next);  // an empty queue takes one in any case
    EXPECT_EQ(put.inserted, put.next - next + put.dropped);
    EXPECT_LE(put.dropped, 1);  // nothing behind it was tried
    inserted += put.inserted - put.dropped;
    next = put.next;
    EXPECT_TRUE(store.flush());
  }
  EXPECT_EQ(inserted, 60);
  EXPECT_EQ(store.counters().written, 60u);
  EXPECT_EQ(lookup(store, tokens).miss_tokens, 0);

  // Without a folder RAM has the last word: here two blocks fit, and then those that take their
  // place.
  config = config_of(folder, /*ram_blocks=*/2);
  config.folder.clear();
  PrefixStore in_ram(config, kIdentity);
  const auto four = sequence(std::vector<int>{1, 2, 3, 4});
  for (const int first : {0, 2}) {
    const PrefixInsert put = insert(in_ram, four, first);
    EXPECT_EQ(put.next, 2);
    EXPECT_EQ(put.dropped, 1);
  }
  EXPECT_EQ(insert(in_ram, sequence(std::vector<int>{1, 2})).next, 2);
  EXPECT_EQ(lookup(in_ram, four).hit_tokens, 128);
}

TEST(PrefixStoreTest, UsedBlocksOutliveTheBound) {
  const TemporaryFolder folder;
  auto config = config_of(folder, /*ram_blocks=*/20);
  config.disk_bytes = 8 << 20;
  const auto kept = sequence(std::vector<int>{1, 2, 3});
  const auto left = sequence(std::vector<int>{4, 5, 6});
  PrefixStore store(config, kIdentity);
  insert(store, kept);
  insert(store, left);
  for (int i = 0; i < 400; ++i) {  // 400 x 16 x 3 kB: more than twice the bound
    std::vector<int> choices;
    for (int b = 0; b < 16; ++b) choices.push_back(1000 + 16 * i + b);
    insert(store, sequence(choices));
    EXPECT_EQ(lookup(store, kept).hit_tokens, 192);
    store.flush();
  }
  EXPECT_EQ(lookup(store, left).hit_tokens, 0);
  EXPECT_GT(store.counters().written, 6400u);
  EXPECT_LT(store.counters().written, 6500u);
  EXPECT_LE(store.counters().ram_bytes, static_cast<std::uint64_t>(config.ram_bytes));
}

// Against a set of every beginning that was put in. With room for all, the answers are exactly the
// model's; with little room a hit may be shorter, but what is returned is right (lookup compares
// every byte).
TEST(PrefixStoreTest, AnswersAsAPlainSetWould) {
  const Rng rng(3);
  std::uint64_t at = 0;
  const auto below = [&](std::uint64_t n) { return static_cast<int>(rng.below(at++, n)); };
  for (const bool roomy : {true, false}) {
    const TemporaryFolder folder;
    auto config = config_of(folder, roomy ? 1000 : 3);
    if (!roomy) config.disk_bytes = 6 << 20;
    auto store = std::make_unique<PrefixStore>(config, kIdentity);
    std::set<std::vector<int>> model;
    std::vector<PrefixStore::Pin> pins;
    for (int step = 0; step < 1500; ++step) {
      std::vector<int> choices;
      for (int n = 1 + below(6); n > 0; --n) choices.push_back(below(roomy ? 3 : 9));
      auto tokens = sequence(choices);
      std::size_t known = 0;
      while (known < choices.size() &&
             model.contains({choices.begin(), choices.begin() + static_cast<long>(known) + 1})) {
        ++known;
      }
      switch (below(40)) {
        case 0:  // a restart
          pins.clear();
          store.reset();
          store = std::make_unique<PrefixStore>(config, kIdentity);
          break;
        case 1:
          EXPECT_TRUE(store->flush(PrefixStore::Durability::kDevice));
          break;
        case 2:
          pins.push_back(store->pin(tokens));
          if (pins.size() > 2) pins.erase(pins.begin());
          break;
        case 3:
          if (store->contexts().size() > 3) {
            EXPECT_TRUE(store->delete_context(store->contexts()[0].name));
          }
          store->save_context(cat("context ", below(6)), tokens);
          break;
        default:
          if (below(2) == 0) {
            const auto put = insert(*store, tokens);
            EXPECT_EQ(put.inserted + put.present, static_cast<int>(choices.size()));
            for (std::size_t n = 1; n <= choices.size(); ++n) {
              model.insert({choices.begin(), choices.begin() + static_cast<long>(n)});
            }
          } else {
            tokens.resize(tokens.size() + static_cast<std::size_t>(below(kBlockTokens)), 1);
            const auto hit = lookup(*store, tokens).hit_tokens / kBlockTokens;
            if (roomy) {
              EXPECT_EQ(hit, static_cast<long>(known));
            } else {
              EXPECT_LE(hit, static_cast<long>(known));
            }
          }
      }
    }
    EXPECT_EQ(store->counters().damaged, 0u);
    EXPECT_EQ(store->counters().failed, 0u);
    EXPECT_THAT(store->reports(), IsEmpty());
    pins.clear();
  }
}

TEST(PrefixStoreTest, ManyThreads) {
  const TemporaryFolder folder;
  auto config = config_of(folder, /*ram_blocks=*/10);
  config.disk_bytes = 8 << 20;
  config.queue_bytes = 20 * kPayload;
  PrefixStore store(config, kIdentity);
  std::atomic<std::uint64_t> hits{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      const Rng rng(static_cast<std::uint64_t>(t));
      std::uint64_t at = 0;
      for (int i = 0; i < 150; ++i) {
        std::vector<int> choices;
        for (int b = 0; b < 4; ++b) choices.push_back(static_cast<int>(rng.below(at++, 3)));
        const auto tokens = sequence(choices);
        const auto pin = store.pin(tokens);
        hits += static_cast<std::uint64_t>(lookup(store, tokens).hit_tokens);
        insert(store, tokens, static_cast<int>(lookup(store, tokens).hit_tokens / kBlockTokens));
        if (i % 20 == 0) store.flush();
        if (i % 30 == 7) store.save_context(cat("of ", t), tokens);
        if (i % 50 == 9) store.delete_context(cat("of ", (t + 1) % 4));
        if (i % 10 == 0) store.counters();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_GT(hits.load(), 0u);
  EXPECT_THAT(store.reports(), IsEmpty());
}

}  // namespace
}  // namespace cachalot::infer
