// The MLPs of a bf16 step, and on a device those of an FP8 step. Gate and up are one matrix of
// twice the rows: x is read once for both, and one product gives dx from both. What only products
// or the quantising ops read is written in bf16.
#include "kernels/bf16_ops.h"
#include "kernels/profile.h"
#include "nn/ffn_groups.h"

namespace cachalot::nn {

namespace {

// up follows gate in memory, so that both are one matrix.
bool in_one_piece(const WeightRef& gate, const WeightRef& up) {
  const auto* end = static_cast<const char*>(gate.data) +
                    gate.rows * gate.stride * static_cast<std::ptrdiff_t>(size_of(gate.dtype));
  return gate.data != nullptr && gate.quant.rows == 0 && up.dtype == gate.dtype &&
         up.stride == gate.stride && up.data == end;
}
bool in_one_piece(const Fp8View& gate, const Fp8View& up) {
  const Fp8View after = gate.sub_rows(gate.rows, up.rows);
  return gate.tile == ScaleTile::kBlock && up.tile == gate.tile &&
         gate.rows % kScaleTileSize == 0 && up.transposed == gate.transposed &&
         up.stride == gate.stride && up.codes == after.codes &&
         up.scale_stride == gate.scale_stride && up.scales == after.scales;
}
bool in_one_piece(const MlpWeights& w) {
  const Fp8View &gate = w.gate.fp8_turned, &up = w.up.fp8_turned;
  return in_one_piece(w.gate.fp8, w.up.fp8) && (gate.rows > 0) == (up.rows > 0) &&
         (gate.rows == 0 || in_one_piece(gate, up));
}
bool in_one_piece(const MatView<float>& gate, const MatView<float>& up) {
  return up.stride == gate.stride && up.data == gate.row(gate.rows);
}

WeightRef gate_and_up(const MlpWeights& w) {
  WeightRef both = w.gate;
  both.rows += w.up.rows;
  both.fp8.rows += w.up.fp8.rows;
  both.fp8_turned.rows += w.up.fp8_turned.rows;
  return both;
}
MatView<float> gate_and_up(const MlpGradients& g) {
  MatView<float> both = g.gate;
  both.rows += g.up.rows;
  return both;
}

}  // namespace

bool in_bf16(const Numerics& num, std::span<const FfnPart> parts) {
  const bool coded = num.bf16_results && in_fp8(num, parts);
  if (!coded && (!num.bf16_operands || num.products != Precision::kBF16 ||
                 num.swiglu_input != Keep::kBf16 || !num.recompute_swiglu)) {
    return false;
  }
  for (const FfnPart& p : parts) {
    if (p.saved == nullptr) return false;
    for (const MlpWeights& w : p.w) {
      if (coded ? !in_one_piece(w) : !in_one_piece(w.gate, w.up)) return false;
    }
    for (const MlpGradients& g : p.g) {
      if (!in_one_piece(g.gate, g.up)) return false;
    }
  }
  return true;
}

// hidden from gate and up.
static void swiglu_part(const Context& ctx, const Numerics& num, const FfnPart& p) {
  FfnActs& a = *p.acts;
  const int f = width_of(p);
  a.hidden_bf16.resize(p.x->rows(), f);
  {
    const PartScope scope(ctx, Part::kElementwise);
    const auto gate_up = p.saved->gate.bf16();
    swiglu_bf16(ctx, {gate_up.sub_cols(0, f), gate_up.sub_cols(f, f), a.hidden_bf16.view()});
  }
  a.hidden_operand.set(ctx, num, a.hidden_bf16.cview(), num.activation_tile, Operand::Use::kRows,
                       p.x->begins());
}

void ffn_forward_bf16(const Context& ctx, const Numerics& num, std::span<const FfnPart> parts,
                      Products& products) {
  for (const FfnPart& p : parts) {
    const int rows = p.x->rows(), width = 2 * width_of(p);
    if (num.fp8) p.acts->gate_up_bf16.resize(rows, width);
    const auto gate_up = num.fp8 ? p.acts->gate_up_bf16.view() : p.saved->gate.bf16(rows, width);
    for_groups({&p, 1}, [&](const FfnPart&, std::size_t g) {
      products.forward(*p.x, g, gate_and_up(p.w[g]), rows_of(*p.x, g, gate_up));
    });
  }
  products.run(ctx, num);

  for (const FfnPart& p : parts) {
    if (num.fp8) {
      swiglu_fp8_part(ctx, num, p, /*joint=*/true);
    } else {
      swiglu_part(ctx, num, p);
    }
  }
  for_groups(parts, [&](const FfnPart& p, std::size_t g) {
    const Operand& hidden = p.acts->hidden_operand;
    if (p.y_bf16.rows > 0) {
      products.forward(hidden, g, p.w[g].down, rows_of(*p.x, g, p.y_bf16));
    } else {
      products.forward(hidden, g, p.w[g].down, rows_of(*p.x, g, p.y), p.add_y);
    }
  });
  products.run(ctx, num);
}

// From hidden's gradient to those of gate and up, in the place of what was kept, and to the
// weighted hidden rows for down's gradient.
static void swiglu_backward_part(const Context& ctx, const Numerics& num, const FfnPart& p) {
  using Use = Operand::Use;
  FfnActs& a = *p.acts;
  {
    const PartScope scope(ctx, Part::kElementwise);
    const int f = width_of(p);
    const MatView<Bf16> gate_up = p.saved->gate.bf16(p.x->rows(), 2 * f);
    const auto gate = gate_up.sub_cols(0, f), up = gate_up.sub_cols(f, f);
    swiglu_backward_bf16(ctx, {gate, up, a.hidden_bf16.cview(), gate, up, a.hidden_bf16.view(),
                               p.row_weight, p.drow_weight});
  }
  a.hidden_operand.set(ctx, num, a.hidden_bf16.cview(), num.activation_tile, Use::kColumns,
                       p.x->begins());
  a.dgate_operand.set(ctx, num, p.saved->gate.bf16(), num.gradient_tile, Use::kBoth, p.x->begins());
}

void ffn_backward_bf16(const Context& ctx, const Numerics& num, std::span<const FfnPart> parts,
                       Products& products) {
  for (const FfnPart& p : parts) p.acts->hidden_bf16.resize(p.x->rows(), width_of(p));
  for_groups(parts, [&](const FfnPart& p, std::size_t g) {
    products.input_gradient(*p.dy, g, p.w[g].down, rows_of(*p.x, g, p.acts->hidden_bf16.view()));
  });
  products.run(ctx, num);

  for (const FfnPart& p : parts) {
    if (num.fp8) {
      swiglu_backward_fp8_part(ctx, num, p, /*joint=*/true);
    } else {
      swiglu_backward_part(ctx, num, p);
    }
  }
  const auto weight_gradients = [&](const FfnPart& p, std::size_t g) {
    products.weight_gradient(num, p.acts->dgate_operand, *p.x, g, gate_and_up(p.g[g]));
    products.weight_gradient(num, *p.dy, p.acts->hidden_operand, g, p.g[g].down);
  };
  for_groups(parts, [&](const FfnPart& p, std::size_t g) {
    const Operand& dgate_up = p.acts->dgate_operand;
    if (p.dx_bf16.rows > 0) {
      products.input_gradient(dgate_up, g, gate_and_up(p.w[g]), rows_of(*p.x, g, p.dx_bf16));
    } else {
      products.input_gradient(dgate_up, g, gate_and_up(p.w[g]), rows_of(*p.x, g, p.dx));
    }
    weight_gradients(p, g);
  });
  for_empty_groups(parts, weight_gradients);
  products.run(ctx, num);
}

}  // namespace cachalot::nn
