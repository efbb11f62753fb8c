// Parts of the AVX-512 products with weights in 8 or 4 bits that the level with vdpbf16ps shares.
#pragma once

#include "kernels/cpu/quant_driver.h"

namespace cachalot::cpu {

inline constexpr int kQuantRows = 14;       // rows of a register tile: 28 accumulators
inline constexpr int kQuantFreshRows = 12;  // taller ones leave no registers to expand W

}  // namespace cachalot::cpu

namespace cachalot::cpu::avx512 {

// A panel of x rounded to bf16, in Steps::kWide or kPair; zeros behind K.
void quant_pack_bf16(const QuantPackJob& job, Steps steps);
// bf16 activations by float multiply-adds; `flush`: denormals are zeros, as for vdpbf16ps.
void quant_linear_floats(const Context& ctx, std::span<const QuantLinear> problems, bool flush);

}  // namespace cachalot::cpu::avx512

namespace cachalot::cpu::avx512bf16 {

// The ways of this level, for tests: vdpbf16ps on pairs, vpdpbusd on int8 activations. False: this
// machine lacks an instruction they need (VBMI, VNNI), and nothing was done.
bool quant_linear_pairs(const Context& ctx, std::span<const QuantLinear> problems);
bool quant_linear_integers(const Context& ctx, std::span<const QuantLinear> problems);

}  // namespace cachalot::cpu::avx512bf16
