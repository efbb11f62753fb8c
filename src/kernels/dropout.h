// Dropout: y (+)= x / (1 - p) where an element is kept, 0 where it is dropped.
//
// The mask is a pure function of (seed, stream, row, column) and never stored: the backward asks
// for it again. Element (t, j) of the matrix, with r = first_row + t and e = j mod 128, is kept
// where its 16 random bits are at least p 2^16:
//   counter  (r ceil(D / 128) + j / 128) 16 + (e mod 32) / 2
//   word     e / 32 of the counter's four, its half e mod 2 (0: the low one)
// p is a multiple of 2^-16 (`dropout_threshold`), so that the scale 1 / (1 - p) belongs to exactly
// the p that is drawn. Every level gives the same bits: one product, one sum.
//
// Threads: rows are independent.
// Errors:  kShape where the operands do not fit each other; kUsage for a rate outside [0, 1).
// Paper:   Srivastava et al., "Dropout" (JMLR 2014), scaled in training; the generator: base/rng.h.
#pragma once

#include <cstdint>

#include "kernels/context.h"
#include "tensor/mat.h"

namespace cachalot {

struct DropoutMask {
  double rate = 0;           // p, in [0, 1)
  std::uint64_t seed = 0;    // key of the generator
  std::uint64_t stream = 0;  // where in the model
  std::int64_t first_row = 0;
};
// An element is dropped where its 16 bits are below this: p 2^16 to nearest, at most 2^16 - 1.
std::uint32_t dropout_threshold(double rate);
// 1 / (1 - p) of the p that the threshold stands for.
float dropout_scale(std::uint32_t threshold);

template <class T>
struct Dropout {
  DropoutMask mask;
  MatView<const T> x;       // [T, D]
  MatView<T> y;             // [T, D]; may be x
  bool accumulate = false;  // added to y
};
template <class T>
void dropout_ref(const Context& ctx, const Dropout<T>& a);

void check_shapes(const Dropout<float>& a);
void dropout(const Context& ctx, const Dropout<float>& a);

}  // namespace cachalot
