#include "base/thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "base/fetch_list.h"

namespace cachalot {

namespace {
thread_local bool t_inside_task = false;

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

bool pin_thread(pthread_t thread, std::span<const int> cpus) noexcept {
  if (cpus.empty()) return false;
  const int most = *std::max_element(cpus.begin(), cpus.end());
  const auto count = static_cast<std::size_t>(most) + 1;
  cpu_set_t* set = CPU_ALLOC(count);  // a plain cpu_set_t ends at CPU 1023
  if (set == nullptr) return false;
  const std::size_t bytes = CPU_ALLOC_SIZE(count);
  CPU_ZERO_S(bytes, set);
  for (const int cpu : cpus) CPU_SET_S(static_cast<std::size_t>(cpu), bytes, set);
  const int error = pthread_setaffinity_np(thread, bytes, set);
  CPU_FREE(set);
  return error == 0;
}
}  // namespace

// One job at a time. `generation` announces a job; workers spin on it briefly (a training step
// starts thousands of ranges, a futex each would cost more than the short ones) and then sleep.
struct ThreadPool::State {
  static constexpr int kMostHomes = 32;
  static constexpr int kSpins = 500;   // some 20 us: longer than the gap between most ops of a step
  static constexpr int kYields = 300;  // some 200 us more, in which others may have the core

  // A range of indices that is handed out by its own counter, a cache line for itself.
  struct alignas(64) Range {
    std::atomic<std::int64_t> next{0};
    std::int64_t end = 0;
  };

  std::vector<std::thread> workers;
  std::vector<int> homes;  // of each thread
  std::uint64_t id = 0;
  std::mutex mutex;
  std::condition_variable wake;
  std::atomic<std::uint64_t> generation{0};
  std::atomic<bool> stop{false};
  std::atomic<int> sleepers{0};

  FetchList to_fetch;
  FetchList::Fetcher callers_fetcher{to_fetch};

  // The current job.
  const RangeFn* fn = nullptr;
  std::int64_t grain = 1;
  bool on_each = false;  // once per thread instead of over the ranges
  std::array<Range, kMostHomes> ranges;
  int range_count = 1;
  std::atomic<int> running{0};  // workers that have not left the job yet
  std::mutex error_mutex;
  std::exception_ptr error;

  void work(int thread) {
    t_inside_task = true;
    if (on_each) {
      call(thread, thread + 1);
    } else {
      const int first = homes[static_cast<std::size_t>(thread)] % range_count;
      for (int i = 0; i < range_count; ++i) {
        work_on(ranges[static_cast<std::size_t>((first + i) % range_count)]);
      }
    }
    t_inside_task = false;
  }

  void work_on(Range& range) {
    const auto take = [&] { return range.next.fetch_add(grain, std::memory_order_relaxed); };
    const bool ahead = fn->looks_ahead();
    for (std::int64_t begin = take(); begin < range.end;) {
      const std::int64_t end = std::min(range.end, begin + grain);
      const std::int64_t next = ahead ? take() : range.end;
      if (!call(begin, end, next < range.end ? next : RangeFn::kNoChunk)) return;
      begin = ahead ? next : take();
    }
  }

  // False where the task threw: what is left of the job is nobody's.
  bool call(std::int64_t begin, std::int64_t end, std::int64_t next = RangeFn::kNoChunk) {
    try {
      (*fn)(begin, end, next);
      return true;
    } catch (...) {
      const std::lock_guard lock(error_mutex);
      if (!error) error = std::current_exception();
      for (int i = 0; i < range_count; ++i) {
        Range& r = ranges[static_cast<std::size_t>(i)];
        r.next.store(r.end, std::memory_order_relaxed);
      }
      return false;
    }
  }

  void worker(int thread) {
    std::uint64_t seen = 0;
    FetchList::Fetcher fetcher(to_fetch);
    for (;;) {
      int spins = 0;
      while (generation.load(std::memory_order_acquire) == seen) {
        if (fetcher.step()) continue;
        if (++spins < kSpins) {
          relax();
          continue;
        }
        if (spins < kSpins + kYields) {
          std::this_thread::yield();
          continue;
        }
        std::unique_lock lock(mutex);
        sleepers.fetch_add(1);
        wake.wait(lock, [&] { return generation.load(std::memory_order_acquire) != seen; });
        sleepers.fetch_sub(1);
      }
      ++seen;
      if (stop.load(std::memory_order_acquire)) return;
      work(thread);
      running.fetch_sub(1, std::memory_order_release);
    }
  }

