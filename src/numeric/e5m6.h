// E5M6 in tiles of 1 x 128 with power-of-two scales: value = code * 2^e. The definition that
// kernels are tested against.
//
// e is the smallest power whose tile still fits (amax <= 129024 * 2^e), at least -126, and 0 for a
// tile of zeros. Dividing by 2^e is exact or ends below half of the least code, and multiplying
// back is always exact, so a second pass changes nothing. A tile that holds a NaN or an infinity
// comes back as NaN throughout (its scale is 255, its codes 0x7FF).
// Threads: pure functions.
// Errors:  kShape where the spans do not fit each other.
// Paper:   DeepSeek-V3 report, section 3.3.3 (scales that are powers of two); bias and special
//          values are ours: small_float.h, docs/numerics.md.
#pragma once

#include <cstdint>
#include <span>

#include "tensor/e5m6.h"

namespace cachalot::numeric {

// The scale byte of a tile whose largest magnitude is `amax`; 255 where that is not finite.
std::uint8_t e5m6_scale(float amax) noexcept;
// 2^(byte - 127); NaN for 255. Bytes are 1 or more.
float e5m6_scale_value(std::uint8_t byte) noexcept;

void pack_e5m6(std::uint16_t low, std::uint16_t high, std::uint8_t* bytes) noexcept;  // 3 bytes
std::uint16_t unpack_e5m6(const std::uint8_t* row, int column) noexcept;

// One row: packed [e5m6_row_bytes(cols)], scales [e5m6_tiles(cols)].
void encode_e5m6_row(std::span<const float> x, std::span<std::uint8_t> packed,
                     std::span<std::uint8_t> scales);
void decode_e5m6_row(std::span<const std::uint8_t> packed, std::span<const std::uint8_t> scales,
                     std::span<float> x);

}  // namespace cachalot::numeric
