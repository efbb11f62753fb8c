#include "numeric/small_float.h"

namespace cachalot::numeric {

namespace {

constexpr std::uint32_t kInfinityBits = 0x7F800000u;

// The magnitude bits `u` of a finite float, rounded to a format of `kFractionBits` and exponent
// bias `kBias`. The result may run past the format's largest exponent; the caller says what that
// means there.
template <int kFractionBits, int kBias>
std::uint32_t round_magnitude(std::uint32_t u) noexcept {
  constexpr int kDropped = 23 - kFractionBits;
  constexpr std::uint32_t kSmallestNormal = static_cast<std::uint32_t>(128 - kBias) << 23;
  if (u < kSmallestNormal) {
    // Below the normals the grid is even: adding the float whose last bit is worth one step lets
    // the addition itself round to nearest even.
    constexpr float kMagic = detail::power_of_two(1 - kBias - kFractionBits + 23);
    const float shifted = std::bit_cast<float>(u) + kMagic;
    return std::bit_cast<std::uint32_t>(shifted) - std::bit_cast<std::uint32_t>(kMagic);
  }
  const std::uint32_t tie_to_even = (u >> kDropped) & 1u;
  const std::uint32_t rounded = u + ((1u << (kDropped - 1)) - 1) + tie_to_even;
  return (rounded >> kDropped) - (static_cast<std::uint32_t>(127 - kBias) << kFractionBits);
}

template <int kExponentBits, int kFractionBits>
std::uint32_t encode_ieee(float x) noexcept {
  constexpr int kBits = kExponentBits + kFractionBits;
  constexpr std::uint32_t kInfinity = ((1u << kExponentBits) - 1) << kFractionBits;
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t sign = (bits >> 31) << kBits;
  const std::uint32_t u = bits & 0x7FFFFFFFu;
  // A quiet NaN: the top fraction bit set.
  if (u > kInfinityBits) return sign | kInfinity | (1u << (kFractionBits - 1));
  if (u == kInfinityBits) return sign | kInfinity;
  const auto code = round_magnitude<kFractionBits, (1 << (kExponentBits - 1)) - 1>(u);
  return sign | (code < kInfinity ? code : kInfinity);
}

// All exponents are finite; the one code with every magnitude bit set is NaN.
template <int kExponentBits, int kFractionBits>
std::uint32_t encode_saturating(float x, float largest) noexcept {
  constexpr int kBits = kExponentBits + kFractionBits;
  constexpr std::uint32_t kNan = (1u << kBits) - 1;
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t sign = (bits >> 31) << kBits;
  const std::uint32_t u = bits & 0x7FFFFFFFu;
  if (u > kInfinityBits) return sign | kNan;
  if (u >= std::bit_cast<std::uint32_t>(largest)) return sign | (kNan - 1);
  return sign | round_magnitude<kFractionBits, (1 << (kExponentBits - 1)) - 1>(u);
}

}  // namespace

std::uint8_t encode_e4m3(float x) noexcept {
  return static_cast<std::uint8_t>(encode_saturating<4, 3>(x, kE4M3Max));
}

std::uint8_t encode_e5m2(float x) noexcept {
  return static_cast<std::uint8_t>(encode_ieee<5, 2>(x));
}

std::uint16_t encode_e5m6(float x) noexcept {
  return static_cast<std::uint16_t>(encode_saturating<5, 6>(x, kE5M6Max));
}

float decode_e5m6(std::uint16_t code) noexcept {
  const std::uint32_t sign = (code & 0x800u) << 20;
  const std::uint32_t magnitude = code & 0x7FFu;
  if (magnitude == 0x7FFu) return std::bit_cast<float>(sign | 0x7FC00000u);
  if (magnitude < 0x40u) {
    const float value = static_cast<float>(magnitude) * 0x1p-20f;
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) | sign);
  }
  return std::bit_cast<float>(sign | ((magnitude + ((127u - 15u) << 6)) << 17));
}

std::uint16_t encode_f16(float x) noexcept {
  return static_cast<std::uint16_t>(encode_ieee<5, 10>(x));
}

float decode_f16(std::uint16_t code) noexcept {
  const std::uint32_t sign = (code & 0x8000u) << 16;
  const std::uint32_t magnitude = code & 0x7FFFu;
  if (magnitude >= 0x7C00u) {  // infinity and NaN keep their fraction
    return std::bit_cast<float>(sign | kInfinityBits | ((magnitude & 0x3FFu) << 13));
  }
  if (magnitude < 0x400u) {
    const float value = static_cast<float>(magnitude) * 0x1p-24f;
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) | sign);
  }
  return std::bit_cast<float>(sign | ((magnitude + ((127u - 15u) << 10)) << 13));
}

}  // namespace cachalot::numeric
