// Times of any number of events in a fixed memory: a bench that runs for hours must not be what
// grows. Buckets are 1/32 of a doubling wide, so percentiles are right to 2.2 %; the largest is
// exact.
//
// Threads: one at a time.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace cachalot::infer {

struct Percentiles {
  double p50 = 0, p95 = 0, p99 = 0, most = 0;
};

class LatencyHistogram {
 public:
  void add(double seconds) {
    ++counts_[bucket(seconds)];
    ++events_;
    most_ = std::max(most_, seconds);
  }
  std::int64_t events() const noexcept { return events_; }
  Percentiles percentiles() const { return {at(0.5), at(0.95), at(0.99), most_}; }

 private:
  static constexpr double kLeast = 1e-6;  // seconds; what is shorter counts as this
  static constexpr int kPerDoubling = 32;
  static constexpr std::size_t kBuckets = 40 * kPerDoubling;  // up to twelve days

  static std::size_t bucket(double seconds) {
    if (!(seconds > kLeast)) return 0;
    const double doublings = std::log2(seconds / kLeast);
    return std::min(kBuckets - 1, static_cast<std::size_t>(doublings * kPerDoubling));
  }
  // The upper end of the bucket that holds the event of that rank.
  double at(double share) const {
    if (events_ == 0) return 0;
    auto rank = static_cast<std::int64_t>(share * static_cast<double>(events_ - 1));
    for (std::size_t b = 0; b < kBuckets; ++b) {
      rank -= counts_[b];
      if (rank < 0) {
        return std::min(most_, kLeast * std::exp2(static_cast<double>(b + 1) / kPerDoubling));
      }
    }
    return most_;
  }

  std::array<std::int64_t, kBuckets> counts_{};
  std::int64_t events_ = 0;
  double most_ = 0;
};

}  // namespace cachalot::infer
