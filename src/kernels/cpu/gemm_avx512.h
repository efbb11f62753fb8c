// Parts of the AVX-512 product that the level with vdpbf16ps shares.
#pragma once

#include "kernels/cpu/gemm_driver.h"

namespace cachalot::cpu::avx512 {

constexpr int kGemmRows = 14;  // x 2 vectors: 28 accumulators, 2 vectors of B, 2 registers spare
constexpr int kGemmVecs = 2;

void gemm_pack(const PackJob& job);
void gemm_pack_fp8(const PackJob& job);  // codes of E4M3; Steps::kWide and kPair
void gemm_tile(const TileJob& job);
void gemm_scaled_tile(const TileJob& job);
void gemm_direct(const DirectJob& job);  // Steps::kFloat and kWide
void gemm_store(const float* tile, std::ptrdiff_t stride, int rows, int cols, bool accumulate,
                float* c, std::ptrdiff_t c_stride);

}  // namespace cachalot::cpu::avx512

namespace cachalot::cpu::avx512bf16 {

void gemm_pack(const PackJob& job);
void gemm_direct_pairs(const DirectJob& job);  // Steps::kPair with bf16 weights; others as avx512

// The two ways this level has for bf16, with the same bits: float FMAs, and vdpbf16ps.
void gemm_floats(const Context& ctx, Precision precision, std::span<const Gemm> problems);
void gemm_pairs(const Context& ctx, std::span<const Gemm> problems);
void gemm_fp8_floats(const Context& ctx, std::span<const Fp8Gemm> problems);
void gemm_fp8_pairs(const Context& ctx, std::span<const Fp8Gemm> problems);

}  // namespace cachalot::cpu::avx512bf16
