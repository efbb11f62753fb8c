#include "base/fetch_list.h"

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <thread>
#include <vector>

namespace cachalot {
namespace {

const char kMemory[64 << 10] = {};

// How often each run is taken, by all threads in turns.
std::map<const char*, int> taken(FetchList& list, int threads) {
  std::deque<FetchList::Fetcher> fetchers;
  for (int t = 0; t < threads; ++t) fetchers.emplace_back(list);
  std::map<const char*, int> times;
  for (std::size_t t = 0;; t = (t + 1) % fetchers.size()) {
    const char* at = fetchers[t].next();
    if (at == nullptr) break;
    ++times[at];
  }
  for (FetchList::Fetcher& f : fetchers) EXPECT_EQ(f.next(), nullptr);  // once is enough
  return times;
}

TEST(FetchList, ThreadsShareEveryPiece) {
  const std::vector<MemoryPiece> pieces = {
      {kMemory, 9000}, {kMemory + 10240, 64}, {kMemory + 12000, 0}, {kMemory + 12288, 40000}};
  for (const int threads : {1, 2, 3, 7}) {
    FetchList list;
    list.set(pieces);
    const auto times = taken(list, threads);
    std::map<const char*, int> want;
    for (const MemoryPiece& p : pieces) {
      for (std::ptrdiff_t i = 0; i < p.bytes; i += FetchList::kRun) {
        want[static_cast<const char*>(p.at) + i] = 1;
      }
    }
    EXPECT_EQ(times, want);
  }
}

TEST(FetchList, TheLastWordCounts) {
  FetchList list;
  FetchList::Fetcher fetcher(list), other(list);
  EXPECT_EQ(fetcher.next(), nullptr);
  list.set(std::vector<MemoryPiece>{{kMemory, 4096}});
  EXPECT_EQ(fetcher.next(), kMemory);
  list.set(std::vector<MemoryPiece>{{kMemory + 10240, 3000}});
  EXPECT_EQ(fetcher.next(), kMemory + 10240);
  EXPECT_EQ(other.next(), kMemory + 11264);
  EXPECT_EQ(fetcher.next(), kMemory + 12288);
  EXPECT_EQ(other.next(), nullptr);
  EXPECT_EQ(fetcher.next(), nullptr);
  list.set({});
  EXPECT_EQ(fetcher.next(), nullptr);
}

// Of more than caches hold, the beginning.
TEST(FetchList, HasItsLimits) {
  const auto* far = reinterpret_cast<const char*>(std::uintptr_t{1} << 40);  // never read
  FetchList list;
  list.set(std::vector<MemoryPiece>{{far, 1 << 19}, {far + (1 << 20), 1 << 30}, {far, 64}});
  const auto times = taken(list, 2);
  EXPECT_EQ(static_cast<std::ptrdiff_t>(times.size()) * FetchList::kRun, FetchList::kMostBytes);
  list.set(std::vector<MemoryPiece>(FetchList::kMostPieces + 10, {far, 64}));
  FetchList::Fetcher fetcher(list);
  std::size_t runs = 0;
  while (fetcher.next() != nullptr) ++runs;
  EXPECT_EQ(runs, FetchList::kMostPieces);
}

// Lists that change while others fetch: every address that is given out is one of some list.
TEST(FetchList, ChangesWhileOthersFetch) {
  FetchList list;
  std::atomic<bool> stop{false};
  std::atomic<int> outside{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&] {
      FetchList::Fetcher fetcher(list);
      while (!stop) {
        const char* at = fetcher.next();
        if (at != nullptr && (at < kMemory || at >= kMemory + 20000)) ++outside;
      }
    });
  }
  for (int i = 0; i < 20000; ++i) {
    const int begin = i % 7 * 1024;
    list.set(std::vector<MemoryPiece>{{kMemory + begin, 1000}, {kMemory + 2 * begin, 5000}});
  }
  stop = true;
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(outside, 0);
}

}  // namespace
}  // namespace cachalot
