// Integer weights in groups with one BF16 scale each, and int8 activations in tiles of 1 x 128:
// the definitions that kernels and the converter are tested against.
//
// Threads: pure functions.
// Errors:  none; what is not finite is said by the result.
#pragma once

#include <cstdint>
#include <span>

#include "tensor/dtype.h"
#include "tensor/quantized.h"

namespace cachalot::numeric {

// The number a code stands for: exact in bf16. Column j of a row.
float decode_code(QuantCode code, const std::uint8_t* row, int j) noexcept;

// Quantises one group, in 8 or 4 bits: codes[j] = value + 2^(bits - 1), value in
// [-2^(bits - 1), 2^(bits - 1) - 1]. The scale minimises the squared error over a few candidates:
// the largest magnitude put on the lowest value (a scale may be negative) or the highest, and
// shorter ranges in 4 bits, each refined by least squares. A group of zeros has scale 1. False
// where x is not finite.
bool quantize_group(std::span<const float> x, int bits, std::uint8_t* codes, Bf16& scale) noexcept;

// Activations: code = x * (127 / amax) to the nearest, ties to even; value = code * (amax / 127).
// Returns the scale. A tile whose largest magnitude is below 2^-100 is zeros with scale 0; one that
// is not finite is zeros with scale NaN, so that divergence cannot hide.
inline constexpr float kInt8Tiny = 0x1p-100f;
float quantize_int8_tile(std::span<const float> x, std::int8_t* codes) noexcept;

}  // namespace cachalot::numeric
