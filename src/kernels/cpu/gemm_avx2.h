// Parts of the product of the level avx2 that those with weights in 8 or 4 bits share.
#pragma once

#include "kernels/cpu/gemm_driver.h"

namespace cachalot::cpu::avx2 {

// Of a register tile: x 2 vectors 12 accumulators, 2 vectors of B, 1 broadcast of A. A product of
// few rows has one panel of A, so no more than these.
constexpr int kGemmRows = 6;

void gemm_pack(const PackJob& job);
void gemm_direct(const DirectJob& job);  // Steps::kFloat and kWide
void gemm_store(const float* tile, std::ptrdiff_t stride, int rows, int cols, bool accumulate,
                float* c, std::ptrdiff_t c_stride);

}  // namespace cachalot::cpu::avx2
