// What a caller has asked of the threads of its pool: memory that their tasks will need, got before
// the first of them starts. Otherwise a thread allocates when it happens to get its first task, or
// its first large one, steps later.
//
// Threads: kept thread_local by the caller.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/context.h"

namespace cachalot::cpu {

class ThreadsHave {
 public:
  // get() on each thread, unless all of this pool have `bytes` already.
  template <class F>
  void at_least(const Context& ctx, std::size_t bytes, F&& get) {
    const std::uint64_t pool = ctx.pool == nullptr ? 0 : ctx.pool->id();
    if (pool == pool_ && bytes <= bytes_) return;
    ctx.on_each_thread(get);
    pool_ = pool;
    bytes_ = bytes;
  }

 private:
  std::uint64_t pool_ = ~std::uint64_t{0};
  std::size_t bytes_ = 0;
};

}  // namespace cachalot::cpu
