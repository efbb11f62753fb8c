#include "model/resident.h"

#include <algorithm>
#include <cstring>

#include "base/thread_pool.h"

namespace cachalot::model {

namespace {
constexpr std::size_t kSlab = std::size_t{256} << 20;
constexpr std::size_t kPiece = std::size_t{2} << 20;  // of a copy: a huge page
constexpr std::size_t kAlign = 64;
}  // namespace

const void* ResidentCopies::reserve(const void* data, std::size_t bytes) {
  const std::size_t room = (bytes + kAlign - 1) / kAlign * kAlign;
  if (room > left_) {
    left_ = std::max(kSlab, room);
    next_ = static_cast<std::byte*>(slabs_.emplace_back(aligned_bytes(left_)).get());
  }
  std::byte* to = next_;
  next_ += room;
  left_ -= room;
  bytes_ += bytes;
  for (std::size_t at = 0; at < bytes; at += kPiece) {
    jobs_.push_back(
        {static_cast<const std::byte*>(data) + at, to + at, std::min(kPiece, bytes - at)});
  }
  return to;
}

void ResidentCopies::copy(int threads) {
  ThreadPool pool(threads);
  auto task = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const Job& job = jobs_[static_cast<std::size_t>(i)];
      std::memcpy(job.to, job.from, job.bytes);
    }
  };
  pool.run(static_cast<std::int64_t>(jobs_.size()), 1, RangeFn(task));
  jobs_.clear();
}

}  // namespace cachalot::model
