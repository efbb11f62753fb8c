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
#include <type_traits>

namespace cachalot {

// A borrowed callable void(int64 begin, int64 end): no allocation, valid during the call only.
class RangeFn {
 public:
  template <class F>
  requires(!std::is_same_v<std::remove_cvref_t<F>, RangeFn>)
      RangeFn(F& f)  // NOLINT(google-explicit-constructor): it stands for the callable
      : object_(&f), call_([](void* object, std::int64_t begin, std::int64_t end) {
          (*static_cast<F*>(object))(begin, end);
        }) {}
  void operator()(std::int64_t begin, std::int64_t end) const { call_(object_, begin, end); }

 private:
  void* object_;
  void (*call_)(void*, std::int64_t, std::int64_t);
};

class ThreadPool {
 public:
  explicit ThreadPool(int threads);  // counts the calling thread; 1 starts none
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const noexcept;
  // Covers [0, n) by disjoint chunks of at most `grain` indices.
  void run(std::int64_t n, std::int64_t grain, RangeFn fn);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace cachalot
