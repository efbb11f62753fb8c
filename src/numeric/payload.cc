#include "numeric/payload.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <span>

#include "numeric/logfmt.h"
#include "numeric/quantize.h"
#include "numeric/small_float.h"

namespace cachalot::numeric {

namespace {

static_assert(kLogFmtTile == kScaleBlock);

void through_fp8(Payload payload, std::span<float> tile) {
  std::uint32_t amax = 0;  // as bits, which order NaN above infinity above the rest
  for (const float x : tile) {
    amax = std::max(amax, std::bit_cast<std::uint32_t>(x) & 0x7FFFFFFFu);
  }
  const bool e4m3 = payload == Payload::kE4m3;
  const auto largest = std::bit_cast<float>(amax);
  const float scale = e4m3 ? block_scale(ScaleKind::kPow2, largest) : e5m2_scale(largest);
  for (float& x : tile) {
    x = (e4m3 ? decode_e4m3(encode_e4m3(x / scale)) : decode_e5m2(encode_e5m2(x / scale))) * scale;
  }
}

void through_logfmt(int bits, std::span<float> tile) {
  std::array<std::uint16_t, kLogFmtTile> memory;
  const std::span<std::uint16_t> codes(memory.data(), tile.size());
  decode_logfmt(bits, encode_logfmt(bits, tile, codes), codes, tile);
}

}  // namespace

std::string_view name(Payload payload) noexcept {
  switch (payload) {
    case Payload::kBf16:
      return "bf16";
    case Payload::kE4m3:
      return "e4m3";
    case Payload::kE5m2:
      return "e5m2";
    case Payload::kLogFmt8:
      return "logfmt8";
    case Payload::kLogFmt10:
      return "logfmt10";
  }
  return "bf16";
}

bool parse_payload(std::string_view text, Payload& out) noexcept {
  for (const Payload payload : kPayloads) {
    if (name(payload) == text) {
      out = payload;
      return true;
    }
  }
  return false;
}

std::size_t payload_bytes(Payload payload, int cols) noexcept {
  const auto values = static_cast<std::size_t>(cols);
  if (payload == Payload::kBf16) return 2 * values;
  const auto per_tiles = 4 * static_cast<std::size_t>(blocks_of(cols, kScaleBlock));
  const int bits = logfmt_bits(payload);
  return (bits == 0 ? values : packed_logfmt_bytes(bits, values)) + per_tiles;
}

float e5m2_scale(float amax) noexcept {
  if (!std::isfinite(amax)) return amax;
  return amax == 0.0f ? 1.0f : detail::power_of_two(fitting_exponent(amax, kE5M2Max));
}

void round_trip(Payload payload, MatView<float> x) {
  for (int i = 0; i < x.rows; ++i) {
    if (payload == Payload::kBf16) {
      for (int j = 0; j < x.cols; ++j) x.at(i, j) = to_float(to_bf16(x.at(i, j)));
      continue;
    }
    for (int j = 0; j < x.cols; j += kScaleBlock) {
      const auto size = static_cast<std::size_t>(std::min(kScaleBlock, x.cols - j));
      const std::span<float> tile(x.row(i) + j, size);
      const int bits = logfmt_bits(payload);
      if (bits == 0) {
        through_fp8(payload, tile);
      } else {
        through_logfmt(bits, tile);
      }
    }
  }
}

}  // namespace cachalot::numeric
