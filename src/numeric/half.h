// Decoding of IEEE half precision (F16) and of F8_E5M2, which is its top byte. Exact: every value
// of both is a float.
#pragma once

#include <bit>
#include <cstdint>

namespace cachalot::numeric {

inline float decode_f16(std::uint16_t bits) noexcept {
  const std::uint32_t sign = std::uint32_t{bits & 0x8000u} << 16;
  const std::uint32_t exponent = (bits >> 10) & 0x1Fu;
  const std::uint32_t fraction = bits & 0x3FFu;
  if (exponent == 0x1F) return std::bit_cast<float>(sign | 0x7F800000u | (fraction << 13));
  if (exponent == 0) {  // zero and subnormals: fraction * 2^-24
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(magnitude));
  }
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (fraction << 13));
}

inline float decode_e5m2(std::uint8_t bits) noexcept {
  return decode_f16(static_cast<std::uint16_t>(bits << 8));
}

}  // namespace cachalot::numeric
