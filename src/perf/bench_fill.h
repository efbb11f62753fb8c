// Repeatable numbers for operands that are only timed: cheap, and exact in bf16, so that every
// contestant multiplies the same.
#pragma once

#include <cstdint>
#include <vector>

#include "tensor/mat.h"

namespace cachalot::perf {

// Multiples of 1/64 in (-1, 1), never 0.
template <class Range>
void fill(Range&& range, int seed) {
  std::uint32_t state = 12345u + static_cast<std::uint32_t>(seed);
  for (float& x : range) {
    state = state * 1664525u + 1013904223u;
    x = (static_cast<float>(state >> 25) - 63.5f) / 64.0f;
  }
}

inline Mat<float> filled(int rows, int cols, int seed) {
  Mat<float> m(rows, cols);
  fill(m.span(), seed);
  return m;
}

inline std::vector<float> filled_vec(std::size_t n, int seed) {
  std::vector<float> v(n);
  fill(v, seed);
  return v;
}

}  // namespace cachalot::perf
