#include "model/latent_cache.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace cachalot::model {

namespace {

int pages_of(int tokens) { return (tokens + kLatentBlock - 1) / kLatentBlock; }

}  // namespace

LatentCache::LatentCache(CachePool& pool, int capacity)
    : pool_(&pool), capacity_(capacity > 0 ? capacity : pool.max_tokens()) {}

LatentCache::~LatentCache() { release_from(0); }

LatentCache::LatentCache(LatentCache&& other) noexcept
    : pool_(other.pool_),
      capacity_(other.capacity_),
      length_(std::exchange(other.length_, 0)),
      mtp_length_(std::exchange(other.mtp_length_, 0)),
      pages_(std::exchange(other.pages_, {})),
      memory_(std::exchange(other.memory_, {})) {}

LatentCache& LatentCache::operator=(LatentCache&& other) noexcept {
  if (this == &other) return *this;
  release_from(0);
  pool_ = other.pool_;
  capacity_ = other.capacity_;
  length_ = std::exchange(other.length_, 0);
  mtp_length_ = std::exchange(other.mtp_length_, 0);
  pages_ = std::exchange(other.pages_, {});
  memory_ = std::exchange(other.memory_, {});
  return *this;
}

LatentCache LatentCache::fork(int length) const {
  if (length < 0 || length > length_) {
    throw Error(Code::kInternal, cat("a sequence of ", length_, " tokens was forked at ", length));
  }
  LatentCache copy(*pool_, capacity_);
  copy.length_ = length;
  copy.mtp_length_ = std::min(mtp_length_, length);
  const auto pages = static_cast<std::size_t>(pages_of(length));
  copy.pages_.assign(pages_.begin(), pages_.begin() + static_cast<std::ptrdiff_t>(pages));
  copy.memory_.assign(memory_.begin(), memory_.begin() + static_cast<std::ptrdiff_t>(pages));
  for (const int page : copy.pages_) pool_->share(page);
  return copy;
}

int LatentCache::pages_needed(int begin, int end) const {
  int needed = std::max(0, pages_of(end) - pages());
  for (int i = begin / kLatentBlock; i < std::min(pages(), pages_of(end)); ++i) {
    needed += pool_->is_shared(pages_[static_cast<std::size_t>(i)]) ? 1 : 0;
  }
  return needed;
}

bool LatentCache::reserve(int begin, int end) {
  if (end > capacity_) {
    throw Error(Code::kUsage, cat("the context holds ", capacity_, " tokens, ", end,
                                  " are needed: shorten the prompt or ask for fewer new tokens"));
  }
  if (begin >= end) return true;
  // All new pages first: another sequence may take some meanwhile.
  std::vector<int> fresh;
  for (int n = pages_needed(begin, end); n > 0; --n) {
    const int page = pool_->take();
    if (page < 0) {
      for (const int taken : fresh) pool_->release(taken);
      return false;
    }
    fresh.push_back(page);
  }
  for (int i = begin / kLatentBlock; i < pages_of(end) && !fresh.empty(); ++i) {
    const auto at = static_cast<std::size_t>(i);
    if (i < pages() && !pool_->is_shared(pages_[at])) continue;
    const int page = fresh.back();
    fresh.pop_back();
    if (i == pages()) {
      pages_.push_back(page);
      memory_.push_back(pool_->data(page));
      continue;
    }
    std::memcpy(pool_->data(page), memory_[at], pool_->shape().page_bytes());
    pool_->release(pages_[at]);
    pages_[at] = page;
    memory_[at] = pool_->data(page);
  }
  // A page that was shared when counted may have become its own since.
  for (const int page : fresh) pool_->release(page);
  return true;
}

void LatentCache::write(const Context& ctx, int layer, int begin, MatView<const float> c_kv,
                        MatView<const float> k_rope) {
  const CacheShape& shape = pool_->shape();
  std::vector<StoreLatent> jobs;
  for (int at = 0; at < c_kv.rows;) {
    const int row = begin + at, in_page = row % kLatentBlock;
    const int n = std::min(kLatentBlock - in_page, c_kv.rows - at);
    const int page = pages_.at(static_cast<std::size_t>(row / kLatentBlock));
    jobs.push_back(
        {shape.layout, c_kv.sub_rows(at, n), k_rope.sub_rows(at, n),
         pool_->data(page) + shape.layer_offset(layer) + in_page * shape.layout.row_bytes()});
    at += n;
  }
  store_latent(ctx, jobs);
}

LatentRows LatentCache::rows(int layer, int rows) const {
  const CacheShape& shape = pool_->shape();
  return {shape.layout, memory_, shape.layer_offset(layer), rows};
}

void LatentCache::set_length(int length) {
  if (length > pages() * kLatentBlock) {
    throw Error(Code::kInternal,
                cat("a sequence with ", pages(), " pages cannot hold ", length, " tokens"));
  }
  length_ = length;
}

void LatentCache::set_mtp_length(int length) {
  if (length > pages() * kLatentBlock) {
    throw Error(Code::kInternal, cat("a sequence with ", pages(), " pages cannot hold ", length,
                                     " rows of the MTP layer"));
  }
  mtp_length_ = length;
}

void LatentCache::truncate(int length) {
  length_ = std::min(length_, length);
  mtp_length_ = std::min(mtp_length_, length);
  release_from(static_cast<std::size_t>(pages_of(length_)));
}

std::span<const std::byte> LatentCache::page(int i) const {
  return {memory_.at(static_cast<std::size_t>(i)), pool_->shape().page_bytes()};
}

bool LatentCache::append_page(std::span<const std::byte> bytes, int mtp_rows) {
  if (length_ % kLatentBlock != 0 || bytes.size() != pool_->shape().page_bytes() ||
      mtp_rows > kLatentBlock) {
    throw Error(
        Code::kInternal,
        cat("a page of ", bytes.size(), " bytes and ", mtp_rows, " MTP rows was appended to ",
            length_, " tokens; it needs whole pages of ", pool_->shape().page_bytes(), " bytes"));
  }
  truncate(length_);  // pages reserved and not used
  if (!reserve(length_, length_ + kLatentBlock)) return false;
  std::memcpy(pool_->data(pages_.back()), bytes.data(), bytes.size());
  // Rows of the MTP layer count only if they follow those before them.
  if (mtp_length_ == length_) mtp_length_ += mtp_rows;
  length_ += kLatentBlock;
  return true;
}

void LatentCache::release_from(std::size_t page) noexcept {
  for (std::size_t i = page; i < pages_.size(); ++i) pool_->release(pages_[i]);
  if (page < pages_.size()) {
    pages_.resize(page);
    memory_.resize(page);
  }
}

}  // namespace cachalot::model
