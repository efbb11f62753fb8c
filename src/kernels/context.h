// What every op is given: the table of kernels and the threads to run them on.
//
// Owns:    nothing; `runtime/` owns the pool and outlives every Context.
// Threads: one caller per Context at a time.
#pragma once

#include <cstdint>
#include <span>

#include "base/memory_homes.h"
#include "base/thread_pool.h"

namespace cachalot {

struct KernelTable;
class Device;
class Profile;

struct Context {
  const KernelTable* table = nullptr;
  ThreadPool* pool = nullptr;
  Profile* profile = nullptr;          // where time goes (kernels/profile.h), or nobody asks
  const MemoryHomes* homes = nullptr;  // nodes that weights lie on; null: one node, or no matter
  // Where the operands of every op lie and its kernels run; null: the host. Lists of problems,
  // spans of rows and the beginnings of groups are the host's in any case.
  Device* device = nullptr;

  const KernelTable& ops() const noexcept { return *table; }
  int threads() const noexcept { return pool != nullptr ? pool->size() : 1; }

  // fn(i) for every i in [0, n), at least `grain` indices per task. fn writes only what belongs to
  // i.
  template <class F>
  void for_each(std::int64_t n, std::int64_t grain, F&& fn) const {
    for_range(n, grain, [&fn](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) fn(i);
    });
  }
  // fn(begin, end) over disjoint chunks of at most `grain` indices that cover [0, n); or fn(begin,
  // end, next), which is told where the thread's next chunk begins (RangeFn).
  template <class F>
  void for_range(std::int64_t n, std::int64_t grain, F&& fn) const {
    if (pool != nullptr) {
      pool->run(n, grain, RangeFn(fn));
      return;
    }
    const RangeFn call(fn);
    for (std::int64_t b = 0; b < n; b += grain) {
      const bool last = b + grain >= n;
      call(b, last ? n : b + grain, last ? RangeFn::kNoChunk : b + grain);
    }
  }
  // The same over ranges of which each has a home: ThreadPool::run_near.
  template <class F>
  void for_range_near(std::span<const std::int64_t> begins, std::int64_t grain, F&& fn) const {
    if (pool != nullptr) {
      pool->run_near(begins, grain, RangeFn(fn));
      return;
    }
    const RangeFn call(fn);
    call(begins.front(), begins.back());
  }
  // What products will read after the next one, for threads that wait meanwhile.
  void fetch_while_waiting(std::span<const MemoryPiece> pieces) const {
    if (pool != nullptr && device == nullptr) pool->fetch_while_waiting(pieces);
  }
  // fn() on every thread, once: they get what they will need whoever does the work.
  template <class F>
  void on_each_thread(F&& fn) const {
    auto once = [&fn](std::int64_t, std::int64_t) { fn(); };
    if (pool != nullptr) return pool->run_on_each(RangeFn(once));
    once(0, 1);
  }
};

// Precision of the products inside an op. Sums are always float (or wider).
enum class Precision : std::uint8_t { kF32, kBF16 };

}  // namespace cachalot
