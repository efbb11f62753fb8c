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
    pool_->copy(pool_->data(page), memory_[at], pool_->shape().page_bytes());
    pool_->release(pages_[at]);
    pages_[at] = page;
    memory_[at] = pool_->data(page);
  }
  // A page that was shared when counted may have become its own since.
  for (const int page : fresh) pool_->release(page);
  return true;
}

void LatentCache::list_writes(int layer, int begin, MatView<const float> c_kv,
                              MatView<const float> k_rope, std::vector<StoreLatent>& jobs) const {
  const CacheShape& shape = pool_->shape();
  for (int at = 0; at < c_kv.rows;) {
    const int row = begin + at, in_page = row % kLatentBlock;
    const int n = std::min(kLatentBlock - in_page, c_kv.rows - at);
    const int page = pages_.at(static_cast<std::size_t>(row / kLatentBlock));
    jobs.push_back(
        {shape.layout, c_kv.sub_rows(at, n), k_rope.sub_rows(at, n),
         pool_->data(page) + shape.layer_offset(layer) + in_page * shape.layout.row_bytes()});
    at += n;
  }
}

void LatentCache::write(const Context& ctx, int layer, int begin, MatView<const float> c_kv,
                        MatView<const float> k_rope) {
  std::vector<StoreLatent> jobs;
  list_writes(layer, begin, c_kv, k_rope, jobs);
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

void LatentCache::copy_block(int i, bool mtp, std::span<std::byte> out) const {
  const CacheShape& shape = pool_->shape();
  const int begin = i * kLatentBlock, end = begin + kLatentBlock;
  if (i < 0 || end > length_ || (mtp && end - 1 > mtp_length_) || out.size() != block_bytes()) {
    throw Error(Code::kInternal, cat("block ", i, " was asked for into ", out.size(),
                                     " bytes of a sequence of ", length_, " tokens and ",
                                     mtp_length_, " MTP rows; a block has ", block_bytes()));
  }
  const auto at = static_cast<std::size_t>(i);
  pool_->read(out.data(), memory_[at], out.size());
  const auto row_bytes = static_cast<std::size_t>(shape.layout.row_bytes());
  for (int layer = shape.main_layers; layer < shape.layers(); ++layer) {
    std::byte* rows = out.data() + shape.layer_offset(layer);
    const std::ptrdiff_t last = shape.layout.block_bytes() - shape.layout.row_bytes();
    if (!mtp) {
      std::memset(rows, 0, static_cast<std::size_t>(shape.layout.block_bytes()));
    } else if (i == 0) {
      std::memset(rows + last, 0, row_bytes);
    } else {
      pool_->read(rows + last, memory_[at - 1] + shape.layer_offset(layer) + last, row_bytes);
    }
  }
}

bool LatentCache::append_block(std::span<const std::byte> bytes, bool mtp) {
  if (length_ % kLatentBlock != 0 || bytes.size() != block_bytes()) {
    throw Error(Code::kInternal,
                cat("a block of ", bytes.size(), " bytes was appended to ", length_,
                    " tokens; it needs whole pages before it and ", block_bytes(), " bytes"));
  }
  truncate(length_);  // pages reserved and not used
  // The page before it too, whose last row of each MTP layer comes with this block.
  const bool joins = mtp && length_ > 0 && mtp_length_ >= length_ - 1;
  if (!reserve(joins ? length_ - 1 : length_, length_ + kLatentBlock)) return false;
  const CacheShape& shape = pool_->shape();
  pool_->write(pool_->data(pages_.back()), bytes.data(), bytes.size());
  if (joins) {
    const auto row_bytes = static_cast<std::size_t>(shape.layout.row_bytes());
    const std::ptrdiff_t last = shape.layout.block_bytes() - shape.layout.row_bytes();
    for (int layer = shape.main_layers; layer < shape.layers(); ++layer) {
      const std::ptrdiff_t at = shape.layer_offset(layer) + last;
      pool_->write(pool_->data(pages_[pages_.size() - 2]) + at, bytes.data() + at, row_bytes);
    }
  }
  if (mtp && (length_ == 0 || joins)) mtp_length_ = length_ + kLatentBlock - 1;
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
