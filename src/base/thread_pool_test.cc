#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <vector>

#include "base/error.h"

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
