#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/memory_homes.h"

namespace cachalot {
namespace {

TEST(ThreadPool, CoversEveryIndexOnceAtEveryGrain) {
  for (const int threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    for (const int n : {0, 1, 7, 1000}) {
      for (const int grain : {1, 3, 1000}) {
        std::vector<std::atomic<int>> seen(static_cast<std::size_t>(n));
        auto task = [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t i = begin; i < end; ++i) ++seen[static_cast<std::size_t>(i)];
        };
        pool.run(n, grain, RangeFn(task));
        for (const auto& count : seen) EXPECT_EQ(count.load(), 1);
      }
    }
  }
}

TEST(ThreadPool, RangesNearCoverEveryIndexOnce) {
  for (const int threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    for (int t = 0; t < threads; ++t) pool.set_home(t, t * 3);
    std::vector<std::int64_t> many{0};
    for (int i = 0; i < 50; ++i)
      many.push_back(many.back() + i % 3);  // more than there are counters
    for (const std::vector<std::int64_t>& begins : {std::vector<std::int64_t>{0, 0},
                                                    {0, 100},
                                                    {0, 40, 100},
                                                    {0, 0, 0, 100},
                                                    {0, 100, 100},
                                                    {0, 1, 2, 3, 100},
                                                    many}) {
      for (const int grain : {1, 7, 1000}) {
        std::vector<std::atomic<int>> seen(static_cast<std::size_t>(begins.back()));
        auto task = [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t i = begin; i < end; ++i) ++seen[static_cast<std::size_t>(i)];
        };
        pool.run_near(begins, grain, RangeFn(task));
        for (const auto& count : seen) EXPECT_EQ(count.load(), 1);
      }
    }
  }
}

// What a thread was told to come next is what it then begins with, and after "none" it begins
// nothing more of that range.
TEST(ThreadPool, ChunksKnowTheirThreadsNextOne) {
  constexpr std::int64_t kUntold = -2;
  for (const int threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    for (int t = 0; t < threads; ++t) pool.set_home(t, t);
    for (const std::vector<std::int64_t>& begins :
         {std::vector<std::int64_t>{0, 1}, {0, 5}, {0, 1000}, {0, 400, 1000}, {0, 0, 3, 1000}}) {
      for (const int grain : {1, 3, 700}) {
        std::vector<std::atomic<int>> seen(static_cast<std::size_t>(begins.back()));
        std::atomic<int> broken{0}, told{0};
        static thread_local std::int64_t expected = kUntold;
        auto reset = [](std::int64_t, std::int64_t) { expected = kUntold; };
        pool.run_on_each(RangeFn(reset));
        auto task = [&](std::int64_t begin, std::int64_t end, std::int64_t next) {
          for (std::int64_t i = begin; i < end; ++i) ++seen[static_cast<std::size_t>(i)];
          if (expected >= 0 && begin != expected) ++broken;
          if (next != RangeFn::kNoChunk) {
            ++told;
            if (next < end) ++broken;
          }
          expected = next;
        };
        pool.run_near(begins, grain, RangeFn(task));
        for (const auto& count : seen) EXPECT_EQ(count.load(), 1);
        EXPECT_EQ(broken.load(), 0);
        // All chunks but each thread's first of each range were announced.
        std::int64_t chunks = 0;
        for (std::size_t r = 1; r < begins.size(); ++r) {
          chunks += (begins[r] - begins[r - 1] + grain - 1) / grain;
        }
        const auto firsts =
            static_cast<std::int64_t>(threads) * (static_cast<std::int64_t>(begins.size()) - 1);
        EXPECT_GE(told.load(), chunks - firsts);
      }
    }
  }
}

TEST(ThreadPool, AThreadThatThrowsBeginsNothingMore) {
  ThreadPool pool(1);
  std::int64_t chunks = 0;
  auto task = [&](std::int64_t, std::int64_t, std::int64_t) {
    ++chunks;
    throw Error(Code::kUsage, "no");
  };
  EXPECT_THROW(pool.run(8, 1, RangeFn(task)), Error);
  EXPECT_EQ(chunks, 1);
}

