#include "nn/ffn.h"

#include "kernels/elementwise.h"
#include "kernels/profile.h"
#include "nn/ffn_groups.h"

namespace cachalot::nn {

// hidden from gate and up, and what is kept of them.
static void swiglu_part(const Context& ctx, const Numerics& num, const FfnPart& p) {
  FfnActs& a = *p.acts;
  a.hidden.resize(p.x->rows(), width_of(p));
  {
    const PartScope scope(ctx, Part::kElementwise);
    swiglu(ctx, {a.gate.cview(), a.up.cview(), a.hidden.view()});
  }
  if (p.saved != nullptr) {
    p.saved->gate.store(ctx, num.swiglu_input, a.gate.cview());
    p.saved->up.store(ctx, num.swiglu_input, a.up.cview());
    if (!num.recompute_swiglu) p.saved->hidden.store(ctx, num.linear_input, a.hidden.cview());
  }
  a.hidden_operand.set(ctx, num, a.hidden.cview(), num.activation_tile, Operand::Use::kRows,
                       p.x->begins());
}

void ffn_forward(const Context& ctx, const Numerics& num, std::span<const FfnPart> parts,
                 Products& products) {
  reserve(products, parts);
  if (in_bf16(num, parts)) return ffn_forward_bf16(ctx, num, parts, products);
  for (const FfnPart& p : parts) {
    for (Mat<float>* m : {&p.acts->gate, &p.acts->up}) m->resize(p.x->rows(), width_of(p));
  }
  for_groups(parts, [&](const FfnPart& p, std::size_t g) {
    products.forward(*p.x, g, p.w[g].gate, rows_of(*p.x, g, p.acts->gate.view()));
    products.forward(*p.x, g, p.w[g].up, rows_of(*p.x, g, p.acts->up.view()));
  });
  products.run(ctx, num);

  const bool coded = in_fp8(num, parts);
  for (const FfnPart& p : parts) {
    if (coded) {
      swiglu_fp8_part(ctx, num, p, /*joint=*/false);
    } else {
      swiglu_part(ctx, num, p);
    }
  }
  for_groups(parts, [&](const FfnPart& p, std::size_t g) {
    products.forward(p.acts->hidden_operand, g, p.w[g].down, rows_of(*p.x, g, p.y), p.add_y);
  });
  products.run(ctx, num);
}

// From hidden's gradient to those of gate and up, and the weighted hidden rows for down's gradient.
static void swiglu_backward_part(const Context& ctx, const Numerics& num, const FfnPart& p) {
  FfnActs& a = *p.acts;
  const auto gate = p.saved->gate.load(ctx, a.gate);
  const auto up = p.saved->up.load(ctx, a.up);
  for (Mat<float>* m : {&a.gate, &a.up}) m->resize(p.x->rows(), width_of(p));
  const PartScope scope(ctx, Part::kElementwise);
  swiglu_backward(ctx, {gate, up, a.hidden.cview(), a.gate.view(), a.up.view(), p.row_weight,
                        p.drow_weight, a.hidden.view()});
  if (num.recompute_swiglu) return;
  p.saved->hidden.load_into(ctx, a.hidden);
  if (p.row_weight.empty()) return;
  scale_rows(ctx, {a.hidden.view(), p.row_weight});
}

// The same, as the products read them.
static void quantize_gradients(const Context& ctx, const Numerics& num, const FfnPart& p) {
  using Use = Operand::Use;
  FfnActs& a = *p.acts;
  const auto begins = p.x->begins();
  a.hidden_operand.set(ctx, num, a.hidden.cview(), num.activation_tile, Use::kColumns, begins);
  a.dgate_operand.set(ctx, num, a.gate.cview(), num.gradient_tile, Use::kBoth, begins);
  a.dup_operand.set(ctx, num, a.up.cview(), num.gradient_tile, Use::kBoth, begins);
}

void ffn_backward(const Context& ctx, const Numerics& num, std::span<const FfnPart> parts,
                  Products& products) {
  reserve(products, parts);
  if (in_bf16(num, parts)) return ffn_backward_bf16(ctx, num, parts, products);
  const bool coded = in_fp8(num, parts);
  const auto dhidden = [&](const FfnPart& p) -> Mat<float>& {
    return coded ? p.acts->gate : p.acts->hidden;
  };
  for (const FfnPart& p : parts) dhidden(p).resize(p.x->rows(), width_of(p));
  for_groups(parts, [&](const FfnPart& p, std::size_t g) {
    products.input_gradient(*p.dy, g, p.w[g].down, rows_of(*p.x, g, dhidden(p).view()));
  });
  products.run(ctx, num);

  for (const FfnPart& p : parts) {
    if (coded) {
      swiglu_backward_fp8_part(ctx, num, p, /*joint=*/false);
      continue;
    }
    swiglu_backward_part(ctx, num, p);
    quantize_gradients(ctx, num, p);
  }
  const auto weight_gradients = [&](const FfnPart& p, std::size_t g) {
    products.weight_gradient(num, p.acts->dgate_operand, *p.x, g, p.g[g].gate);
    products.weight_gradient(num, p.acts->dup_operand, *p.x, g, p.g[g].up);
    products.weight_gradient(num, *p.dy, p.acts->hidden_operand, g, p.g[g].down);
  };
  for_groups(parts, [&](const FfnPart& p, std::size_t g) {
    products.input_gradient(p.acts->dgate_operand, g, p.w[g].gate, rows_of(*p.x, g, p.dx));
    weight_gradients(p, g);
  });
  for_empty_groups(parts, weight_gradients);
  products.run(ctx, num);
  for_groups(parts, [&](const FfnPart& p, std::size_t g) {
    products.input_gradient(p.acts->dup_operand, g, p.w[g].up, rows_of(*p.x, g, p.dx),
                            /*add=*/true);
  });
  products.run(ctx, num);
}

}  // namespace cachalot::nn
