// LogFMT-nBit: a sign and an (n - 1)-bit place on a logarithmic grid that fits each tile of 1 x
// 128.
//
// Code 0 is zero; code K = 1 .. 2^(n-1) - 1 is low * 2^(step (K - 1)) with step = log2(high / low)
// / (2^(n-1) - 2), so 1 is `low` and the last one `high` (the paper writes the same with exp and
// ln). `high` is the largest magnitude of the tile, `low` the smallest that is not zero, but at
// least high / 2^32. Both are sent, as bf16, and the grid hangs on what is sent. Rounding is to the
// nearest decoded value, zero among them, in linear space (unbiased); in closed form the code is
// floor(log2(|x| / low) / step + 2 - log2((1 + 2^step) / 2) / step) from `low` on. Ties go to the
// even code. Of the degenerate tiles
//   one magnitude (low = high): every code from 1 decodes to it, and 1 is what is sent;
//   nothing but zeros, or nothing from 2^-90 on: low = high = 0, all zero (signs stay);
//   a NaN, or a magnitude that is infinite in bf16: `high` is NaN, and so is the whole tile.
//
// Threads: pure functions.
// Errors:  kShape (spans that do not fit), kUsage (bits out of 3 .. 12).
// Paper:   "Insights into DeepSeek-V3", section 3.2; rounding in closed form as in DeepEP.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace cachalot::numeric {

inline constexpr int kLogFmtTile = 128;
inline constexpr int kLogFmtMinBits = 3;
inline constexpr int kLogFmtMaxBits = 12;
inline constexpr float kLogFmtLeast = 0x1p-90f;   // largest magnitude of a tile that is sent at all
inline constexpr float kLogFmtSpread = 0x1p-32f;  // low >= high * this

struct LogFmtRange {
  float low = 0;  // both are numbers of bf16
  float high = 0;
};
LogFmtRange logfmt_range(std::span<const float> tile) noexcept;
// The same from the least magnitude that is not zero (infinity: none is) and the largest one.
LogFmtRange logfmt_range_of(float least, float largest) noexcept;

// The grid of one tile.
class LogFmtGrid {
 public:
  LogFmtGrid(int bits, LogFmtRange range);

  int last() const noexcept { return last_; }     // 2^(bits-1) - 1
  double step() const noexcept { return step_; }  // of log2; 0 where low = high
  float value(int code) const noexcept;           // magnitude of a code without its sign
  int nearest(float magnitude) const noexcept;    // the code of a magnitude

 private:
  LogFmtRange range_;
  int last_;
  double step_;
};

// codes: sign << (bits - 1) | place, one for each of at most 128 values.
LogFmtRange encode_logfmt(int bits, std::span<const float> tile, std::span<std::uint16_t> codes);
void decode_logfmt(int bits, LogFmtRange range, std::span<const std::uint16_t> codes,
                   std::span<float> tile);

// Codes side by side, the lowest bit of the first one first.
std::size_t packed_logfmt_bytes(int bits, std::size_t count) noexcept;
void pack_logfmt(int bits, std::span<const std::uint16_t> codes, std::span<std::uint8_t> bytes);
void unpack_logfmt(int bits, std::span<const std::uint8_t> bytes, std::span<std::uint16_t> codes);

}  // namespace cachalot::numeric
