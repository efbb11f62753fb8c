#include "kernels/dropout.h"

#include <algorithm>
#include <cmath>

#include "base/rng.h"
#include "kernels/shape_check.h"
#include "kernels/table.h"

namespace cachalot {

std::uint32_t dropout_threshold(double rate) {
  return static_cast<std::uint32_t>(std::min(std::lround(rate * 0x1p16), 0xFFFFL));
}

float dropout_scale(std::uint32_t threshold) {
  return static_cast<float>(0x1p16 / (0x1p16 - static_cast<double>(threshold)));
}

template <class T>
void dropout_ref(const Context& ctx, const Dropout<T>& a) {
  const Rng rng(a.mask.seed, a.mask.stream);
  const std::uint32_t threshold = dropout_threshold(a.mask.rate);
  const T scale = static_cast<T>(dropout_scale(threshold));
  const auto groups = static_cast<std::uint64_t>((a.x.cols + 127) / 128);
  ctx.for_each(a.x.rows, /*grain=*/1, [&](std::int64_t t) {
    const T* x = a.x.row(t);
    T* y = a.y.row(t);
    const std::uint64_t row = static_cast<std::uint64_t>(a.mask.first_row + t) * groups;
    for (int j = 0; j < a.x.cols; ++j) {
      const auto e = static_cast<std::uint64_t>(j % 128);
      const std::uint64_t counter = (row + static_cast<std::uint64_t>(j / 128)) * 16 + e % 32 / 2;
      const std::uint32_t bits = rng.block(counter)[e / 32] >> (e % 2 * 16) & 0xFFFF;
      const T value = bits >= threshold ? x[j] * scale : T{0};
      y[j] = a.accumulate ? y[j] + value : value;
    }
  });
}

template void dropout_ref(const Context&, const Dropout<float>&);
template void dropout_ref(const Context&, const Dropout<double>&);

void check_shapes(const Dropout<float>& a) {
  require_size("dropout", "x", a.x, a.x.rows, a.x.cols);
  require_size("dropout", "y", a.y, a.x.rows, a.x.cols);
  if (!(a.mask.rate >= 0 && a.mask.rate < 1)) {
    throw Error(Code::kUsage,
                cat("dropout: the rate is ", a.mask.rate,
                    " but has to be at least 0 and below 1; give the share that is dropped"));
  }
}

void dropout(const Context& ctx, const Dropout<float>& a) {
  check_shapes(a);
  ctx.ops().dropout(ctx, a);
}

}  // namespace cachalot
