// What the level avx512 (F, BW, DQ, VL) offers over avx2, whose slots it inherits. To add a slot:
// declare it, list it in add_avx512.
#pragma once

#include "kernels/cpu/avx2.h"
#include "kernels/table.h"

namespace cachalot::cpu {

namespace avx512 {

void gemm(const Context& ctx, Precision precision, std::span<const Gemm> problems);

}  // namespace avx512

constexpr void add_avx512(KernelTable& table) {
  add_avx2(table);
  table.gemm = avx512::gemm;
}

}  // namespace cachalot::cpu
