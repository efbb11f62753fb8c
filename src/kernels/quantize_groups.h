// Weights as integers in 8 or 4 bits, one BF16 scale per group of columns: what the form
// `pack-quantized` of a file holds (docs/file-formats.md).
//
// Codes and scales are numeric::quantize_group's of each group, bit for bit, at every level.
// Threads: groups are independent; results do not depend on the threads.
// Errors:  check_shapes throws kShape; a NaN or an infinity among x is said by the result.
#pragma once

#include <cstdint>

#include "kernels/context.h"
#include "tensor/mat.h"

namespace cachalot {

struct QuantizeGroups {
  MatView<const float> x;  // [N, K]
  int bits;                // 8 or 4
  int group;               // columns of a scale, the last group may be shorter: 32, 64 or 128
  // [N, B], B = 4 ceil(K bits / 32): column j from bit j * bits on; bits past the last are zeros.
  MatView<std::uint8_t> codes;
  MatView<Bf16> scales;  // [N, ceil(K / group)]

  int groups() const noexcept { return (x.cols + group - 1) / group; }
  int row_bytes() const noexcept { return (x.cols * bits + 31) / 32 * 4; }
};

void check_shapes(const QuantizeGroups& a);

// False where some x is not finite: codes and scales of its group are then undefined.
bool quantize_groups_ref(const Context& ctx, const QuantizeGroups& a);

// Checks shapes, then runs the table's kernel.
bool quantize_groups(const Context& ctx, const QuantizeGroups& a);

}  // namespace cachalot
