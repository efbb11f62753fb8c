// Moving rows between token order and expert order.
//
// A token t with its k experts has k slots: slot(t, j) is the row of the expert-ordered matrix that
// holds its copy for its j-th choice. `expert_order` fills it: rows are sorted by expert, then
// token. Threads: tokens or rows are independent; each sum runs over j in order.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/context.h"
#include "tensor/mat.h"

namespace cachalot {

struct ExpertOrder {
  std::vector<std::int32_t>
      begin;                // [E + 1] first row of each expert; begin[E] = T * k. The host's
  Mat<std::int32_t> token;  // [1, T * k] token of each row
  Mat<std::int32_t> slot;   // [T, k] row of each (token, choice)
};
void expert_order(MatView<const std::int32_t> index, int experts, ExpertOrder& out);  // the host's
void expert_order_ref(const Context& ctx, MatView<const std::int32_t> index, int experts,
                      ExpertOrder& out);
void expert_order(const Context& ctx, MatView<const std::int32_t> index, int experts,
                  ExpertOrder& out);  // the table's

// One number per row in expert order, from and to one per (token, choice).
struct RowsOfChoices {
  MatView<float> choices;            // [T, k]
  MatView<const std::int32_t> slot;  // [T, k]
  std::span<float> rows;             // [T * k]
};
void choices_to_rows_ref(const Context& ctx, const RowsOfChoices& a);  // rows[slot(t, j)] = ...
void rows_to_choices_ref(const Context& ctx, const RowsOfChoices& a);
void choices_to_rows(const Context& ctx, const RowsOfChoices& a);
void rows_to_choices(const Context& ctx, const RowsOfChoices& a);

// out[rows[i]] += x[i]; no row twice.
struct AddRows {
  MatView<const float> x;
  std::span<const std::int32_t> rows;
  MatView<float> out;
};
void add_rows_ref(const Context& ctx, const AddRows& a);
void add_rows(const Context& ctx, const AddRows& a);

// out[r] = x[rows[r]]
template <class T>
struct GatherRows {
  MatView<const T> x;
  std::span<const std::int32_t> rows;
  MatView<T> out;
};
// out[t] (+)= sum_j weight(t, j) * y[slot(t, j)]; an empty weight counts as ones.
template <class T>
struct Combine {
  MatView<const T> y;                // [T * k, D]
  MatView<const std::int32_t> slot;  // [T, k]
  MatView<const T> weight;           // [T, k] or empty
  MatView<T> out;                    // [T, D]
  bool accumulate = false;
};
// dy[slot(t, j)] = weight(t, j) * dout[t];  dweight(t, j) = dout[t] . y[slot(t, j)]
template <class T>
struct CombineBackward {
  MatView<const T> dout, y;
  MatView<const std::int32_t> slot;
  MatView<const T> weight;  // [T, k] or empty: ones
  MatView<T> dy;            // may be y
  MatView<T> dweight;       // [T, k] or empty: not wanted
};
template <class T>
void gather_rows_ref(const Context& ctx, const GatherRows<T>& a);
template <class T>
void combine_ref(const Context& ctx, const Combine<T>& a);
template <class T>
void combine_backward_ref(const Context& ctx, const CombineBackward<T>& a);

void check_shapes(const GatherRows<float>& a);
void check_shapes(const Combine<float>& a);
void check_shapes(const CombineBackward<float>& a);
void gather_rows(const Context& ctx, const GatherRows<float>& a);
void combine(const Context& ctx, const Combine<float>& a);
void combine_backward(const Context& ctx, const CombineBackward<float>& a);

}  // namespace cachalot
