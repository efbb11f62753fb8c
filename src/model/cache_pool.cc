#include "model/cache_pool.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <new>

namespace cachalot::model {

namespace {

std::unique_ptr<void, FreeDeleter> allocate(std::size_t bytes, Device* device) {
  const MemoryScope scope(device);
  try {
    return aligned_bytes(bytes);
  } catch (const std::bad_alloc&) {
    throw Error(Code::kIo, cat("the system refuses ", bytes,
                               " bytes for the latent cache: give it a smaller budget"));
  }
}

}  // namespace

std::size_t CachePool::bytes_for(const Config& config, LatentFormat format, int tokens,
                                 int sequences) {
  const auto pages = static_cast<std::size_t>((tokens + kLatentBlock - 1) / kLatentBlock);
  return CacheShape(config, format).page_bytes() * pages * static_cast<std::size_t>(sequences);
}

CachePool::CachePool(const Config& config, LatentFormat format, std::size_t budget, Device* device)
    : shape_(config, format), max_tokens_(config.max_position_embeddings), device_(device) {
  const std::size_t pages = std::min<std::size_t>(budget / shape_.page_bytes(),
                                                  std::numeric_limits<int>::max() / kLatentBlock);
  if (pages == 0) {
    throw Error(Code::kUsage,
                cat("the latent cache has a budget of ", budget, " bytes, but a page of ",
                    kLatentBlock, " tokens takes ", shape_.page_bytes(), " (", shape_.layers(),
                    " layers of ", shape_.layout.row_bytes(), " bytes): give it at least that"));
  }
  memory_ = allocate(pages * shape_.page_bytes(), device);
  holders_.resize(pages);
  free_.reserve(pages);
  for (int page = static_cast<int>(pages) - 1; page >= 0; --page) free_.push_back(page);
}

void CachePool::copy(std::byte* to, const std::byte* from, std::size_t bytes) const {
  if (device_ != nullptr) {
    device_->copy(to, from, bytes);
  } else {
    std::memcpy(to, from, bytes);
  }
}
void CachePool::read(std::byte* to, const std::byte* from, std::size_t bytes) const {
  if (device_ != nullptr) {
    device_->download(to, from, bytes);
  } else {
    std::memcpy(to, from, bytes);
  }
}
void CachePool::write(std::byte* to, const std::byte* from, std::size_t bytes) const {
  if (device_ != nullptr) {
    device_->upload(to, from, bytes);
  } else {
    std::memcpy(to, from, bytes);
  }
}

int CachePool::free_pages() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int>(free_.size());
}

int CachePool::most_pages() const {
  const std::lock_guard lock(mutex_);
  return most_;
}

int CachePool::take() {
  const std::lock_guard lock(mutex_);
  if (free_.empty()) return -1;
  const int page = free_.back();
  free_.pop_back();
  most_ = std::max(most_, pages() - static_cast<int>(free_.size()));
  holders_[static_cast<std::size_t>(page)] = 1;
  return page;
}

void CachePool::share(int page) {
  const std::lock_guard lock(mutex_);
  ++holders_[static_cast<std::size_t>(page)];
}

void CachePool::release(int page) {
  const std::lock_guard lock(mutex_);
  if (--holders_[static_cast<std::size_t>(page)] == 0) free_.push_back(page);
}

bool CachePool::is_shared(int page) const {
  const std::lock_guard lock(mutex_);
  return holders_[static_cast<std::size_t>(page)] > 1;
}

}  // namespace cachalot::model
