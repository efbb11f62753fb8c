// What the level avx2 (AVX2 + FMA + F16C) offers. To add a slot: declare it, list it in add_avx2.
#pragma once

#include "kernels/table.h"

namespace cachalot::cpu {

namespace avx2 {

void gemm(const Context& ctx, Precision precision, std::span<const Gemm> problems);

}  // namespace avx2

constexpr void add_avx2(KernelTable& table) { table.gemm = avx2::gemm; }

}  // namespace cachalot::cpu
