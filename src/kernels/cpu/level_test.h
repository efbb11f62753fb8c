// For tests only: run a test at every CPU level of this machine, with 1, 2 and 3 threads.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "base/thread_pool.h"
#include "kernels/cpu/levels.h"

namespace cachalot::testing {

class LevelTest : public ::testing::TestWithParam<const KernelTable*> {
 protected:
  const KernelTable& ops() const { return *GetParam(); }
  Context context() const { return {GetParam(), nullptr}; }

  // Calls body(context, threads) with 1, 2 and 3 threads.
  template <class F>
  void with_threads(F&& body) const {
    for (int threads = 1; threads <= 3; ++threads) {
      ThreadPool pool(threads);
      body(Context{GetParam(), &pool}, threads);
    }
  }
};

}  // namespace cachalot::testing

// Names the suite's instances after the levels: EveryLevel/RmsNormTest.Rule/avx2.
#define CACHALOT_EVERY_LEVEL(Suite)                                                     \
  INSTANTIATE_TEST_SUITE_P(EveryLevel, Suite,                                           \
                           ::testing::ValuesIn(::cachalot::cpu::tables_on_this_host()), \
                           [](const auto& info) { return std::string(info.param->name); })
