#include "infer/prefix_memory.h"

#include <gtest/gtest.h>

#include <cstring>
#include <thread>

namespace cachalot::infer {
namespace {

TEST(PrefixMemoryTest, SlotsDoNotOverlapAndComeAgain) {
  for (const std::size_t slot : {100, 5000, 20'000'000}) {
    PayloadMemory memory(slot);
    const int n = slot > 1'000'000 ? 6 : 500;
    for (int round = 0; round < 2; ++round) {
      std::vector<std::shared_ptr<std::byte>> held;
      for (int i = 0; i < n; ++i) {
        // Slots, and what is too small or too large for one.
        const std::size_t bytes = i % 5 == 4 ? 10 : i % 5 == 3 && slot < 10'000 ? 3 * slot : slot;
        held.push_back(memory.share(bytes));
        std::memset(held.back().get(), i, bytes);
      }
      for (int i = 0; i < n; ++i) {
        EXPECT_EQ(static_cast<int>(held[static_cast<std::size_t>(i)].get()[0]), i % 256);
        EXPECT_EQ(static_cast<int>(held[static_cast<std::size_t>(i)].get()[9]), i % 256);
      }
    }
  }
}

TEST(PrefixMemoryTest, ManyThreads) {
  PayloadMemory memory(4096);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 2000; ++i) {
        const auto slot = memory.share(4096);
        std::memset(slot.get(), t, 4096);
        EXPECT_EQ(static_cast<int>(slot.get()[4095]), t);
      }
    });
  }
  for (auto& thread : threads) thread.join();
}

}  // namespace
}  // namespace cachalot::infer