// Both threads are held up in their first chunk: each has taken it from its own home's range.
TEST(ThreadPool, AThreadBeginsAtHome) {
  ThreadPool pool(2);
  pool.set_home(0, 1);
  pool.set_home(1, 0);
  const auto caller = std::this_thread::get_id();
  const std::int64_t begins[] = {0, 10, 20};
  std::atomic<int> started{0};
  std::atomic<bool> right{true};
  thread_local bool first = true;
  auto task = [&](std::int64_t begin, std::int64_t) {
    if (!first) return;
    first = false;
    const bool mine = std::this_thread::get_id() == caller;
    if ((begin >= 10) != mine) right = false;
    ++started;
    while (started < 2) std::this_thread::yield();
  };
  pool.run_near(begins, 1, RangeFn(task));
  EXPECT_TRUE(right);
}

TEST(ThreadPool, RunsOnEachThreadOnce) {
  for (const int threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    std::vector<std::atomic<int>> seen(static_cast<std::size_t>(threads));
    thread_local bool mine = false;
    std::atomic<int> other{0};  // threads
    auto once = [&](std::int64_t begin, std::int64_t end) {
      EXPECT_EQ(begin + 1, end);
      ++seen[static_cast<std::size_t>(begin)];
      if (!mine) ++other;
      mine = true;
      auto inside = [](std::int64_t, std::int64_t) {};
      pool.run_on_each(RangeFn(inside));  // does not wait for those that wait for it
    };
    pool.run_on_each(RangeFn(once));
    for (const auto& count : seen) EXPECT_EQ(count.load(), 1);
    EXPECT_EQ(other.load(), threads);
    mine = false;
    auto fails = [](std::int64_t, std::int64_t) { throw Error(Code::kUsage, "no"); };
    EXPECT_THROW(pool.run_on_each(RangeFn(fails)), Error);
    std::atomic<int> ranges{0};
    auto range = [&](std::int64_t, std::int64_t) { ++ranges; };
    pool.run(8, 1, RangeFn(range));
    EXPECT_EQ(ranges.load(), 8);
  }
}

TEST(ThreadPool, IdsAreTheirOwn) {
  const ThreadPool one(1), other(1);
  EXPECT_NE(one.id(), other.id());
}

TEST(ThreadPool, PinsWorkersOnly) {
  ThreadPool pool(2);
  const int none[] = {1 << 20};  // no such CPU
  EXPECT_FALSE(pool.pin(1, none));
  EXPECT_FALSE(pool.pin(1, {}));
  EXPECT_FALSE(pool.pin(0, none));
  EXPECT_FALSE(pool.pin(2, none));
  EXPECT_FALSE(pin_this_thread(none));
}

TEST(MemoryHomes, FindsTheRange) {
  MemoryHomes homes(3);
  const char* at = reinterpret_cast<const char*>(0x1000);
  EXPECT_EQ(-1, homes.home_of(at));
  homes.add(at + 300, 50, 2);
  homes.add(at, 100, 0);
  homes.add(at + 100, 100, 1);
  homes.finish();
  EXPECT_EQ(3, homes.homes());
  EXPECT_EQ(-1, homes.home_of(at - 1));
  EXPECT_EQ(0, homes.home_of(at));
  EXPECT_EQ(0, homes.home_of(at + 99));
  EXPECT_EQ(1, homes.home_of(at + 100));
  EXPECT_EQ(-1, homes.home_of(at + 200));
  EXPECT_EQ(2, homes.home_of(at + 349));
  EXPECT_EQ(-1, homes.home_of(at + 350));
}

TEST(ThreadPool, NestedRangesRunInline) {
  ThreadPool pool(2);
  std::atomic<int> sum{0};
  auto inner = [&](std::int64_t begin, std::int64_t end) { sum += static_cast<int>(end - begin); };
  auto outer = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) pool.run(10, 1, RangeFn(inner));
  };
  pool.run(8, 1, RangeFn(outer));
  EXPECT_EQ(sum.load(), 80);
}

TEST(ThreadPool, RethrowsTheTasksErrorAndStaysUsable) {
  ThreadPool pool(2);
  auto fails = [](std::int64_t begin, std::int64_t) {
    if (begin >= 5) throw Error(Code::kInternal, "boom");
  };
  EXPECT_THROW(pool.run(100, 1, RangeFn(fails)), Error);
  std::atomic<int> sum{0};
  auto works = [&](std::int64_t begin, std::int64_t end) { sum += static_cast<int>(end - begin); };
  pool.run(100, 1, RangeFn(works));
  EXPECT_EQ(sum.load(), 100);
}

}  // namespace
}  // namespace cachalot
