#include "model/resident.h"

#include <algorithm>
#include <cstring>

namespace cachalot::model {

namespace {
constexpr std::size_t kSlab = std::size_t{256} << 20;
constexpr std::size_t kPiece = std::size_t{2} << 20;  // of a copy: a huge page
constexpr std::size_t kAlign = 64;
}  // namespace

std::byte* ResidentCopies::room(std::size_t bytes) {
  const std::size_t rounded = (bytes + kAlign - 1) / kAlign * kAlign;
  if (rounded > left_) {
    left_ = std::max(kSlab, rounded);
    next_ = static_cast<std::byte*>(slabs_.emplace_back(aligned_bytes(left_)).get());
  }
  std::byte* to = next_;
  next_ += rounded;
  left_ -= rounded;
  bytes_ += bytes;
  return to;
}

const void* ResidentCopies::reserve(const void* data, std::size_t bytes) {
  std::byte* to = room(bytes);
  for (std::size_t at = 0; at < bytes; at += kPiece) {
    jobs_.push_back(
        {static_cast<const std::byte*>(data) + at, to + at, std::min(kPiece, bytes - at)});
  }
  return to;
}

QuantView ResidentCopies::reserve_panels(const QuantView& from) {
  QuantView to = panels_of(from);
  to.codes = reinterpret_cast<const std::uint8_t*>(room(to.code_span()));
  if (to.scales == nullptr) to.scales = room(to.scale_span());
  packs_.push_back({from, to});
  return to;
}

void ResidentCopies::copy(const Context& ctx) {
  ctx.for_range(static_cast<std::int64_t>(jobs_.size()), 1,
                [&](std::int64_t begin, std::int64_t end) {
                  for (std::int64_t i = begin; i < end; ++i) {
                    const Job& job = jobs_[static_cast<std::size_t>(i)];
                    std::memcpy(job.to, job.from, job.bytes);
                  }
                });
  pack_quant(ctx, packs_);
  jobs_.clear();
  packs_.clear();
}

}  // namespace cachalot::model
