// Walking over the groups of the parts of an MLP layer; private to ffn*.cc.
#pragma once

#include <cstddef>
#include <span>

#include "nn/ffn.h"

namespace cachalot::nn {

inline int width_of(const FfnPart& p) { return p.w.front().gate.rows; }

// Room for the products of any batch below, whichever groups have rows.
inline void reserve(Products& products, std::span<const FfnPart> parts) {
  constexpr std::size_t kMostPerGroup = 4;  // the gradients of gate, up, down, and that of x
  std::size_t groups = 0;
  for (const FfnPart& p : parts) groups += p.x->groups();
  products.reserve(kMostPerGroup * groups);
}

template <class T>
MatView<T> rows_of(const Operand& x, std::size_t group, MatView<T> m) {
  return m.sub_rows(x.group_begin(group), x.group_rows(group));
}

// fn(part, group) for every group that has rows.
template <class F>
void for_groups(std::span<const FfnPart> parts, F&& fn) {
  for (const FfnPart& p : parts) {
    for (std::size_t g = 0; g < p.x->groups(); ++g) {
      if (p.x->group_rows(g) > 0) fn(p, g);
    }
  }
}
// And for those that have none: an expert that no token chose.
template <class F>
void for_empty_groups(std::span<const FfnPart> parts, F&& fn) {
  for (const FfnPart& p : parts) {
    for (std::size_t g = 0; g < p.x->groups(); ++g) {
      if (p.x->group_rows(g) == 0) fn(p, g);
    }
  }
}

// Where in_fp8 (ffn_fp8.cc): from gate and up to the codes of hidden, keeping those of gate and up;
// and from hidden's gradient, in acts->gate, to the codes of the gradients. `joint`: gate and up
// lie side by side in acts->gate_up_bf16, hidden's gradient in acts->hidden_bf16, and dgate_operand
// gets both gradients side by side.
void swiglu_fp8_part(const Context& ctx, const Numerics& num, const FfnPart& p, bool joint);
void swiglu_backward_fp8_part(const Context& ctx, const Numerics& num, const FfnPart& p,
                              bool joint);

// Where in_bf16 (ffn_bf16.cc).
void ffn_forward_bf16(const Context& ctx, const Numerics& num, std::span<const FfnPart> parts,
                      Products& products);
void ffn_backward_bf16(const Context& ctx, const Numerics& num, std::span<const FfnPart> parts,
                       Products& products);

}  // namespace cachalot::nn
