#include "kernels/bf16_ops.h"

#include <algorithm>

#include "kernels/elementwise.h"
#include "kernels/permute.h"
#include "kernels/rope.h"
#include "kernels/saved.h"
#include "kernels/shape_check.h"
#include "kernels/table.h"

namespace cachalot {

static Mat<float> floats_of(const Context& ctx, MatView<const Bf16> x) {
  Mat<float> wide(x.rows, x.cols);
  load_bf16_ref(ctx, x, wide.view());
  return wide;
}

void swiglu_bf16_ref(const Context& ctx, const SwigluBf16& a) {
  const Mat<float> gate = floats_of(ctx, a.gate), up = floats_of(ctx, a.up);
  Mat<float> out(a.out.rows, a.out.cols);
  swiglu_ref(ctx, Swiglu<float>{gate.cview(), up.cview(), out.view()});
  store_bf16_ref(ctx, out.cview(), a.out);
}

void swiglu_backward_bf16_ref(const Context& ctx, const SwigluBackwardBf16& a) {
  const int rows = a.dout.rows, cols = a.dout.cols;
  const Mat<float> gate = floats_of(ctx, a.gate), up = floats_of(ctx, a.up),
                   dout = floats_of(ctx, a.dout);
  Mat<float> dgate(rows, cols), dup(rows, cols), hidden(rows, cols);
  swiglu_backward_ref(
      ctx, SwigluBackward<float>{gate.cview(), up.cview(), dout.cview(), dgate.view(), dup.view(),
                                 a.weight, a.dweight, hidden.view()});
  store_bf16_ref(ctx, dgate.cview(), a.dgate);
  store_bf16_ref(ctx, dup.cview(), a.dup);
  store_bf16_ref(ctx, hidden.cview(), a.hidden);
}

void gather_rows_bf16_ref(const Context& ctx, const GatherRowsBf16& a) {
  Mat<float> out(a.out.rows, a.out.cols);
  gather_rows_ref(ctx, GatherRows<float>{a.x, a.rows, out.view()});
  store_bf16_ref(ctx, out.cview(), a.out);
}

void combine_bf16_ref(const Context& ctx, const CombineBf16& a) {
  const Mat<float> y = floats_of(ctx, a.y);
  combine_ref(ctx, Combine<float>{y.cview(), a.slot, a.weight, a.out, a.accumulate});
}

void rope_bf16_ref(const Context& ctx, const RopeBf16& a) {
  Mat<float> turned(a.x.rows, a.x.cols);
  for (int t = 0; t < a.x.rows; ++t) std::copy_n(a.x.row(t), a.x.cols, turned.row(t));
  rope_ref(ctx,
           Rope<float>{turned.view(), a.heads, a.head_stride, a.offset, a.cos, a.sin, a.inverse});
  store_bf16_ref(ctx, turned.cview(), a.out);
}

void check_shapes(const RopeBf16& a) {
  constexpr std::string_view kOp = "rope_bf16";
  require_shape(a.offset >= 0 && a.offset + 2 * a.cos.cols <= a.head_stride, kOp, ": ", a.cos.cols,
                " pairs from column ", a.offset, " of heads that are ", a.head_stride,
                " columns apart; they have to lie in their head");
  require_size(kOp, "x", a.x, a.cos.rows, a.heads * a.head_stride);
  require_size(kOp, "sin", a.sin, a.cos.rows, a.cos.cols);
  require_size(kOp, "out", a.out, a.x.rows, a.x.cols);
}

void check_shapes(const CombineBf16& a) {
  constexpr std::string_view kOp = "combine_bf16";
  require_size(kOp, "out", a.out, a.slot.rows, a.y.cols);
  if (!a.weight.empty()) require_size(kOp, "weight", a.weight, a.slot.rows, a.slot.cols);
  for (int t = 0; t < a.slot.rows; ++t) {
    const std::span<const std::int32_t> slots(a.slot.row(t), static_cast<std::size_t>(a.slot.cols));
    require_range(kOp, "slot", slots, 0, a.y.rows);
  }
}

void check_shapes(const SwigluBf16& a) {
  constexpr std::string_view kOp = "swiglu_bf16";
  require_size(kOp, "up", a.up, a.gate.rows, a.gate.cols);
  require_size(kOp, "out", a.out, a.gate.rows, a.gate.cols);
}

void check_shapes(const SwigluBackwardBf16& a) {
  constexpr std::string_view kOp = "swiglu_backward_bf16";
  require_size(kOp, "up", a.up, a.gate.rows, a.gate.cols);
  require_size(kOp, "dout", a.dout, a.gate.rows, a.gate.cols);
  require_size(kOp, "dgate", a.dgate, a.gate.rows, a.gate.cols);
  require_size(kOp, "dup", a.dup, a.gate.rows, a.gate.cols);
  require_size(kOp, "hidden", a.hidden, a.gate.rows, a.gate.cols);
  const auto rows = static_cast<std::size_t>(a.gate.rows);
  require_shape(a.weight.empty() || a.weight.size() == rows, kOp, ": ", a.weight.size(),
                " weights for ", rows, " rows; give one for each, or none");
  require_shape(a.dweight.empty() || a.dweight.size() == rows, kOp, ": room for ", a.dweight.size(),
                " gradients of weights of ", rows, " rows; give one for each");
}

void check_shapes(const GatherRowsBf16& a) {
  constexpr std::string_view kOp = "gather_rows_bf16";
  require_size(kOp, "out", a.out, static_cast<int>(a.rows.size()), a.x.cols);
  require_range(kOp, "rows", a.rows, 0, a.x.rows);
}

void swiglu_bf16(const Context& ctx, const SwigluBf16& a) {
  check_shapes(a);
  ctx.ops().swiglu_bf16(ctx, a);
}
void swiglu_backward_bf16(const Context& ctx, const SwigluBackwardBf16& a) {
  check_shapes(a);
  ctx.ops().swiglu_backward_bf16(ctx, a);
}
void gather_rows_bf16(const Context& ctx, const GatherRowsBf16& a) {
  check_shapes(a);
  ctx.ops().gather_rows_bf16(ctx, a);
}
void rope_bf16(const Context& ctx, const RopeBf16& a) {
  check_shapes(a);
  require_shape(a.x.empty() || a.x.data != nullptr || ctx.device != nullptr, "rope_bf16: x [",
                a.x.rows, ", ", a.x.cols, "] has no memory; rotating in place is for devices");
  ctx.ops().rope_bf16(ctx, a);
}
void combine_bf16(const Context& ctx, const CombineBf16& a) {
  check_shapes(a);
  ctx.ops().combine_bf16(ctx, a);
}

}  // namespace cachalot