  void announce() {
    {
      const std::lock_guard lock(mutex);
      generation.fetch_add(1, std::memory_order_acq_rel);
    }
    if (sleepers.load() > 0) wake.notify_all();
  }

  // The job that was described, by all threads; returns when all have left it.
  void run_job() {
    running.store(static_cast<int>(workers.size()), std::memory_order_relaxed);
    announce();
    work(0);
    // A worker that the system has put aside may hold its chunk for a while: then give it the core.
    for (int spins = 0; running.load(std::memory_order_acquire) != 0; ++spins) {
      if (callers_fetcher.step()) continue;
      if (spins < kSpins) {
        relax();
      } else {
        std::this_thread::yield();
      }
    }
    if (error) std::rethrow_exception(error);
  }
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()) {
  static std::atomic<std::uint64_t> pools{0};
  state_->id = ++pools;
  state_->homes.resize(static_cast<std::size_t>(std::max(threads, 1)), 0);
  for (int i = 1; i < threads; ++i) state_->workers.emplace_back([this, i] { state_->worker(i); });
}

ThreadPool::~ThreadPool() {
  state_->stop.store(true, std::memory_order_release);
  state_->announce();
  for (std::thread& worker : state_->workers) worker.join();
}

int ThreadPool::size() const noexcept { return static_cast<int>(state_->workers.size()) + 1; }
std::uint64_t ThreadPool::id() const noexcept { return state_->id; }

bool ThreadPool::pin(int worker, std::span<const int> cpus) noexcept {
  if (worker < 1 || worker >= size()) return false;
  return pin_thread(state_->workers[static_cast<std::size_t>(worker - 1)].native_handle(), cpus);
}

bool pin_this_thread(std::span<const int> cpus) noexcept {
  return pin_thread(pthread_self(), cpus);
}

void ThreadPool::set_home(int thread, int home) {
  state_->homes.at(static_cast<std::size_t>(thread)) = std::max(home, 0);
}

void ThreadPool::run(std::int64_t n, std::int64_t grain, RangeFn fn) {
  const std::int64_t begins[] = {0, n};
  run_near(begins, grain, fn);
}

void ThreadPool::run_near(std::span<const std::int64_t> begins, std::int64_t grain, RangeFn fn) {
  const std::int64_t n = begins.back() - begins.front();
  if (n <= 0) return;
  grain = std::max<std::int64_t>(1, grain);
  if (t_inside_task || state_->workers.empty() || n <= grain) {
    for (std::int64_t begin = begins.front(); begin < begins.back(); begin += grain) {
      const std::int64_t next = begin + grain;
      fn(begin, std::min(begins.back(), next), next < begins.back() ? next : RangeFn::kNoChunk);
    }
    return;
  }
  State& s = *state_;
  s.fn = &fn;
  s.grain = grain;
  s.on_each = false;
  s.error = nullptr;
  // More homes than there are counters: the last one takes the rest.
  s.range_count = std::min(static_cast<int>(begins.size()) - 1, State::kMostHomes);
  for (int i = 0; i < s.range_count; ++i) {
    State::Range& range = s.ranges[static_cast<std::size_t>(i)];
    range.next.store(begins[static_cast<std::size_t>(i)], std::memory_order_relaxed);
    range.end = i + 1 < s.range_count ? begins[static_cast<std::size_t>(i) + 1] : begins.back();
  }
  s.run_job();
}

void ThreadPool::fetch_while_waiting(std::span<const MemoryPiece> pieces) noexcept {
  if (t_inside_task || state_->workers.empty()) return;
  state_->to_fetch.set(pieces);
}

void ThreadPool::run_on_each(RangeFn fn) {
  if (t_inside_task || state_->workers.empty()) return fn(0, 1);
  State& s = *state_;
  s.fn = &fn;
  s.on_each = true;
  s.range_count = 0;
  s.error = nullptr;
  s.run_job();
}

}  // namespace cachalot
