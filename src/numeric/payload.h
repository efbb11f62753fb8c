// What an expert's output is sent in when it goes back to its tokens, for experiments with formats
// cheaper than BF16: `round_trip` gives what the receiver sees, `payload_bytes` what it costs.
//
//   bf16       each value rounded by itself
//   e4m3, e5m2 tiles of 1 x 128, scales that are powers of two (as the report dispatches)
//   logfmt8, logfmt10  tiles of 1 x 128 (numeric/logfmt.h)
// Tiles are of a row; the last one may be short. A NaN or an infinity makes its tile NaN (in bf16
// only itself), so divergence is never hidden.
//
// Threads: pure functions.
// Paper:   "Insights into DeepSeek-V3", section 3.2 (formats of the combine).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "tensor/mat.h"

namespace cachalot::numeric {

enum class Payload : std::uint8_t { kBf16, kE4m3, kE5m2, kLogFmt8, kLogFmt10 };
inline constexpr Payload kPayloads[] = {Payload::kBf16, Payload::kE4m3, Payload::kE5m2,
                                        Payload::kLogFmt8, Payload::kLogFmt10};

std::string_view name(Payload payload) noexcept;  // "bf16", "e4m3", "e5m2", "logfmt8", "logfmt10"
bool parse_payload(std::string_view text, Payload& out) noexcept;
// 8 or 10 where the payload is LogFMT, otherwise 0.
constexpr int logfmt_bits(Payload payload) noexcept {
  if (payload == Payload::kLogFmt8) return 8;
  return payload == Payload::kLogFmt10 ? 10 : 0;
}

// Bytes of one token of `cols` values: codes, and four bytes per tile (a float scale, or LogFMT's
// two ends in bf16).
std::size_t payload_bytes(Payload payload, int cols) noexcept;

void round_trip(Payload payload, MatView<float> x);  // [R, C] in place

// The power-of-two scale of an E5M2 tile: the smallest from 2^-126 on with amax <= 57344 *
// scale; 1 for zeros; an amax that is not finite as it is.
float e5m2_scale(float amax) noexcept;

}  // namespace cachalot::numeric
