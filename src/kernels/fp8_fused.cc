#include "kernels/fp8_fused.h"

#include "kernels/shape_check.h"
#include "kernels/table.h"

namespace cachalot {

namespace {

bool kept(const SwigluFp8& a) { return a.gate.rows == 0 && a.kept_gate.rows > 0; }

Mat<float> multiplied_out(const Context& ctx, const Fp8View& x) {
  Mat<float> values(x.rows, x.cols);
  ctx.ops().dequantize_fp8(ctx, {x, values.view(), {}});
  return values;
}

void require_tile(std::string_view op, std::string_view operand, const Fp8View& m, int rows,
                  int cols, ScaleTile tile) {
  require_fp8(op, operand, m, rows, cols, tile == ScaleTile::kColumn);
  require_shape(m.empty() || m.tile == tile, op, ": ", operand, " has other tiles than ",
                tile == ScaleTile::kRow ? "1 x 128" : "128 x 1", "; give it those");
}

void quantize_one(const Context& ctx, const QuantizeFp8& a) {
  ctx.ops().quantize_fp8(ctx, std::span<const QuantizeFp8>(&a, 1));
}

}  // namespace

void rms_norm_fp8_ref(const Context& ctx, const RmsNormFp8& a) {
  RmsNorm<float> norm = a.norm;
  Mat<float> y;
  if (norm.y.rows == 0) {
    y.resize(norm.x.rows, norm.x.cols);
    norm.y = y.view();
  }
  ctx.ops().rms_norm(ctx, norm);
  quantize_one(ctx, {norm.y, a.kind, a.out, {}});
}

void swiglu_fp8_ref(const Context& ctx, std::span<const SwigluFp8> jobs) {
  for (const SwigluFp8& a : jobs) {
    if (a.out.empty()) continue;
    Mat<float> gate, up, hidden(a.out.rows, a.out.cols);
    Swiglu<float> op{a.gate, a.up, hidden.view()};
    if (kept(a)) {
      gate = multiplied_out(ctx, a.kept_gate);
      up = multiplied_out(ctx, a.kept_up);
      op.gate = gate.cview();
      op.up = up.cview();
    }
    ctx.ops().swiglu(ctx, op);
    quantize_one(ctx, {hidden.cview(), a.kind, a.out, a.also});
    if (!a.keep_gate.empty()) quantize_one(ctx, {a.gate, a.keep_kind, a.keep_gate, {}});
    if (!a.keep_up.empty()) quantize_one(ctx, {a.up, a.keep_kind, a.keep_up, {}});
  }
}

void swiglu_backward_fp8_ref(const Context& ctx, std::span<const SwigluBackwardFp8> jobs) {
  for (const SwigluBackwardFp8& a : jobs) {
    if (a.dout.empty()) continue;
    const int rows = a.dout.rows, cols = a.dout.cols;
    const Mat<float> gate = multiplied_out(ctx, a.gate), up = multiplied_out(ctx, a.up);
    Mat<float> dgate(rows, cols), dup(rows, cols), hidden(rows, cols);
    ctx.ops().swiglu_backward(ctx, {gate.cview(), up.cview(), a.dout, dgate.view(), dup.view(),
                                    a.weight, a.dweight, hidden.view()});
    quantize_one(ctx, {dgate.cview(), a.kind, a.dgate, a.dgate_columns});
    quantize_one(ctx, {dup.cview(), a.kind, a.dup, a.dup_columns});
    quantize_one(ctx, {hidden.cview(), a.kind, a.hidden_columns, {}});
  }
}

void check_shapes(const RmsNormFp8& a) {
  constexpr std::string_view kOp = "rms_norm_fp8";
  RmsNorm<float> norm = a.norm;
  if (norm.y.rows == 0) norm.y = {nullptr, norm.x.rows, norm.x.cols, norm.x.cols};
  check_shapes(norm);
  require_fp8(kOp, "out", a.out, norm.x.rows, norm.x.cols);
  require_shape(a.out.empty() || a.out.tile == ScaleTile::kRow, kOp,
                ": out has tiles that span rows, but rows are quantised one by one; give it tiles "
                "of 1 x 128, and requantise those");
}

void check_shapes(const SwigluFp8& a) {
  constexpr std::string_view kOp = "swiglu_fp8";
  const int rows = a.out.rows, cols = a.out.cols;
  if (kept(a)) {
    require_fp8(kOp, "kept_gate", a.kept_gate, rows, cols);
    require_fp8(kOp, "kept_up", a.kept_up, rows, cols);
  } else {
    require_size(kOp, "gate", a.gate, rows, cols);
    require_size(kOp, "up", a.up, rows, cols);
    if (a.gate_bf16.rows > 0 || a.up_bf16.rows > 0) {
      require_size(kOp, "gate_bf16", a.gate_bf16, rows, cols);
      require_size(kOp, "up_bf16", a.up_bf16, rows, cols);
    }
  }
  require_fp8(kOp, "out", a.out, rows, cols);
  if (!a.also.empty()) require_fp8(kOp, "also", a.also, rows, cols);
  if (a.keep_gate.empty() && a.keep_up.empty()) return;
  require_shape(!kept(a) && a.also.empty() && a.out.tile == ScaleTile::kRow, kOp,
                ": gate and up are kept in passing only where they are floats and the result has "
                "tiles of 1 x 128 alone; quantise them by themselves");
  require_tile(kOp, "keep_gate", a.keep_gate, rows, cols, ScaleTile::kRow);
  require_tile(kOp, "keep_up", a.keep_up, rows, cols, ScaleTile::kRow);
}

void check_shapes(const SwigluBackwardFp8& a) {
  constexpr std::string_view kOp = "swiglu_backward_fp8";
  const int rows = a.dout.rows, cols = a.dout.cols;
  require_tile(kOp, "gate", a.gate, rows, cols, ScaleTile::kRow);
  require_tile(kOp, "up", a.up, rows, cols, ScaleTile::kRow);
  require_tile(kOp, "dgate", a.dgate, rows, cols, ScaleTile::kRow);
  require_tile(kOp, "dup", a.dup, rows, cols, ScaleTile::kRow);
  require_tile(kOp, "dgate_columns", a.dgate_columns, rows, cols, ScaleTile::kColumn);
  require_tile(kOp, "dup_columns", a.dup_columns, rows, cols, ScaleTile::kColumn);
  require_tile(kOp, "hidden_columns", a.hidden_columns, rows, cols, ScaleTile::kColumn);
  require_shape(a.dgate_columns.transposed == a.dup_columns.transposed &&
                    a.dgate_columns.transposed == a.hidden_columns.transposed,
                kOp,
                ": of the three results in tiles of 128 x 1 some have transposed codes; give "
                "all of them the same layout");
  if (a.dout_bf16.rows > 0) require_size(kOp, "dout_bf16", a.dout_bf16, rows, cols);
  const auto n = static_cast<std::size_t>(rows);
  if (!a.weight.empty()) require_length(kOp, "weight", a.weight, n);
  if (!a.dweight.empty()) require_length(kOp, "dweight", a.dweight, n);
}

void rms_norm_fp8(const Context& ctx, const RmsNormFp8& a) {
  check_shapes(a);
  ctx.ops().rms_norm_fp8(ctx, a);
}

void swiglu_fp8(const Context& ctx, std::span<const SwigluFp8> jobs) {
  for (const SwigluFp8& a : jobs) {
    check_shapes(a);
    require_device(ctx, "swiglu_fp8", a.gate_bf16.rows > 0);
  }
  ctx.ops().swiglu_fp8(ctx, jobs);
}

void swiglu_backward_fp8(const Context& ctx, std::span<const SwigluBackwardFp8> jobs) {
  for (const SwigluBackwardFp8& a : jobs) {
    check_shapes(a);
    require_device(ctx, "swiglu_backward_fp8", a.dgate_columns.transposed || a.dout_bf16.rows > 0);
  }
  ctx.ops().swiglu_backward_fp8(ctx, jobs);
}

}  // namespace cachalot
