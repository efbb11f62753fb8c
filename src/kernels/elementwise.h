// SwiGLU, embedding rows, sums: the ops bound by memory.
//
// Threads: rows or fixed blocks are independent; every sum has a fixed order.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/context.h"
#include "tensor/mat.h"

namespace cachalot {

// out = silu(gate) * up, element by element. All [T, F].
template <class T>
struct Swiglu {
  MatView<const T> gate, up;
  MatView<T> out;
};
template <class T>
struct SwigluBackward {
  MatView<const T> gate, up, dout;
  MatView<T> dgate, dup;           // may be gate and up themselves
  std::span<const T> weight = {};  // [T] dout counts times this (an expert's share); empty: ones
  std::span<T> dweight = {};       // [T] or empty: sum over the row of dout * silu(gate) * up
  MatView<T> hidden = {};  // [T, F] or empty: weight * silu(gate) * up, for the next gradient
};
template <class T>
void swiglu_ref(const Context& ctx, const Swiglu<T>& a);
template <class T>
void swiglu_backward_ref(const Context& ctx, const SwigluBackward<T>& a);

// out[t] = table[ids[t]]; ids were checked by the caller (they come from outside).
struct Embedding {
  MatRef table;                       // [vocab, D]  F32 or BF16
  std::span<const std::int32_t> ids;  // [T]
  MatView<float> out;                 // [T, D]
};
void embedding_ref(const Context& ctx, const Embedding& a);

// dtable[ids[t]] += dout[t], in the order of t.
template <class T>
struct EmbeddingBackward {
  std::span<const std::int32_t> ids;
  MatView<const T> dout;  // [T, D]
  MatView<T> dtable;      // [vocab, D] added to
};
template <class T>
void embedding_backward_ref(const Context& ctx, const EmbeddingBackward<T>& a);

// out = x; out = 0. Rows may lie apart.
void copy_rows_ref(const Context& ctx, MatView<const float> x, MatView<float> out);
void zero_rows_ref(const Context& ctx, MatView<float> out);
void copy_rows(const Context& ctx, MatView<const float> x, MatView<float> out);
void zero_rows(const Context& ctx, MatView<float> out);

// Row i of x times weight[i].
struct ScaleRows {
  MatView<float> x;               // [T, F]
  std::span<const float> weight;  // [T]
};
void scale_rows_ref(const Context& ctx, const ScaleRows& a);
void scale_rows(const Context& ctx, const ScaleRows& a);

// `cols` columns of each head, from where they lie in x to where they go in out.
struct CopyHeads {
  MatView<const float> x;  // [T, heads * x_stride]
  int heads = 0, x_stride = 0, x_offset = 0, cols = 0;
  MatView<float> out;  // [T, heads * out_stride]
  int out_stride = 0, out_offset = 0;
};
void copy_heads_ref(const Context& ctx, const CopyHeads& a);
void copy_heads(const Context& ctx, const CopyHeads& a);
// The same, rotated on the way (kernels/rope.h): cols is R.
struct RotateHeads {
  CopyHeads copy;
  MatView<const float> cos, sin;  // [T, R / 2]
};
void rotate_heads_ref(const Context& ctx, const RotateHeads& a);
void rotate_heads(const Context& ctx, const RotateHeads& a);

// Sum of squares in double: blocks of 4096 elements, then the blocks in order.
template <class T>
double sum_squares_ref(const Context& ctx, std::span<const T> x);

void check_shapes(const Swiglu<float>& a);
void check_shapes(const SwigluBackward<float>& a);
void check_shapes(const Embedding& a);
void check_shapes(const EmbeddingBackward<float>& a);
void swiglu(const Context& ctx, const Swiglu<float>& a);
void swiglu_backward(const Context& ctx, const SwigluBackward<float>& a);
void embedding(const Context& ctx, const Embedding& a);
void embedding_backward(const Context& ctx, const EmbeddingBackward<float>& a);
double sum_squares(const Context& ctx, std::span<const float> x);

}  // namespace cachalot
