#include "model/latent_cache.h"

#include <algorithm>

namespace cachalot::model {

LatentCache::LatentCache(const Config& config, Precision precision, int capacity)
    : latent_(config.kv_lora_rank),
      width_(config.cache_row_width()),
      capacity_(capacity),
      dtype_(precision == Precision::kF32 ? DType::kF32 : DType::kBF16) {
  const auto layers =
      static_cast<std::size_t>(config.num_hidden_layers + config.num_nextn_predict_layers);
  if (dtype_ == DType::kF32) {
    floats_.resize(layers);
  } else {
    bf16s_.resize(layers);
  }
}

std::size_t LatentCache::bytes() const noexcept {
  return (floats_.size() + bf16s_.size()) * static_cast<std::size_t>(reserved_) *
         static_cast<std::size_t>(width_) * size_of(dtype_);
}

template <class T>
static void grow(std::vector<Mat<T>>& layers, int from, int to, int width) {
  for (Mat<T>& layer : layers) {
    Mat<T> larger(to, width);
    if (from > 0)
      std::copy_n(layer.data(), static_cast<std::size_t>(from) * static_cast<std::size_t>(width),
                  larger.data());
    layer = std::move(larger);
  }
}

void LatentCache::reserve(int end) {
  if (end <= reserved_) return;
  if (end > capacity_) {
    throw Error(Code::kUsage, cat("the context holds ", capacity_, " tokens, ", end,
                                  " are needed: shorten the prompt or ask for fewer new tokens"));
  }
  const int want = std::min(capacity_, std::max({end, 2 * reserved_, 64}));
  grow(floats_, reserved_, want, width_);
  grow(bf16s_, reserved_, want, width_);
  reserved_ = want;
}

void LatentCache::write(const Context& ctx, int layer, int begin, MatView<const float> c_kv,
                        MatView<const float> k_rope) {
  const auto l = static_cast<std::size_t>(layer);
  ctx.for_each(c_kv.rows, 32, [&](std::int64_t i) {
    if (dtype_ == DType::kF32) {
      float* row = floats_[l].row(begin + i);
      std::copy_n(c_kv.row(i), c_kv.cols, row);
      std::copy_n(k_rope.row(i), k_rope.cols, row + latent_);
    } else {
      Bf16* row = bf16s_[l].row(begin + i);
      std::transform(c_kv.row(i), c_kv.row(i) + c_kv.cols, row, to_bf16);
      std::transform(k_rope.row(i), k_rope.row(i) + k_rope.cols, row + latent_, to_bf16);
    }
  });
}

MatRef LatentCache::rows(int layer, int rows) const {
  const auto l = static_cast<std::size_t>(layer);
  if (dtype_ == DType::kF32) return floats_[l].cview().sub_rows(0, rows);
  return bf16s_[l].cview().sub_rows(0, rows);
}

void LatentCache::columns(const Context& ctx, int layer, int begin, MatView<float> out) const {
  const auto l = static_cast<std::size_t>(layer);
  ctx.for_each(out.rows, 64, [&](std::int64_t i) {
    if (dtype_ == DType::kF32) {
      std::copy_n(floats_[l].row(i) + begin, out.cols, out.row(i));
    } else {
      const Bf16* from = bf16s_[l].row(i) + begin;
      std::transform(from, from + out.cols, out.row(i), to_float);
    }
  });
}

void LatentCache::latent(const Context& ctx, int layer, MatView<float> out) const {
  columns(ctx, layer, 0, out);
}

void LatentCache::k_rope(const Context& ctx, int layer, MatView<float> out) const {
  columns(ctx, layer, latent_, out);
}

}  // namespace cachalot::model
