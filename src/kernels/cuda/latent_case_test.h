// Caches on the device for tests of latent attention: blocks in falling order, two layers in each,
// and NaN behind the last row.
#pragma once

#include <memory>
#include <vector>

#include "kernels/cuda/cuda_case_test.h"
#include "kernels/latent_attention.h"
#include "kernels/latent_rows.h"

namespace cachalot::cuda::testing {

// Blocks of one sequence. `host` memory and a copy on the device.
class TwoCaches {
 public:
  TwoCaches(const Context& host, Device& device, const LatentLayout& layout,
            MatView<const float> rows, std::size_t gap = 0)
      : layout_(layout), rows_(rows.rows), device_(&device) {
    const int count = (rows.rows + kLatentBlock - 1) / kLatentBlock;
    const auto bytes = static_cast<std::size_t>(layout.block_bytes());
    const std::size_t apart = 2 * bytes + gap;
    memory_.assign(static_cast<std::size_t>(count) * apart, std::byte{0xFF});
    on_device_ = device.allocate(memory_.size());
    for (int b = 0; b < count; ++b) {
      const std::size_t at = static_cast<std::size_t>(count - 1 - b) * apart;
      host_blocks_.push_back(memory_.data() + at);
      device_blocks_.push_back(static_cast<const std::byte*>(on_device_) + at);
      const MatView<const float> part =
          rows.sub_rows(b * kLatentBlock, std::min(kLatentBlock, rows.rows - b * kLatentBlock));
      const StoreLatent job{layout, part.sub_cols(0, layout.latent),
                            part.sub_cols(layout.latent, layout.rope), memory_.data() + at + bytes};
      cachalot::store_latent(host, {&job, 1});
    }
    device.upload(on_device_, memory_.data(), memory_.size());
  }
  ~TwoCaches() { device_->release(on_device_); }
  TwoCaches(const TwoCaches&) = delete;

  LatentRows host() const { return {layout_, host_blocks_, layout_.block_bytes(), rows_}; }
  LatentRows device() const { return {layout_, device_blocks_, layout_.block_bytes(), rows_}; }

 private:
  LatentLayout layout_;
  int rows_;
  Device* device_;
  std::vector<std::byte> memory_;
  void* on_device_ = nullptr;
  std::vector<const std::byte*> host_blocks_, device_blocks_;
};

struct LatentShape {
  int queries, rows, heads;
  int latent = 512, rope = 64;
};

// A problem, its operands on both sides.
struct LatentCase {
  LatentShape shape;
  Precision precision;
  Mat<float> q, q_device, out_device;
  std::unique_ptr<TwoCaches> caches;
  float scale;

  LatentAttention problem() {
    return {q_device.cview(), caches->device(), shape.heads, scale, out_device.view(), precision};
  }
};

}  // namespace cachalot::cuda::testing
