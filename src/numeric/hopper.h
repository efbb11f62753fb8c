// How Hopper's tensor cores sum products of E4M3, as arithmetic of integers: exact rules, no speed.
//
// 32 products and a register are aligned to the largest exponent among them, each is cut to 13 bits
// after the point (towards zero), they are added, and the sum is cut to the register's 1 + 8 + 13
// bits. A product's exponent is the sum of its factors' exponents (its significand lies in [1, 4),
// or lower with a subnormal factor). So a product 14 and more binary places below the register is
// lost, and what is lost always shrinks magnitudes: errors do not average out.
// Every N_C elements of K the register is promoted: multiplied by the scales into a float32 sum.
//
// Threads: pure functions.
// Paper:   DeepSeek-V3 report, sections 3.3.2 and 3.5.2; "Insights into DeepSeek-V3",
// section 3.1.1.
//          Exponents that are not normalised: Xie et al., "MMA-Sim" (arXiv 2511.10909), which
//          compared such a model with the hardware bit by bit.
#pragma once

#include <cstdint>
#include <span>

namespace cachalot::numeric {

inline constexpr int kHopperGroup = 32;         // products that are added at once
inline constexpr int kHopperFractionBits = 13;  // after the point, where they are aligned

// One step: the register after adding the products of at most 32 pairs of codes. NaN if one is.
// A register below kHopperLeast counts as zero (products of codes begin at 2^-18; it is for callers
// that rescale the register).
inline constexpr float kHopperLeast = 0x1p-100f;
float hopper_step(float held, std::span<const std::uint8_t> a,
                  std::span<const std::uint8_t> b) noexcept;

// sum of a[i] b[i], promoted to a float32 sum every `interval` elements; 0: only at the end.
float hopper_dot(std::span<const std::uint8_t> a, std::span<const std::uint8_t> b,
                 int interval) noexcept;

}  // namespace cachalot::numeric
