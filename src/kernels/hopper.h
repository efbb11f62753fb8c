// Products of block-scaled E4M3 as Hopper's tensor cores sum them, to see what that costs a model.
//
// The contract is that of gemm_fp8 (kernels/fp8.h) but for the sums: a register of 1 + 8 + 13 bits
// takes 32 products at a time (numeric/hopper.h) and is promoted every N_C elements of K:
// sum = fma(register, scale_a * scale_b, sum) in float32. The register counts in units of the
// scales of its block of K; where a block ends and the register goes on (N_C of 0 or no divisor of
// 128), it is multiplied by old scale / new scale, which has to be a power of two: then the result
// is what the tensor core would give on operands that carry their scales.
// Same bits at every level.
//
// Threads: split over elements of the result; results do not depend on the threads.
// Errors:  kUsage (an N_C that is no multiple of 32), kShape (as gemm_fp8; scales that are no
// powers
//          of two where they have to be).
// Paper:   DeepSeek-V3 report, section 3.3.2.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/context.h"
#include "kernels/fp8.h"

namespace cachalot {

enum class Accumulator : std::uint8_t { kFloat, kHopper };

struct Accumulation {
  Accumulator kind = Accumulator::kFloat;
  int interval = 128;  // kHopper: N_C, elements of K until promotion; 0: never
};

// `interval` alone: the kernels know one accumulator.
void gemm_fp8_hopper_ref(const Context& ctx, int interval, std::span<const Fp8Gemm> problems);

// kFloat is gemm_fp8.
void gemm_fp8_hopper(const Context& ctx, Accumulation how, std::span<const Fp8Gemm> problems);

}  // namespace cachalot
