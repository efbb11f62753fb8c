#include "numeric/e5m6.h"

#include <algorithm>
#include <bit>

#include "base/error.h"
#include "numeric/small_float.h"

namespace cachalot::numeric {

namespace {

constexpr std::uint32_t kInfinityBits = 0x7F800000u;
constexpr std::uint8_t kNanScale = 255;
constexpr std::uint16_t kNanCode = 0x7FF;
constexpr int kUnitScale = 127;  // 2^0

void check(const char* op, std::size_t cols, std::size_t packed, std::size_t scales) {
  const auto want_packed = static_cast<std::size_t>(e5m6_row_bytes(static_cast<int>(cols)));
  const auto want_scales = static_cast<std::size_t>(e5m6_tiles(static_cast<int>(cols)));
  if (packed != want_packed || scales != want_scales) {
    throw Error(Code::kShape, cat(op, ": a row of ", cols, " values needs ", want_packed,
                                  " bytes and ", want_scales, " scales, but was given ", packed,
                                  " and ", scales, "; size them by tensor/e5m6.h."));
  }
}

}  // namespace

std::uint8_t e5m6_scale(float amax) noexcept {
  const std::uint32_t u = std::bit_cast<std::uint32_t>(amax) & 0x7FFFFFFFu;
  if (u >= kInfinityBits) return kNanScale;
  if (u == 0) return kUnitScale;
  return static_cast<std::uint8_t>(kUnitScale +
                                   fitting_exponent(std::bit_cast<float>(u), kE5M6Max));
}

float e5m6_scale_value(std::uint8_t byte) noexcept {
  if (byte == kNanScale) return std::bit_cast<float>(0x7FC00000u);
  return std::bit_cast<float>(std::uint32_t{byte} << 23);
}

void pack_e5m6(std::uint16_t low, std::uint16_t high, std::uint8_t* bytes) noexcept {
  bytes[0] = static_cast<std::uint8_t>(low);
  bytes[1] = static_cast<std::uint8_t>((low >> 8) | (high << 4));
  bytes[2] = static_cast<std::uint8_t>(high >> 4);
}

std::uint16_t unpack_e5m6(const std::uint8_t* row, int column) noexcept {
  const std::uint8_t* bytes = row + static_cast<std::ptrdiff_t>(column / 2) * 3;
  const unsigned code =
      column % 2 == 0 ? bytes[0] | (bytes[1] & 0xFu) << 8 : bytes[1] >> 4 | unsigned{bytes[2]} << 4;
  return static_cast<std::uint16_t>(code);
}

void encode_e5m6_row(std::span<const float> x, std::span<std::uint8_t> packed,
                     std::span<std::uint8_t> scales) {
  check("encode_e5m6_row", x.size(), packed.size(), scales.size());
  for (std::size_t tile = 0; tile < scales.size(); ++tile) {
    const std::size_t begin = tile * kE5M6Tile;
    const std::size_t end = std::min(x.size(), begin + kE5M6Tile);
    std::uint32_t amax = 0;  // as bits, which order NaN above infinity above the rest
    for (std::size_t j = begin; j < end; ++j) {
      amax = std::max(amax, std::bit_cast<std::uint32_t>(x[j]) & 0x7FFFFFFFu);
    }
    scales[tile] = e5m6_scale(std::bit_cast<float>(amax));
    const float scale = e5m6_scale_value(scales[tile]);
    const auto code = [&](std::size_t j) {
      if (j >= end) return std::uint16_t{0};
      return scales[tile] == kNanScale ? kNanCode : encode_e5m6(x[j] / scale);
    };
    for (std::size_t j = begin; j < end; j += 2) {
      const std::uint16_t low = code(j);
      const std::uint16_t high = code(j + 1);
      pack_e5m6(low, high, &packed[j / 2 * 3]);
    }
  }
}

void decode_e5m6_row(std::span<const std::uint8_t> packed, std::span<const std::uint8_t> scales,
                     std::span<float> x) {
  check("decode_e5m6_row", x.size(), packed.size(), scales.size());
  for (std::size_t j = 0; j < x.size(); ++j) {
    x[j] = decode_e5m6(unpack_e5m6(packed.data(), static_cast<int>(j))) *
           e5m6_scale_value(scales[j / kE5M6Tile]);
  }
}

}  // namespace cachalot::numeric
