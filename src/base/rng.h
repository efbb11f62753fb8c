// Counter-based random numbers: the value at (seed, stream, index) is a pure function, so data
// order, initialisation and sampling repeat exactly on any number of threads and after a resume.
//
// Paper: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC'11): Philox-4x32-10.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <string_view>

namespace cachalot {

// The stream of what has a name: FNV-1a.
constexpr std::uint64_t stream_of(std::string_view name) noexcept {
  std::uint64_t stream = 14695981039346656037ull;
  for (const char c : name) {
    stream = (stream ^ static_cast<unsigned char>(c)) * 1099511628211ull;
  }
  return stream;
}

class Rng {
 public:
  explicit Rng(std::uint64_t seed, std::uint64_t stream = 0) : seed_(seed), stream_(stream) {}

  // Four independent 32-bit words at counter `index`.
  std::array<std::uint32_t, 4> block(std::uint64_t index) const noexcept {
    std::array<std::uint32_t, 4> c{
        static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32),
        static_cast<std::uint32_t>(stream_), static_cast<std::uint32_t>(stream_ >> 32)};
    auto k0 = static_cast<std::uint32_t>(seed_);
    auto k1 = static_cast<std::uint32_t>(seed_ >> 32);
    for (int round = 0; round < 10; ++round) {
      const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * c[0];
      const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * c[2];
      c = {static_cast<std::uint32_t>(p1 >> 32) ^ c[1] ^ k0, static_cast<std::uint32_t>(p1),
           static_cast<std::uint32_t>(p0 >> 32) ^ c[3] ^ k1, static_cast<std::uint32_t>(p0)};
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    return c;
  }

  std::uint64_t bits(std::uint64_t index) const noexcept {
    const auto b = block(index);
    return (std::uint64_t{b[1]} << 32) | b[0];
  }
  // Uniform in [0, 1) with 53 bits.
  double uniform(std::uint64_t index) const noexcept {
    return static_cast<double>(bits(index) >> 11) * 0x1p-53;
  }
  // Standard normal (Box-Muller).
  double normal(std::uint64_t index) const noexcept {
    const auto b = block(index);
    const double u = (static_cast<double>(b[0]) + 0.5) * 0x1p-32;
    const double v = static_cast<double>(b[1]) * 0x1p-32;
    return std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * v);
  }
  // Uniform in [0, n): multiply-shift; the bias is below n / 2^64.
  std::uint64_t below(std::uint64_t index, std::uint64_t n) const noexcept {
    return static_cast<std::uint64_t>((static_cast<unsigned __int128>(bits(index)) * n) >> 64);
  }

 private:
  std::uint64_t seed_;
  std::uint64_t stream_;
};

}  // namespace cachalot
