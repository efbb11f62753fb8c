#include "numeric/logfmt.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "base/error.h"
#include "base/rng.h"
#include "tensor/dtype.h"

namespace cachalot::numeric {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

std::vector<float> random_tile(std::uint64_t seed, double spread, std::size_t n = kLogFmtTile) {
  const Rng rng(seed);
  std::vector<float> x(n);
  for (std::size_t i = 0; i < n; ++i) {
    x[i] = static_cast<float>(rng.normal(2 * i) * std::exp2(spread * rng.normal(2 * i + 1)));
  }
  return x;
}

std::vector<float> round_trip(int bits, const std::vector<float>& x) {
  std::vector<std::uint16_t> codes(x.size());
  const LogFmtRange range = encode_logfmt(bits, x, codes);
  std::vector<float> back(x.size());
  decode_logfmt(bits, range, codes, back);
  return back;
}

// The nearest of all decoded values, ties to the even code.
int brute_force(const LogFmtGrid& grid, float magnitude) {
  int best = 0;
  for (int code = 1; code <= grid.last(); ++code) {
    const double now = std::fabs(static_cast<double>(grid.value(code)) - magnitude);
    const double before = std::fabs(static_cast<double>(grid.value(best)) - magnitude);
    if (now < before || (now == before && best % 2 == 1 && code % 2 == 0)) best = code;
  }
  return best;
}

const std::vector<LogFmtRange>& ranges() {
  static const std::vector<LogFmtRange> all = [] {
    std::vector<LogFmtRange> r{{1.0f, 2.0f},          {1.9921875f, 2.0f},
                               {0x1p-32f, 1.0f},      {0x1.fep-33f, 0x1.fep-1f},
                               {0x1p-122f, 0x1p-90f}, {0x1p96f, 0x1.fep127f}};
    for (std::uint64_t seed = 1; seed <= 12; ++seed) {
      r.push_back(logfmt_range(random_tile(seed, static_cast<double>(seed))));
    }
    return r;
  }();
  return all;
}

// Values on the grid, at its midpoints and their neighbours, and anywhere between.
std::vector<float> probes(const LogFmtGrid& grid, LogFmtRange range, std::uint64_t seed) {
  std::vector<float> x{0.0f,
                       range.low / 2,
                       std::nextafter(range.low / 2, kInf),
                       range.low,
                       range.high,
                       range.high * 1.001f,
                       range.low * 0.75f};
  const Rng rng(seed);
  for (int code = 1; code < grid.last(); ++code) {
    const float a = grid.value(code), b = grid.value(code + 1);
    const auto middle = static_cast<float>((static_cast<double>(a) + static_cast<double>(b)) / 2);
    for (const float m : {a, middle, std::nextafter(middle, 0.0f), std::nextafter(middle, kInf)}) {
      x.push_back(m);
    }
  }
  for (std::uint64_t i = 0; i < 500; ++i) {
    const double t = rng.uniform(i);
    x.push_back(static_cast<float>(range.low * std::pow(double{range.high} / range.low, t)));
  }
  return x;
}

TEST(LogFmt, NearestEqualsTheSearchOverEveryDecodedValue) {
  for (const int bits : {3, 4, 5, 8, 10, 12}) {
    for (std::size_t r = 0; r < ranges().size(); ++r) {
      const LogFmtRange range = ranges()[r];
      const LogFmtGrid grid(bits, range);
      for (const float x : probes(grid, range, r)) {
        if (bits == 12 && std::bit_cast<std::uint32_t>(x) % 5 != 0) continue;  // the search is slow
        ASSERT_EQ(brute_force(grid, x), grid.nearest(x))
            << bits << " bits, [" << range.low << ", " << range.high << "], " << x;
      }
    }
  }
}

// floor(log(x / low) / step + 2 - log((1 + e^step) / 2) / step), the paper's rounding; DeepEP has
// the same in base 2. Where x stands nearer to a decision point than the logarithms are exact,
// either side is right.
TEST(LogFmt, NearestEqualsTheClosedFormFromLowOn) {
  for (const int bits : {3, 5, 8, 10, 12}) {
    for (std::size_t r = 0; r < ranges().size(); ++r) {
      const LogFmtRange range = ranges()[r];
      const LogFmtGrid grid(bits, range);
      const double steps = (1 << (bits - 1)) - 2;
      const double low = std::log(double{range.low}), high = std::log(double{range.high});
      const double step = (high - low) / steps;
      const double low2 = std::log2(double{range.low});
      const double step2 = (std::log2(double{range.high}) - low2) / steps;
      int compared = 0;
      for (const float x : probes(grid, range, r)) {
        if (x < range.low || x > range.high) continue;
        const double e =
            (std::log(double{x}) - low) / step + 2 - std::log((1 + std::exp(step)) / 2) / step;
        const double two = (std::log2(double{x}) - low2) / step2 + 2 -
                           std::log2((1 + std::exp2(step2)) / 2) / step2;
        ASSERT_NEAR(e, two, 1e-6 * steps);
        // Decoded values are floats: their midpoint is off by one rounding, in units of a step.
        const double unsure = 0x1p-23 / step + 1e-9 * steps;
        if (std::fabs(e - std::round(e)) < unsure) continue;
        ASSERT_EQ(static_cast<int>(std::floor(e)), grid.nearest(x))
            << bits << " bits, [" << range.low << ", " << range.high << "], " << x;
        ++compared;
      }
      EXPECT_GT(compared, 500);
    }
  }
}

TEST(LogFmt, EveryCodeDecodesToItsPlaceAndComesBack) {
  for (const int bits : {3, 8, 10, 12}) {
    for (const LogFmtRange range : ranges()) {
      const LogFmtGrid grid(bits, range);
      EXPECT_EQ((1 << (bits - 1)) - 1, grid.last());
      EXPECT_EQ(0.0f, grid.value(0));
      EXPECT_EQ(range.low, grid.value(1));
      EXPECT_EQ(range.high, grid.value(grid.last()));
      for (int code = 1; code <= grid.last(); ++code) {
        ASSERT_LT(grid.value(code - 1), grid.value(code)) << code;
        ASSERT_EQ(code, grid.nearest(grid.value(code))) << code;
        const double place = std::log(double{range.low}) +
                             (std::log(double{range.high}) - std::log(double{range.low})) *
                                 (code - 1) / (grid.last() - 1);
        ASSERT_NEAR(1.0, std::exp(place) / double{grid.value(code)}, 1e-6);
      }
    }
  }
}

TEST(LogFmt, TheRangeIsOfTheTile) {
  EXPECT_EQ(0.5f, logfmt_range(std::vector<float>{0.0f, -0.5f, 2.0f}).low);  // zeros do not count
  EXPECT_EQ(2.0f, logfmt_range(std::vector<float>{0.0f, -0.5f, 2.0f}).high);
  const LogFmtRange wide = logfmt_range(std::vector<float>{1e-30f, -3.0f});
  EXPECT_EQ(3.0f * 0x1p-32f, wide.low);  // ln(high / low) is at most ln(2^32)
  const float fine = 1.0f + 0x1p-12f;
  const LogFmtRange sent = logfmt_range(std::vector<float>{fine, 3 * fine});
  EXPECT_EQ(1.0f, sent.low);  // the ends travel as bf16
  EXPECT_EQ(to_float(to_bf16(3 * fine)), sent.high);
}

TEST(LogFmt, DegenerateTiles) {
  for (const int bits : {3, 8, 10}) {
    // All zero: signs stay.
    const auto zeros = round_trip(bits, {0.0f, -0.0f, 0.0f});
    EXPECT_EQ(std::vector<float>({0.0f, 0.0f, 0.0f}), zeros);
    EXPECT_TRUE(std::signbit(zeros[1]));
    // One magnitude: exact where it is a bf16, with zeros beside it.
    EXPECT_EQ(std::vector<float>({1.5f, -1.5f, 0.0f, 1.5f}),
              round_trip(bits, {1.5f, -1.5f, 0.0f, 1.5f}));
    std::vector<std::uint16_t> code(1);
    encode_logfmt(bits, std::vector<float>{-7.0f}, code);
    EXPECT_EQ((1 << (bits - 1)) | 1, code[0]);
    // Magnitudes that become one in bf16.
    EXPECT_EQ(std::vector<float>({1.0f, -1.0f}),
              round_trip(bits, {1.0f + 0x1p-12f, -1.0f + 0x1p-12f}));
    // Two magnitudes: both ends of the grid.
    EXPECT_EQ(std::vector<float>({2.0f, -5.0f}), round_trip(bits, {2.0f, -5.0f}));
    // Values under the clamped end: the nearest of zero and it.
    const float low = 0x1p-32f;
    EXPECT_EQ(std::vector<float>({1.0f, low, 0.0f, 0.0f, -0.0f}),
              round_trip(bits, {1.0f, low * 0.51f, low * 0.5f, 1e-30f, -1e-30f}));
    // Nothing that is worth sending.
    EXPECT_EQ(std::vector<float>({0.0f, -0.0f}), round_trip(bits, {0x1p-91f, -0x1p-149f}));
    // NaN, infinity, or what bf16 rounds to infinity.
    for (const float bad : {std::nanf(""), kInf, -kInf, std::numeric_limits<float>::max()}) {
      for (const float x : round_trip(bits, {1.0f, 0.0f, bad, -3.0f})) {
        EXPECT_TRUE(std::isnan(x)) << bad;
      }
    }
    EXPECT_TRUE(round_trip(bits, {}).empty());
  }
}

// Rounding in linear space is unbiased: over values spread evenly in linear space the mean error
// is zero within its own noise. Rounding the logarithm is not, which shows that the test can tell.
TEST(LogFmt, RoundingIsUnbiased) {
  const Rng rng(5);
  for (const int bits : {4, 6}) {
    const LogFmtRange range{0x1p-6f, 1.0f};
    const LogFmtGrid grid(bits, range);
    constexpr int kSamples = 400000;
    double sum = 0, squares = 0, log_sum = 0;
    for (int i = 0; i < kSamples; ++i) {
      const auto x = static_cast<float>(range.low + (range.high - range.low) *
                                                        rng.uniform(static_cast<std::uint64_t>(i)));
      const double error = double{grid.value(grid.nearest(x))} - x;
      sum += error;
      squares += error * error;
      const double place = std::log2(double{x} / range.low) / grid.step();
      log_sum += double{grid.value(static_cast<int>(std::lround(place)) + 1)} - x;
    }
    const double noise = std::sqrt(squares);  // of the sum
    EXPECT_LT(std::fabs(sum), 4 * noise) << bits;
    EXPECT_GT(log_sum, 8 * noise) << bits;  // towards larger values
  }
}

TEST(LogFmt, PackingKeepsEveryBit) {
  for (int bits = kLogFmtMinBits; bits <= kLogFmtMaxBits; ++bits) {
    for (const std::size_t n : {0u, 1u, 7u, 8u, 127u, 128u}) {
      std::vector<std::uint16_t> codes(n), back(n);
      for (std::size_t i = 0; i < n; ++i) {
        codes[i] = static_cast<std::uint16_t>((i * 2654435761u >> 7) & ((1u << bits) - 1));
      }
      std::vector<std::uint8_t> bytes(packed_logfmt_bytes(bits, n));
      pack_logfmt(bits, codes, bytes);
      unpack_logfmt(bits, bytes, back);
      ASSERT_EQ(codes, back) << bits << " " << n;
    }
  }
  std::vector<std::uint8_t> bytes(3);
  pack_logfmt(10, std::vector<std::uint16_t>{0x2AB, 0x3CD}, bytes);
  EXPECT_EQ(0x2AB | 0x3CD << 10, bytes[0] | bytes[1] << 8 | bytes[2] << 16);
  EXPECT_EQ(160u, packed_logfmt_bytes(10, 128));
}

TEST(LogFmt, WrongUseIsAnError) {
  std::vector<float> x(129);
  std::vector<std::uint16_t> codes(129);
  EXPECT_THROW(encode_logfmt(8, x, codes), Error);
  std::vector<std::uint8_t> bytes(1);
  EXPECT_THROW(pack_logfmt(8, codes, bytes), Error);
  try {
    LogFmtGrid(2, {1, 2});
    FAIL() << "2 bits were accepted";
  } catch (const Error& e) {
    EXPECT_EQ(Code::kUsage, e.code());
    EXPECT_NE(std::string::npos, std::string(e.what()).find("from 3 to 12")) << e.what();
  }
}

}  // namespace
}  // namespace cachalot::numeric
