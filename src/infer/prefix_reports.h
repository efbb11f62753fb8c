// What a person should read of a prefix store: damage found, a repair, a failed write.
//
// Owns:    the last hundred messages.
// Threads: any. The callback runs where something came up; it must not call the store.
// Errors:  none.
#pragma once

#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace cachalot::infer {

using Report = std::function<void(std::string_view)>;

class Reports {
 public:
  explicit Reports(Report also) : also_(std::move(also)) {}

  void add(std::string_view text) {
    {
      const std::lock_guard lock(mutex_);
      kept_.emplace_back(text);
      if (kept_.size() > kKept) kept_.pop_front();
    }
    if (also_) also_(text);
  }
  std::vector<std::string> all() const {
    const std::lock_guard lock(mutex_);
    return {kept_.begin(), kept_.end()};
  }

 private:
  static constexpr std::size_t kKept = 100;
  const Report also_;
  mutable std::mutex mutex_;
  std::deque<std::string> kept_;
};

}  // namespace cachalot::infer
