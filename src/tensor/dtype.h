// Element types a tensor may have in memory or in a file. Names follow safetensors.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace cachalot {

enum class DType : std::uint8_t {
  kF64,
  kF32,
  kF16,
  kBF16,
  kF8E4M3,
  kF8E5M2,
  kI64,
  kI32,
  kI16,
  kI8,
  kU8,
  kBool
};

std::size_t size_of(DType type) noexcept;             // bytes of one element
std::string_view name(DType type) noexcept;           // "BF16", "F8_E4M3", ...
bool parse_dtype(std::string_view text, DType& out);  // false: not a name this program knows

// bfloat16: the top half of a float. Conversions round to nearest, ties to even; NaN stays NaN.
struct Bf16 {
  std::uint16_t bits = 0;
};
inline float to_float(Bf16 x) noexcept { return std::bit_cast<float>(std::uint32_t{x.bits} << 16); }
inline Bf16 to_bf16(float x) noexcept {
  const auto u = std::bit_cast<std::uint32_t>(x);
  if ((u & 0x7FFFFFFFu) > 0x7F800000u) return {static_cast<std::uint16_t>((u >> 16) | 0x40u)};
  return {static_cast<std::uint16_t>((u + 0x7FFFu + ((u >> 16) & 1u)) >> 16)};
}

template <class T>
struct DTypeOf;
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::kF64;
};
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::kF32;
};
template <>
struct DTypeOf<Bf16> {
  static constexpr DType value = DType::kBF16;
};
template <>
struct DTypeOf<std::int64_t> {
  static constexpr DType value = DType::kI64;
};
template <>
struct DTypeOf<std::int32_t> {
  static constexpr DType value = DType::kI32;
};
template <>
struct DTypeOf<std::uint8_t> {
  static constexpr DType value = DType::kU8;
};

}  // namespace cachalot
