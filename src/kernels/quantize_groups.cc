#include "kernels/quantize_groups.h"

#include <algorithm>
#include <atomic>

#include "kernels/shape_check.h"
#include "kernels/table.h"
#include "numeric/group_quant.h"

namespace cachalot {

namespace {
constexpr std::string_view kOp = "quantize_groups";
constexpr int kLargestGroup = 128;
}  // namespace

void check_shapes(const QuantizeGroups& a) {
  require_shape(a.bits == 8 || a.bits == 4, kOp, ": codes of ", a.bits,
                " bits; they have to be of 8 or 4");
  require_shape(a.group == 32 || a.group == 64 || a.group == kLargestGroup, kOp, ": groups of ",
                a.group, " columns; they have to be of 32, 64 or 128");
  require_size(kOp, "x", a.x, a.x.rows, a.x.cols);
  require_size(kOp, "codes", a.codes, a.x.rows, a.row_bytes());
  require_size(kOp, "scales", a.scales, a.x.rows, a.groups());
}

bool quantize_groups_ref(const Context& ctx, const QuantizeGroups& a) {
  std::atomic<bool> finite{true};
  ctx.for_each(a.x.rows, /*grain=*/4, [&](std::int64_t row) {
    const float* x = a.x.row(row);
    std::uint8_t* to = a.codes.row(row);
    std::fill_n(to, a.codes.cols, std::uint8_t{0});
    std::uint8_t codes[kLargestGroup];
    for (int begin = 0, g = 0; begin < a.x.cols; begin += a.group, ++g) {
      const int n = std::min(a.group, a.x.cols - begin);
      if (!numeric::quantize_group({x + begin, static_cast<std::size_t>(n)}, a.bits, codes,
                                   a.scales.row(row)[g])) {
        finite = false;
        return;
      }
      for (int j = 0; j < n; ++j) {
        const int bit = (begin + j) * a.bits;
        to[bit / 8] = static_cast<std::uint8_t>(to[bit / 8] | codes[j] << bit % 8);
      }
    }
  });
  return finite;
}

bool quantize_groups(const Context& ctx, const QuantizeGroups& a) {
  check_shapes(a);
  return ctx.ops().quantize_groups(ctx, a);
}

}  // namespace cachalot
