// The latent cache of one sequence: which pages of a pool hold its rows, per layer one row [L + R]
// per token, the normed latent and the rotated rope key. Keys and values are never kept.
//
// Owns:    a share of its pages: a fork has the same ones, and whoever writes into a shared page
//          first gets a copy of its own.
// Threads: one user at a time; other sequences of the pool may be used meanwhile. Rows that were
//          written may be read by any thread until the next truncate, reserve or destruction.
// Errors:  a full pool is a value (`reserve` is false and changed nothing). Positions past the
//          capacity throw kUsage: the caller checks lengths first.
// Paper:   V3 report 2.1.1.
#pragma once

#include <span>
#include <vector>

#include "model/cache_pool.h"

namespace cachalot::model {

class LatentCache {
 public:
  // Empty: it takes pages as it grows, up to `capacity` tokens (0: the model's context).
  explicit LatentCache(CachePool& pool, int capacity = 0);
  ~LatentCache();
  LatentCache(LatentCache&& other) noexcept;
  LatentCache& operator=(LatentCache&& other) noexcept;

  // A sequence that begins with the first `length` tokens of this one, on the same pages.
  LatentCache fork(int length) const;

  int length() const noexcept { return length_; }          // tokens in the main layers
  int mtp_length() const noexcept { return mtp_length_; }  // rows in the MTP layer
  int capacity() const noexcept { return capacity_; }
  const CachePool& pool() const noexcept { return *pool_; }
  int pages() const noexcept { return static_cast<int>(pages_.size()); }
  std::size_t bytes() const noexcept {  // of its pages, shared ones too
    return static_cast<std::size_t>(pages()) * pool_->shape().page_bytes();
  }

  // Makes rows [begin, end) its own to write, in all layers; begin is at most the rows it has.
  // False where the pool has too few free pages: then nothing changed.
  [[nodiscard]] bool reserve(int begin, int end);
  // Pages that reserve(begin, end) would take.
  int pages_needed(int begin, int end) const;
  // Writes the rows of positions [begin, begin + c_kv.rows) of one layer, which are reserved; or
  // lists what has to be stored for that.
  void list_writes(int layer, int begin, MatView<const float> c_kv, MatView<const float> k_rope,
                   std::vector<StoreLatent>& jobs) const;
  void write(const Context& ctx, int layer, int begin, MatView<const float> c_kv,
             MatView<const float> k_rope);
  // The first `rows` rows of a layer.
  LatentRows rows(int layer, int rows) const;

  void set_length(int length);      // after a pass, within what is reserved
  void set_mtp_length(int length);  // likewise
  // Forgets all but the first `length` tokens and gives back pages without any.
  void truncate(int length);

  // What a store of prefixes keeps of tokens [64 i, 64 i + 64): all layers' rows that these tokens
  // and those before them determine. Row t of an MTP layer has read token t + 1, so of those layers
  // it is rows [64 i - 1, 64 i + 63), which `mtp_length` must cover; without `mtp`, zeros.
  std::size_t block_bytes() const noexcept { return pool_->shape().page_bytes(); }
  void copy_block(int i, bool mtp, std::span<std::byte> out) const;
  // The next 64 tokens from such bytes, after whole pages only; with `mtp`, its MTP rows count up
  // to the last but one, if those before them do. False where the pool is full.
  [[nodiscard]] bool append_block(std::span<const std::byte> bytes, bool mtp);

 private:
  void release_from(std::size_t page) noexcept;

  CachePool* pool_;
  int capacity_ = 0;
  int length_ = 0;
  int mtp_length_ = 0;
  std::vector<int> pages_;                // of tokens [64 i, 64 i + 64)
  std::vector<const std::byte*> memory_;  // of the same
};

}  // namespace cachalot::model
