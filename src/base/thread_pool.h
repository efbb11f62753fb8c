// Worker threads that run index ranges.
//
// Owns:    its threads, joined in the destructor.
// Threads: one caller at a time runs `run`; a call from inside a task runs inline.
// Errors:  a task that throws stops the range; the first exception is rethrown to the caller.
//
// Chunks are handed out dynamically (a noisy neighbour slows one core, not the whole step), so a
// task may only write what belongs to its index; then results do not depend on the thread count.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <type_traits>

#include "base/memory_piece.h"

namespace cachalot {

// A borrowed callable void(int64 begin, int64 end) or void(int64 begin, int64 end, int64 next): no
// allocation, valid during the call only. One of three arguments is told where the calling thread's
// next chunk begins, kNoChunk if it has none: it may fetch what that one reads. The next chunk is
// then taken before this one is done, so a thread that falls behind keeps two of them.
class RangeFn {
 public:
  static constexpr std::int64_t kNoChunk = -1;

  template <class F>
  requires(!std::is_same_v<std::remove_cvref_t<F>, RangeFn>)
      RangeFn(F& f)  // NOLINT(google-explicit-constructor): it stands for the callable
      : object_(&f),
        looks_ahead_(std::is_invocable_v<F&, std::int64_t, std::int64_t, std::int64_t>),
        call_([](void* object, std::int64_t begin, std::int64_t end, std::int64_t next) {
          F& fn = *static_cast<F*>(object);
          if constexpr (std::is_invocable_v<F&, std::int64_t, std::int64_t, std::int64_t>) {
            fn(begin, end, next);
          } else {
            static_cast<void>(next);
            fn(begin, end);
          }
        }) {}
  void operator()(std::int64_t begin, std::int64_t end, std::int64_t next = kNoChunk) const {
    call_(object_, begin, end, next);
  }
  bool looks_ahead() const noexcept { return looks_ahead_; }

 private:
  void* object_;
  bool looks_ahead_;
  void (*call_)(void*, std::int64_t, std::int64_t, std::int64_t);
};

class ThreadPool {
 public:
  explicit ThreadPool(int threads);  // counts the calling thread; 1 starts none
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const noexcept;
  // Holds a worker (1 .. size() - 1; 0 is whoever calls `run`) to these logical CPUs from now on.
  // False where the system refuses.
  bool pin(int worker, std::span<const int> cpus) noexcept;
  // Covers [0, n) by disjoint chunks of at most `grain` indices.
  void run(std::int64_t n, std::int64_t grain, RangeFn fn);

  // The same over [begins[0], begins.back()), cut into one range per home, [begins[h], begins[h +
  // 1]). A thread begins with the range of its own home and helps with the others when that is
  // done: who does what changes, what is done does not.
  void run_near(std::span<const std::int64_t> begins, std::int64_t grain, RangeFn fn);
  // fn(t, t + 1) on each thread t, once: what threads need before any of them starts on a range, so
  // that who takes which part of it does not matter. From inside a task: on the calling thread
  // alone.
  void run_on_each(RangeFn fn);
  // What the next range will read: threads that wait for it, or for the end of this one, fetch it
  // into their caches meanwhile (base/fetch_list.h). Takes the place of what was said before. For
  // whoever calls `run`, between the ranges.
  void fetch_while_waiting(std::span<const MemoryPiece> pieces) noexcept;
  // Of this pool and no other one of the process.
  std::uint64_t id() const noexcept;
  // The home (a NUMA node) of a thread, 0 unless set; thread 0 is whoever calls.
  void set_home(int thread, int home);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The same for the thread that calls it. Threads that it starts later are held there as well.
bool pin_this_thread(std::span<const int> cpus) noexcept;

}  // namespace cachalot
