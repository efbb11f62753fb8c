#include "numeric/hopper.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <limits>

namespace cachalot::numeric {

namespace {

// value = significand * 2^(exponent - 3) of an E4M3 code, without its sign.
struct Factor {
  int significand;  // 0 .. 15
  int exponent;     // of the leading bit, that of the least normals for subnormals
};

Factor factor(std::uint8_t code) noexcept {
  const int field = (code >> 3) & 0xF;
  return {(field == 0 ? 0 : 8) + (code & 7), std::max(field, 1) - 7};
}

bool is_nan(std::uint8_t code) noexcept { return (code & 0x7F) == 0x7F; }

// The leading 1 + 13 bits of |x| towards zero, and the exponent of the first one.
struct Cut {
  int significand;
  int exponent;
};
Cut cut(float x) noexcept {
  const auto u = std::bit_cast<std::uint32_t>(x) & 0x7FFFFFFFu;
  const auto exponent = static_cast<int>(u >> 23) - 127;
  const auto fraction = static_cast<int>((u & 0x7FFFFFu) >> (23 - kHopperFractionBits));
  return {(1 << kHopperFractionBits) + fraction, exponent};
}

// x * 2^by, bits below the point dropped.
int shifted(int x, int by) noexcept { return by >= 0 ? x << by : by < -30 ? 0 : x >> -by; }

}  // namespace

float hopper_step(float held, std::span<const std::uint8_t> a,
                  std::span<const std::uint8_t> b) noexcept {
  constexpr int kNone = std::numeric_limits<int>::min();
  if (std::fabs(held) < kHopperLeast) held = 0;
  int largest = held != 0 ? cut(held).exponent : kNone;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (is_nan(a[i]) || is_nan(b[i]) || std::isnan(held)) {
      return std::numeric_limits<float>::quiet_NaN();
    }
    const Factor x = factor(a[i]), y = factor(b[i]);
    if (x.significand * y.significand != 0) largest = std::max(largest, x.exponent + y.exponent);
  }
  if (largest == kNone) return 0.0f;

  // All in units of 2^(largest - 13): 33 terms below 2^15 each.
  int sum = 0;
  if (held != 0) {
    const int size = shifted(cut(held).significand, cut(held).exponent - largest);
    sum = held < 0 ? -size : size;
  }
  for (std::size_t i = 0; i < a.size(); ++i) {
    const Factor x = factor(a[i]), y = factor(b[i]);
    // The product is significands * 2^(exponents - 6).
    const int size = shifted(x.significand * y.significand,
                             x.exponent + y.exponent - 6 - (largest - kHopperFractionBits));
    sum += ((a[i] ^ b[i]) & 0x80) != 0 ? -size : size;
  }
  const auto bits = static_cast<int>(std::bit_width(static_cast<unsigned>(std::abs(sum))));
  const int extra = std::max(bits - 1 - kHopperFractionBits, 0);
  const int kept = (std::abs(sum) >> extra) << extra;
  return std::ldexp(static_cast<float>(sum < 0 ? -kept : kept), largest - kHopperFractionBits);
}

float hopper_dot(std::span<const std::uint8_t> a, std::span<const std::uint8_t> b,
                 int interval) noexcept {
  float sum = 0, held = 0;
  for (std::size_t k = 0; k < a.size(); k += kHopperGroup) {
    const std::size_t n = std::min<std::size_t>(kHopperGroup, a.size() - k);
    held = hopper_step(held, a.subspan(k, n), b.subspan(k, n));
    if (interval != 0 && (k + n) % static_cast<std::size_t>(interval) == 0) {
      sum += held;
      held = 0;
    }
  }
  return sum + held;
}

}  // namespace cachalot::numeric
