#include "model/device_copies.h"

#include <algorithm>

namespace cachalot::model {

namespace {
constexpr std::size_t kSlab = std::size_t{64} << 20;
constexpr std::size_t kAlign = 256;  // what Device::allocate gives
}  // namespace

const void* DeviceCopies::copy(const void* from, std::size_t bytes) {
  if (bytes == 0) return nullptr;
  const std::size_t rounded = (bytes + kAlign - 1) / kAlign * kAlign;
  std::byte* to = nullptr;
  if (rounded > kSlab / 4 && rounded > left_) {  // a piece of its own leaves the rest for others
    const MemoryScope scope(device_);
    to = static_cast<std::byte*>(slabs_.emplace_back(aligned_bytes(rounded)).get());
  } else {
    if (rounded > left_) {
      const MemoryScope scope(device_);
      next_ = static_cast<std::byte*>(slabs_.emplace_back(aligned_bytes(kSlab)).get());
      left_ = kSlab;
    }
    to = next_;
    next_ += rounded;
    left_ -= rounded;
  }
  device_->upload(to, from, bytes);
  bytes_ += bytes;
  return to;
}

nn::WeightRef DeviceCopies::copy(nn::WeightRef w) {
  if (w.quant.rows > 0) {
    w.quant.codes = static_cast<const std::uint8_t*>(copy(w.quant.codes, w.quant.code_span()));
    w.quant.scales = copy(w.quant.scales, w.quant.scale_span());
    if (w.fp8.rows > 0) {  // the same codes as tiles
      w.fp8.codes = w.quant.codes;
      w.fp8.scales = static_cast<const float*>(w.quant.scales);
    }
    return w;
  }
  const auto elements = static_cast<std::size_t>(w.rows) * static_cast<std::size_t>(w.stride);
  w.data = copy(w.data, elements * size_of(w.dtype));
  return w;
}

nn::VecRef DeviceCopies::copy(nn::VecRef v) {
  return {static_cast<const float*>(copy(v.data(), v.size_bytes())), v.size()};
}

}  // namespace cachalot::model
