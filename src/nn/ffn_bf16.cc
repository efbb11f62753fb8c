// The MLPs of a bf16 step. Gate and up are one matrix of twice the rows: x is packed once for both,
// and one product gives dx from both. What only products read is written in bf16.
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
bool in_one_piece(const MatView<float>& gate, const MatView<float>& up) {
  return up.stride == gate.stride && up.data == gate.row(gate.rows);
}

MatRef gate_and_up(const MlpWeights& w) {
  MatRef both = w.gate;
  both.rows += w.up.rows;
  return both;
}
MatView<float> gate_and_up(const MlpGradients& g) {
  MatView<float> both = g.gate;
  both.rows += g.up.rows;
  return both;
}

}  // namespace

bool in_bf16(const Numerics& num, std::span<const FfnPart> parts) {
  if (!num.bf16_operands || num.products != Precision::kBF16 || num.swiglu_input != Keep::kBf16 ||
      !num.recompute_swiglu) {
    return false;
  }
  for (const FfnPart& p : parts) {
    if (p.saved == nullptr) return false;
    for (const MlpWeights& w : p.w) {
      if (!in_one_piece(w.gate, w.up)) return false;
    }
    for (const MlpGradients& g : p.g) {
      if (!in_one_piece(g.gate, g.up)) return false;
    }
  }
  return true;
}

void ffn_forward_bf16(const Context& ctx, const Numerics& num, std::span<const FfnPart> parts,
                      Products& products) {
  for (const FfnPart& p : parts) {
    const auto gate_up = p.saved->gate.bf16(p.x->rows(), 2 * width_of(p));
    for_groups({&p, 1}, [&](const FfnPart&, std::size_t g) {
      products.forward(*p.x, g, gate_and_up(p.w[g]), rows_of(*p.x, g, gate_up));
    });
  }
  products.run(ctx, num);

  for (const FfnPart& p : parts) {
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
  for_groups(parts, [&](const FfnPart& p, std::size_t g) {
    products.forward(p.acts->hidden_operand, g, p.w[g].down, rows_of(*p.x, g, p.y), p.add_y);
  });
  products.run(ctx, num);
}

// From hidden's gradient to those of gate and up, in the place of what was kept, and to the
// weighted hidden rows for down's gradient.
static void swiglu_part(const Context& ctx, const FfnPart& p) {
  const PartScope scope(ctx, Part::kElementwise);
  FfnActs& a = *p.acts;
  const int f = width_of(p);
  const MatView<Bf16> gate_up = p.saved->gate.bf16(p.x->rows(), 2 * f);
  const auto gate = gate_up.sub_cols(0, f), up = gate_up.sub_cols(f, f);
  swiglu_backward_bf16(ctx, {gate, up, a.hidden_bf16.cview(), gate, up, a.hidden_bf16.view(),
                             p.row_weight, p.drow_weight});
}

void ffn_backward_bf16(const Context& ctx, const Numerics& num, std::span<const FfnPart> parts,
                       Products& products) {
  using Use = Operand::Use;
  for (const FfnPart& p : parts) p.acts->hidden_bf16.resize(p.x->rows(), width_of(p));
  for_groups(parts, [&](const FfnPart& p, std::size_t g) {
    products.input_gradient(*p.dy, g, static_cast<const MatRef&>(p.w[g].down),
                            rows_of(*p.x, g, p.acts->hidden_bf16.view()));
  });
  products.run(ctx, num);

  for (const FfnPart& p : parts) {
    FfnActs& a = *p.acts;
    swiglu_part(ctx, p);
    a.hidden_operand.set(ctx, num, a.hidden_bf16.cview(), num.activation_tile, Use::kColumns,
                         p.x->begins());
    a.dgate_operand.set(ctx, num, p.saved->gate.bf16(), num.gradient_tile, Use::kBoth,
                        p.x->begins());
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
      products.input_gradient(dgate_up, g, WeightRef(gate_and_up(p.w[g])), rows_of(*p.x, g, p.dx));
    }
    weight_gradients(p, g);
  });
  for_empty_groups(parts, weight_gradients);
  products.run(ctx, num);
}

}  // namespace cachalot::nn
