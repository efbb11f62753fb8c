#include "base/fetch_list.h"

#include <gtest/gtest.h>

#include <map>
#include <vector>

namespace cachalot {
namespace {

// How often each step's address is asked for, by all threads together.
std::map<const char*, int> asked(FetchList& list, int threads) {
  std::map<const char*, int> times;
  for (int t = 0; t < threads; ++t) {
    FetchList::Fetcher fetcher(list, t, threads);
    while (const char* at = fetcher.next()) ++times[at];
    EXPECT_EQ(fetcher.next(), nullptr);  // once is enough
  }
  return times;
}

TEST(FetchList, ThreadsShareEveryPiece) {
  static const char memory[64 << 10] = {};
  const std::vector<MemoryPiece> pieces = {
      {memory, 9000}, {memory + 10000, 64}, {memory + 11000, 0}, {memory + 12288, 40000}};
  for (const int threads : {1, 2, 3, 7}) {
    FetchList list;
    list.set(pieces);
    const auto times = asked(list, threads);
    for (const auto& [at, count] : times) EXPECT_EQ(count, 1);
    // Every byte is less than a step behind an address that was asked for.
    for (const MemoryPiece& p : pieces) {
      const auto* begin = static_cast<const char*>(p.at);
      for (std::ptrdiff_t i = 0; i < p.bytes; ++i) {
        auto after = times.upper_bound(begin + i);
        ASSERT_NE(after, times.begin());
        EXPECT_LT(begin + i - std::prev(after)->first, FetchList::kStep);
      }
    }
  }
}

TEST(FetchList, TheLastWordCounts) {
  static const char memory[4096] = {};
  FetchList list;
  FetchList::Fetcher fetcher(list, 0, 1);
  EXPECT_EQ(fetcher.next(), nullptr);
  list.set(std::vector<MemoryPiece>{{memory, 4096}});
  EXPECT_EQ(fetcher.next(), memory);
  list.set(std::vector<MemoryPiece>{{memory + 1024, 600}});
  EXPECT_EQ(fetcher.next(), memory + 1024);
  EXPECT_EQ(fetcher.next(), memory + 1536);
  EXPECT_EQ(fetcher.next(), nullptr);
  list.set({});
  EXPECT_EQ(fetcher.next(), nullptr);
}

// Of more than caches hold, the beginning.
TEST(FetchList, HasItsLimits) {
  const auto* far = reinterpret_cast<const char*>(std::uintptr_t{1} << 40);  // never read
  FetchList list;
  list.set(std::vector<MemoryPiece>{{far, 1 << 19}, {far + (1 << 20), 1 << 30}, {far, 64}});
  const auto times = asked(list, 2);
  EXPECT_EQ(static_cast<std::ptrdiff_t>(times.size()) * FetchList::kStep, FetchList::kMostBytes);
  list.set(std::vector<MemoryPiece>(FetchList::kMostPieces + 10, {far, 64}));
  FetchList::Fetcher fetcher(list, 0, 1);
  int steps = 0;
  while (fetcher.next() != nullptr) ++steps;
  EXPECT_GT(steps, 0);
  EXPECT_LE(steps, static_cast<int>(FetchList::kMostPieces));
}

}  // namespace
}  // namespace cachalot
