#include "numeric/logfmt.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "tensor/dtype.h"

namespace cachalot::numeric {

namespace {

constexpr std::uint32_t kInfinityBits = 0x7F800000u;

std::uint32_t magnitude_bits(float x) noexcept {
  return std::bit_cast<std::uint32_t>(x) & 0x7FFFFFFFu;
}

void check_bits(const char* op, int bits) {
  if (bits < kLogFmtMinBits || bits > kLogFmtMaxBits) {
    throw Error(Code::kUsage, cat(op, ": LogFMT with ", bits, " bits; it is defined from ",
                                  kLogFmtMinBits, " to ", kLogFmtMaxBits, "."));
  }
}

void check_sizes(const char* op, std::size_t values, std::size_t codes) {
  if (values != codes || values > kLogFmtTile) {
    throw Error(Code::kShape,
                cat(op, ": ", values, " values and ", codes,
                    " codes; a tile has as many codes as values, at most ", kLogFmtTile, "."));
  }
}

void check_packed(const char* op, int bits, std::size_t codes, std::size_t bytes) {
  check_bits(op, bits);
  const std::size_t want = packed_logfmt_bytes(bits, codes);
  if (bytes != want) {
    throw Error(Code::kShape, cat(op, ": ", codes, " codes of ", bits, " bits fill ", want,
                                  " bytes, not ", bytes, "."));
  }
}

}  // namespace

LogFmtRange logfmt_range(std::span<const float> tile) noexcept {
  // As bits: magnitudes keep their order, with NaN above infinity.
  std::uint32_t largest = 0, least = kInfinityBits;
  for (const float x : tile) {
    const std::uint32_t u = magnitude_bits(x);
    largest = std::max(largest, u);
    if (u != 0) least = std::min(least, u);
  }
  return logfmt_range_of(std::bit_cast<float>(least), std::bit_cast<float>(largest));
}

LogFmtRange logfmt_range_of(float least, float largest) noexcept {
  const float high = to_float(to_bf16(largest));
  if (!std::isfinite(high)) {
    constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
    return {kNan, kNan};
  }
  if (high < kLogFmtLeast) return {};
  return {std::max(to_float(to_bf16(least)), high * kLogFmtSpread), high};
}

LogFmtGrid::LogFmtGrid(int bits, LogFmtRange range) : range_(range), last_((1 << (bits - 1)) - 1) {
  check_bits("logfmt", bits);
  const bool spread = range.low < range.high;
  step_ = spread ? std::log2(static_cast<double>(range.high) / static_cast<double>(range.low)) /
                       (last_ - 1)
                 : 0.0;
}

float LogFmtGrid::value(int code) const noexcept {
  if (std::isnan(range_.high)) return range_.high;
  if (code == 0) return 0.0f;
  if (code == last_) return range_.high;
  return static_cast<float>(static_cast<double>(range_.low) * std::exp2(step_ * (code - 1)));
}

int LogFmtGrid::nearest(float magnitude) const noexcept {
  if (!(range_.high > 0) || magnitude == 0) return 0;
  const auto x = static_cast<double>(magnitude);
  const auto low = static_cast<double>(range_.low);
  if (x < low || step_ == 0) return 2 * x > low ? 1 : 0;  // the tie with zero is even
  if (magnitude >= range_.high) return last_;
  // The code below, by logarithms, then made exact against the decoded values themselves.
  int below = std::clamp(static_cast<int>(std::log2(x / low) / step_) + 1, 1, last_ - 1);
  while (below > 1 && value(below) > magnitude) --below;
  while (below < last_ - 1 && value(below + 1) <= magnitude) ++below;
  // Floats so near to each other: both differences are exact in double.
  const double down = x - static_cast<double>(value(below));
  const double up = static_cast<double>(value(below + 1)) - x;
  if (down != up) return down < up ? below : below + 1;
  return below + below % 2;
}

LogFmtRange encode_logfmt(int bits, std::span<const float> tile, std::span<std::uint16_t> codes) {
  check_sizes("encode_logfmt", tile.size(), codes.size());
  const LogFmtRange range = logfmt_range(tile);
  const LogFmtGrid grid(bits, range);
  for (std::size_t i = 0; i < tile.size(); ++i) {
    const int sign = std::signbit(tile[i]) ? 1 << (bits - 1) : 0;
    codes[i] = static_cast<std::uint16_t>(sign | grid.nearest(std::fabs(tile[i])));
  }
  return range;
}

void decode_logfmt(int bits, LogFmtRange range, std::span<const std::uint16_t> codes,
                   std::span<float> tile) {
  check_sizes("decode_logfmt", tile.size(), codes.size());
  const LogFmtGrid grid(bits, range);
  for (std::size_t i = 0; i < tile.size(); ++i) {
    const float magnitude = grid.value(codes[i] & grid.last());
    tile[i] = (codes[i] >> (bits - 1)) != 0 ? -magnitude : magnitude;
  }
}

std::size_t packed_logfmt_bytes(int bits, std::size_t count) noexcept {
  return (count * static_cast<std::size_t>(bits) + 7) / 8;
}

void pack_logfmt(int bits, std::span<const std::uint16_t> codes, std::span<std::uint8_t> bytes) {
  check_packed("pack_logfmt", bits, codes.size(), bytes.size());
  std::uint32_t waiting = 0;
  int held = 0;
  std::size_t at = 0;
  for (const std::uint16_t code : codes) {
    waiting |= std::uint32_t{code} << held;
    for (held += bits; held >= 8; held -= 8, waiting >>= 8) {
      bytes[at++] = static_cast<std::uint8_t>(waiting);
    }
  }
  if (held > 0) bytes[at] = static_cast<std::uint8_t>(waiting);
}

void unpack_logfmt(int bits, std::span<const std::uint8_t> bytes, std::span<std::uint16_t> codes) {
  check_packed("unpack_logfmt", bits, codes.size(), bytes.size());
  std::uint32_t waiting = 0;
  int held = 0;
  std::size_t at = 0;
  for (std::uint16_t& code : codes) {
    for (; held < bits; held += 8) waiting |= std::uint32_t{bytes[at++]} << held;
    code = static_cast<std::uint16_t>(waiting & ((1u << bits) - 1));
    waiting >>= bits;
    held -= bits;
  }
}

}  // namespace cachalot::numeric
