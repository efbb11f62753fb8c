#include "model/random_weights.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>

#include "base/rng.h"

namespace cachalot::model {

namespace {

constexpr int kHalf = 1 << 15;

// The probability above x, and the density at x.
double tail(double x) { return 0.5 * std::erfc(x / std::numbers::sqrt2); }
double density(double x) {
  return std::exp(-0.5 * x * x) * std::numbers::inv_sqrtpi / std::numbers::sqrt2;
}

}  // namespace

NormalFill::NormalFill() : upper_(kHalf) {
  double x = 0;
  for (int i = 0; i < kHalf; ++i) {
    const double above = 0.5 - (i + 0.5) / (2 * kHalf);
    // Newton from the quantile before: the tail is convex, so the steps come from below and do not
    // overshoot; four of them are exact to the last digits of a float even at the end of the table.
    for (int step = 0; step < 4; ++step) x += (tail(x) - above) / density(x);
    upper_[static_cast<std::size_t>(i)] = static_cast<float>(x);
  }
}

void NormalFill::fill(const Context& ctx, std::uint64_t seed, std::string_view name, float mean,
                      float std, std::span<float> values) const {
  constexpr std::size_t kPerBlock = 8;
  const Rng rng(seed, stream_of(name));
  const std::size_t blocks = (values.size() + kPerBlock - 1) / kPerBlock;
  constexpr std::int64_t kGrain = 1 << 13;
  ctx.for_each(static_cast<std::int64_t>(blocks), kGrain, [&](std::int64_t block) {
    const auto words = rng.block(static_cast<std::uint64_t>(block));
    float drawn[kPerBlock];
    for (std::size_t j = 0; j < kPerBlock; ++j) {
      // 15 bits pick the quantile, one its sign: put there, since a branch would be guessed wrong
      // every other time.
      const std::uint32_t bits = words[j / 2] >> (16 * (j % 2));
      const auto size = std::bit_cast<std::uint32_t>(upper_[bits & (kHalf - 1)]);
      drawn[j] = mean + std * std::bit_cast<float>(size | (bits & kHalf) << 16);
    }
    const std::size_t begin = static_cast<std::size_t>(block) * kPerBlock;
    std::copy_n(drawn, std::min(kPerBlock, values.size() - begin), values.data() + begin);
  });
}

}  // namespace cachalot::model
