// Scalar codecs of the small floats: E4M3, E5M2, E5M6, F16. Exact rules, no speed; every kernel
// that packs or unpacks them is tested against these.
//
// E4M3 (the "FN" variant: no infinities, NaN is 0x7F and 0xFF, largest value 448) saturates,
// infinities too, as FP8 training wants. E5M2 and F16 follow IEEE 754: overflow becomes infinity.
// E5M6 (12 bits, for the attention output) is made like E4M3: bias 15, subnormals, no infinities,
// NaN is 0x7FF and 0xFFF, largest value 129024; the report names only its field widths.
// All round to nearest, ties to even, and keep the sign of zero and of NaN.
//
// Threads: pure functions.
// Paper:   DeepSeek-V3 report, section 3.3.2 (E4M3 for every tensor).
#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace cachalot::numeric {

inline constexpr float kE4M3Max = 448.0f;
inline constexpr float kE5M2Max = 57344.0f;
inline constexpr float kE5M6Max = 129024.0f;  // (2 - 2^-5) 2^16

std::uint8_t encode_e4m3(float x) noexcept;
std::uint8_t encode_e5m2(float x) noexcept;
std::uint16_t encode_e5m6(float x) noexcept;     // 12 bits
float decode_e5m6(std::uint16_t code) noexcept;  // the upper 4 bits are ignored
std::uint16_t encode_f16(float x) noexcept;
float decode_f16(std::uint16_t code) noexcept;

// The smallest e >= -126 with amax <= largest * 2^e, for finite amax > 0 and normal `largest`.
constexpr int fitting_exponent(float amax, float largest) noexcept {
  // The exponents' difference, or one more where amax has the larger fraction: the carry of a sum.
  constexpr std::uint32_t kFraction = 0x007FFFFFu;
  const auto fits = std::bit_cast<std::uint32_t>(largest);
  const std::uint32_t up = std::bit_cast<std::uint32_t>(amax) + kFraction - (fits & kFraction);
  const int e = static_cast<int>(up >> 23) - static_cast<int>(fits >> 23);
  return e < -126 ? -126 : e;
}

namespace detail {

constexpr float power_of_two(int exponent) {  // -126 .. 127
  return std::bit_cast<float>(static_cast<std::uint32_t>(exponent + 127) << 23);
}

// Sign, exponent and fraction of an 8-bit float whose largest exponent field is an ordinary one.
template <int kFractionBits, int kBias>
constexpr float decode_finite(unsigned code) {
  const unsigned fraction = code & ((1u << kFractionBits) - 1);
  const int exponent = static_cast<int>((code & 0x7Fu) >> kFractionBits);
  const float unit = power_of_two((exponent == 0 ? 1 : exponent) - kBias - kFractionBits);
  const float magnitude =
      static_cast<float>(exponent == 0 ? fraction : fraction + (1u << kFractionBits)) * unit;
  return (code & 0x80u) != 0 ? -magnitude : magnitude;
}

constexpr float signed_special(unsigned code, std::uint32_t magnitude_bits) {
  return std::bit_cast<float>(magnitude_bits | ((code & 0x80u) << 24));
}

constexpr std::array<float, 256> e4m3_values() {
  std::array<float, 256> values{};
  for (unsigned code = 0; code < 256; ++code) {
    values[code] =
        (code & 0x7Fu) == 0x7Fu ? signed_special(code, 0x7FC00000u) : decode_finite<3, 7>(code);
  }
  return values;
}

constexpr std::array<float, 256> e5m2_values() {
  std::array<float, 256> values{};
  for (unsigned code = 0; code < 256; ++code) {
    const unsigned magnitude = code & 0x7Fu;
    values[code] = magnitude > 0x7Cu    ? signed_special(code, 0x7FC00000u)
                   : magnitude == 0x7Cu ? signed_special(code, 0x7F800000u)
                                        : decode_finite<2, 15>(code);
  }
  return values;
}

}  // namespace detail

inline constexpr std::array<float, 256> kE4M3Values = detail::e4m3_values();
inline constexpr std::array<float, 256> kE5M2Values = detail::e5m2_values();

constexpr float decode_e4m3(std::uint8_t code) noexcept { return kE4M3Values[code]; }
constexpr float decode_e5m2(std::uint8_t code) noexcept { return kE5M2Values[code]; }

}  // namespace cachalot::numeric
