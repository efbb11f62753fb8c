// The experts of a layer for few rows, chosen where the rows lie: no list of what each expert gets
// ever reaches the host.
//
// Symbols: T rows, D hidden, E experts, k per row, F width of an expert.
// Threads: split over elements of y only.
// Precision: products as Precision says (of quantised weights: those of kBf16 activations in
//          kernels/quant_linear.h), results of an expert weighted in float, in the order of
//          choices.
// Paper:   V3 report 2.1.2, eq. 12.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/context.h"
#include "tensor/mat.h"
#include "tensor/quantized.h"

namespace cachalot {

// A matrix [N, K] as a product reads it: `quant` where that has rows, else `plain`.
struct RowsWeight {
  MatRef plain;
  QuantView quant;

  int rows() const noexcept { return quant.rows > 0 ? quant.rows : plain.rows; }
  int cols() const noexcept { return quant.rows > 0 ? quant.cols : plain.cols; }
};
struct MlpRows {
  RowsWeight gate, up, down;  // [F, D], [F, D], [D, F]
};

struct RoutedRows {
  Precision precision = Precision::kF32;
  MatView<const float> x;             // [T, D]
  MatView<const std::int32_t> index;  // [T, k]
  MatView<const float> weight;        // [T, k]
  std::span<const MlpRows> experts;   // [E]
  MlpRows shared;                     // of every row, counted once; or without rows
  MatView<float> y;                   // [T, D]
  bool add = false;                   // y += the result
  // Then the norm of y (kernels/rms_norm.h), for whoever reads it next; or no rows.
  MatView<float> normed;               // [T, D]
  std::span<const float> norm_weight;  // [D]
  float eps = 0;
};

void check_shapes(const RoutedRows& a);
// The definition: row by row, choice by choice.
void routed_rows_ref(const Context& ctx, const RoutedRows& a);
// Whether the table has more than the definition for this; by the number of rows, the weights and
// what else does not change between passes of one shape.
bool takes_no_routed_rows(const Context& ctx, const RoutedRows& a) noexcept;
bool takes_routed_rows(const Context& ctx, const RoutedRows& a) noexcept;
// Checks shapes, then runs the table's.
void routed_rows(const Context& ctx, const RoutedRows& a);

}  // namespace cachalot
