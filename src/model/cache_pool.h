// The memory of all latent caches: pages of 64 tokens, each with the rows of every layer, shared
// between sequences that begin alike.
//
// Owns:    all pages, in one allocation made once, of the host or of a device; a page has as many
// holders as sequences that
//          count it among theirs. It outlives its sequences (LatentCache).
// Threads: pages are taken, shared and given back under a lock, so different sequences may live on
//          different threads. Nobody writes a page that has two holders.
// Errors:  a full pool is normal: `take` says so by -1 and LatentCache::reserve by false. A budget
//          that holds no page, or that the system refuses, throws.
// Paper:   V3 report 2.1.1 (what is kept), formats in kernels/latent_rows.h.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

#include "kernels/latent_rows.h"
#include "model/config.h"

namespace cachalot::model {

// What a token costs. Main layers are 0 .. num_hidden_layers - 1, then the MTP layers.
struct CacheShape {
  LatentLayout layout;
  int main_layers = 0;
  int mtp_layers = 0;

  CacheShape() = default;
  CacheShape(const Config& config, LatentFormat format)
      : layout{format, config.kv_lora_rank, config.qk_rope_head_dim},
        main_layers(config.num_hidden_layers),
        mtp_layers(config.num_nextn_predict_layers) {}

  int layers() const noexcept { return main_layers + mtp_layers; }
  // In the main layers, and what the MTP layers add.
  std::size_t bytes_per_token() const noexcept { return token(main_layers); }
  std::size_t mtp_bytes_per_token() const noexcept { return token(mtp_layers); }
  std::size_t page_bytes() const noexcept { return kLatentBlock * token(layers()); }
  std::ptrdiff_t layer_offset(int layer) const noexcept { return layer * layout.block_bytes(); }

 private:
  std::size_t token(int layers) const noexcept {
    return static_cast<std::size_t>(layers) * static_cast<std::size_t>(layout.row_bytes());
  }
};

// Of the oracle's path and of the working path.
inline LatentFormat default_cache_format(Precision precision) noexcept {
  return precision == Precision::kF32 ? LatentFormat::kF32 : LatentFormat::kBF16;
}

class CachePool {
 public:
  // As many pages as `budget` bytes hold, where passes are to read them: null is the host.
  CachePool(const Config& config, LatentFormat format, std::size_t budget,
            Device* device = nullptr);
  // What a budget has to be for `tokens` tokens of each of `sequences` sequences.
  static std::size_t bytes_for(const Config& config, LatentFormat format, int tokens,
                               int sequences = 1);
  CachePool(const CachePool&) = delete;
  CachePool& operator=(const CachePool&) = delete;

  const CacheShape& shape() const noexcept { return shape_; }
  int max_tokens() const noexcept { return max_tokens_; }  // of a sequence: the model's context
  int pages() const noexcept { return static_cast<int>(holders_.size()); }
  int free_pages() const;
  // Pages that were ever held at once: so many have been written to and count as memory in use.
  int most_pages() const;
  std::size_t bytes() const noexcept {
    return static_cast<std::size_t>(pages()) * shape_.page_bytes();
  }

  // A page nobody holds, held once; -1 where there is none.
  int take();
  void share(int page);    // one more holder
  void release(int page);  // one less; without a holder it is free
  bool is_shared(int page) const;
  std::byte* data(int page) const noexcept {
    return static_cast<std::byte*>(memory_.get()) +
           static_cast<std::size_t>(page) * shape_.page_bytes();
  }
  // Bytes from page to page, and between a page and the host.
  void copy(std::byte* to, const std::byte* from, std::size_t bytes) const;
  void read(std::byte* to, const std::byte* from, std::size_t bytes) const;
  void write(std::byte* to, const std::byte* from, std::size_t bytes) const;

 private:
  const CacheShape shape_;
  const int max_tokens_;
  Device* const device_;
  std::unique_ptr<void, FreeDeleter> memory_;
  mutable std::mutex mutex_;  // of what follows
  std::vector<int> holders_;  // [pages]
  std::vector<int> free_;     // pages without holders; the last one is taken next
  int most_ = 0;
};

}  // namespace cachalot::model
