// Block-scaled E4M3: activations in tiles of 1 x 128, weights in blocks of 128 x 128, each with one
// float32 scale; value = code * scale. Short blocks at the edges are scaled by what they hold.
//
// The definition that faster kernels are tested against: code = encode_e4m3(x / scale), a float32
// division (multiplying by 1 / scale flips some codes). A tile that holds a NaN or an infinity
// becomes NaN as a whole when it is dequantised, so divergence is never hidden.
//
// Threads: pure functions.
// Errors:  kShape where the views do not fit each other.
// Paper:   DeepSeek-V3 report, section 3.3.2.
#pragma once

#include <cstdint>
#include <string_view>

#include "tensor/mat.h"

namespace cachalot::numeric {

inline constexpr int kScaleBlock = 128;

enum class ScaleKind : std::uint8_t {
  kPlain,          // amax / 448; 1 for an all-zero block
  kPow2,           // the same rounded up to a power of two
  kOfficial,       // max(amax, 1e-4) / 448, as DeepSeek's inference kernels quantise activations
  kOfficialUe8m0,  // that rounded up to a power of two
};
inline constexpr ScaleKind kScaleKinds[] = {ScaleKind::kPlain, ScaleKind::kPow2,
                                            ScaleKind::kOfficial, ScaleKind::kOfficialUe8m0};
std::string_view name(ScaleKind kind) noexcept;  // "plain", "pow2", "official", "official_ue8m0"

// The smallest power of two >= x, for x > 0; infinity and NaN stay themselves.
float round_up_to_power_of_two(float x) noexcept;

// The scale of a block whose largest magnitude is `amax`: positive unless amax is NaN.
float block_scale(ScaleKind kind, float amax) noexcept;

constexpr int blocks_of(int size, int block) noexcept { return (size + block - 1) / block; }

// codes [R, C] and scales [ceil(R / block_rows), ceil(C / block_cols)] of x [R, C].
void quantize_blocks(MatView<const float> x, ScaleKind kind, MatView<std::uint8_t> codes,
                     MatView<float> scales, int block_rows = kScaleBlock,
                     int block_cols = kScaleBlock);
// Tiles of 1 x 128: scales [R, ceil(C / 128)].
void quantize_tiles(MatView<const float> x, ScaleKind kind, MatView<std::uint8_t> codes,
                    MatView<float> scales);

// x = code * scale in float32: one rounding, none where the scale is a power of two.
void dequantize_blocks(MatView<const std::uint8_t> codes, MatView<const float> scales,
                       MatView<float> x, int block_rows = kScaleBlock,
                       int block_cols = kScaleBlock);
void dequantize_tiles(MatView<const std::uint8_t> codes, MatView<const float> scales,
                      MatView<float> x);

// y [T, N] = a [T, K] w [N, K]^T from codes and scales: tiles of `a`, blocks of `w`. Products of
// codes and their sums over 128 columns are exact in double; then one rounding per block.
void block_scaled_gemm(MatView<const std::uint8_t> a_codes, MatView<const float> a_scales,
                       MatView<const std::uint8_t> w_codes, MatView<const float> w_scales,
                       MatView<double> y);

}  // namespace cachalot::numeric
