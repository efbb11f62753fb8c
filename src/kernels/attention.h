// Causal attention with MLA's expanded keys and values (training and prefill), without a T x T
// matrix in memory; and its gradient.
//
// Symbols: T query rows, S key rows, H heads, N nope dim, R rope dim, V value dim.
// Key of head h at row s is [kv(s, h, 0..N) ; k_rope(s)]; its value is kv(s, h, N..N+V).
// A span is one sequence: its queries are the last q_rows positions of its kv_rows keys, so query i
// sees keys 0 .. kv_rows - q_rows + i. Spans may be ragged and may not overlap.
// Threads: (span, head, block of queries) are independent; key blocks are visited in a fixed order
//          that depends on absolute key positions only, so results depend neither on the threads
//          nor on how a prompt was cut into chunks. In the backward each (span, head) is one task;
//          dk_rope, summed over heads, is combined in head order.
// Paper:   V3 report eq. 1-11; online softmax as in FlashAttention-2 (arXiv 2307.08691).
#pragma once

#include <span>

#include "kernels/context.h"
#include "tensor/mat.h"

namespace cachalot {

struct AttentionSpan {
  int q_begin = 0;  // first row in q / out
  int q_rows = 0;
  int kv_begin = 0;  // first row in kv / k_rope
  int kv_rows = 0;   // >= q_rows
};

struct AttentionDims {
  int heads = 0;
  int nope = 0;
  int rope = 0;
  int value = 0;
};

template <class T>
struct Attention {
  MatView<const T> q;       // [T, H * (N + R)]  per head [nope, rope], rope part already rotated
  MatView<const T> kv;      // [S, H * (N + V)]  per head [k nope, v]: what kv_b_proj gives
  MatView<const T> k_rope;  // [S, R]            rotated, shared by all heads
  std::span<const AttentionSpan> spans;
  AttentionDims dims;
  T scale;  // positive
  Precision precision =
      Precision::kF32;  // bf16: q, k, v and probabilities rounded to bf16 before products
  MatView<T> out;       // [T, H * V]  rows outside every span stay as they are
  MatView<T> lse;       // [T, H] log of the sum of exp(scores); rows 0 columns 0 = not wanted
  // Read instead of q and kv, which then give the shapes alone; without rows: not there.
  MatView<const Bf16> q_bf16 = {}, kv_bf16 = {};
};

template <class T>
struct AttentionBackward {
  MatView<const T> q, kv, k_rope;
  std::span<const AttentionSpan> spans;
  AttentionDims dims;
  T scale;
  Precision precision = Precision::kF32;  // bf16: dout and the gradients of scores rounded as well
  MatView<const T> out, lse, dout;
  MatView<T> dq;                                  // [T, H * (N + R)]  overwritten
  MatView<T> dkv;                                 // [S, H * (N + V)]  overwritten
  MatView<T> dk_rope;                             // [S, R]            overwritten
  MatView<const Bf16> q_bf16 = {}, kv_bf16 = {};  // as in Attention
};

template <class T>
void attention_ref(const Context& ctx, const Attention<T>& a);
template <class T>
void attention_backward_ref(const Context& ctx, const AttentionBackward<T>& a);

void check_shapes(const Attention<float>& a);
void check_shapes(const AttentionBackward<float>& a);
void attention(const Context& ctx, const Attention<float>& a);
void attention_backward(const Context& ctx, const AttentionBackward<float>& a);

}  // namespace cachalot
