// Rows of the latent cache with memory of their own, for tests and benchmarks: blocks lie in
// falling order, so that nobody can take them for one matrix.
//
// Owns:    its blocks.
// Threads: plain memory.
#pragma once

#include <memory>
#include <vector>

#include "kernels/latent_rows.h"

namespace cachalot {

class LatentBlocks {
 public:
  // `rows` [S, L + R] in the format of the layout.
  LatentBlocks(const Context& ctx, const LatentLayout& layout, MatView<const float> rows)
      : layout_(layout), rows_(rows.rows) {
    const int count = (rows.rows + kLatentBlock - 1) / kLatentBlock;
    const auto bytes = static_cast<std::size_t>(layout.block_bytes());
    memory_ = aligned_bytes(static_cast<std::size_t>(count) * bytes);
    auto* first = static_cast<std::byte*>(memory_.get());
    for (int b = 0; b < count; ++b) {
      std::byte* block = first + static_cast<std::size_t>(count - 1 - b) * bytes;
      blocks_.push_back(block);
      const MatView<const float> part =
          rows.sub_rows(b * kLatentBlock, std::min(kLatentBlock, rows.rows - b * kLatentBlock));
      const StoreLatent job{layout, part.sub_cols(0, layout.latent),
                            part.sub_cols(layout.latent, layout.rope), block};
      store_latent(ctx, {&job, 1});
    }
  }
  LatentRows rows() const { return {layout_, blocks_, 0, rows_}; }

 private:
  LatentLayout layout_;
  int rows_;
  std::unique_ptr<void, FreeDeleter> memory_;
  std::vector<const std::byte*> blocks_;
};

}  // namespace cachalot
