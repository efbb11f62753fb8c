// Storage formats of saved activations and of what is sent between experts.
//
//   bf16     each value rounded by itself (nearest, ties to even; NaN stays NaN)
//   E5M6     12 bits and power-of-two scales per tile of 1 x 128: attention's output
//   payload  what a receiver sees after a row went out in a format of numeric/payload.h
//
// bf16 and E5M6 have the same bits at every level, and so have the payloads bf16, E4M3 and E5M2.
// LogFMT's may differ from the reference in two ways, both bounded (cpu/saved_levels_test.cc): a
// value nearer to the point between two codes than logfmt_unsure(step), in steps, may take either
// code, and a decoded value is off by at most kLogFmtValueError, relatively.
//
// Threads: rows are independent; results do not depend on the threads.
// Errors:  kShape where the operands do not fit each other.
// Paper:   DeepSeek-V3 report, section 3.3.3; "Insights into DeepSeek-V3", section 3.2.
#pragma once

#include "kernels/context.h"
#include "numeric/payload.h"
#include "tensor/e5m6.h"
#include "tensor/mat.h"

namespace cachalot {

// The vectors' log2 is off by 2^-22 at most, the place computed from it by 2^-14 of a step. `step`
// is of log2; from 1e-5 (ends that are neighbours in bf16, 10 bits) to 0.25 (2^32 apart, 8 bits).
constexpr double logfmt_unsure(double step) { return 0x1p-22 / step + 0x1p-14; }
inline constexpr double kLogFmtValueError = 0x1p-21;

// x [R, C] -> out [R, C].
void store_bf16_ref(const Context& ctx, MatView<const float> x, MatView<Bf16> out);
void load_bf16_ref(const Context& ctx, MatView<const Bf16> x, MatView<float> out);
// `out` was resized to x's rows and columns.
void store_e5m6_ref(const Context& ctx, MatView<const float> x, E5m6Mat& out);
void load_e5m6_ref(const Context& ctx, const E5m6Mat& x, MatView<float> out);
// x [R, C] in place.
void payload_round_trip_ref(const Context& ctx, numeric::Payload payload, MatView<float> x);

void store_bf16(const Context& ctx, MatView<const float> x, MatView<Bf16> out);
void load_bf16(const Context& ctx, MatView<const Bf16> x, MatView<float> out);
void store_e5m6(const Context& ctx, MatView<const float> x, E5m6Mat& out);
void load_e5m6(const Context& ctx, const E5m6Mat& x, MatView<float> out);
void payload_round_trip(const Context& ctx, numeric::Payload payload, MatView<float> x);

}  // namespace cachalot
