#include "model/same_weight.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstring>

#include "model/packed_weights.h"

namespace cachalot::model {

namespace {

bool same_bytes(const Context& ctx, const io::TensorView& a, const io::TensorView& b) {
  constexpr std::size_t kEnd = 4096, kPiece = std::size_t{2} << 20;
  const auto* x = static_cast<const std::byte*>(a.data);
  const auto* y = static_cast<const std::byte*>(b.data);
  const std::size_t n = a.bytes, end = std::min(n, kEnd);
  if (n == 0) return true;
  if (std::memcmp(x, y, end) != 0 || std::memcmp(x + n - end, y + n - end, end) != 0) return false;
  std::atomic<bool> same{true};
  ctx.for_each(static_cast<std::int64_t>((n + kPiece - 1) / kPiece), 1, [&](std::int64_t piece) {
    const std::size_t at = static_cast<std::size_t>(piece) * kPiece;
    if (!same.load(std::memory_order_relaxed)) return;
    if (std::memcmp(x + at, y + at, std::min(kPiece, n - at)) != 0) same = false;
  });
  return same;
}

bool same_tensor(const Context& ctx, const io::TensorView* a, const io::TensorView* b) {
  if (a == nullptr || b == nullptr) return a == b;
  return a->dtype == b->dtype && a->shape == b->shape && a->bytes == b->bytes &&
         same_bytes(ctx, *a, *b);
}

}  // namespace

bool same_weight(const Context& ctx, const io::Safetensors& file, const std::string& a,
                 const std::string& b) {
  const PackedNames pa(a), pb(b);
  const auto same = [&](const std::string& x, const std::string& y) {
    return same_tensor(ctx, file.find(x), file.find(y));
  };
  if (file.find(a) == nullptr && file.find(pa.codes) == nullptr) return false;
  // Small parts first.
  return same(pa.shape, pb.shape) && same(a + "_scale_inv", b + "_scale_inv") &&
         same(pa.scales, pb.scales) && same(a, b) && same(pa.codes, pb.codes);
}

}  // namespace cachalot::model
