// What the level avx2 (AVX2 + FMA + F16C) offers. To add a slot: declare it, list it in add_avx2.
#pragma once

#include "kernels/table.h"

namespace cachalot::cpu {

namespace avx2 {}  // namespace avx2

constexpr void add_avx2([[maybe_unused]] KernelTable& table) {}

}  // namespace cachalot::cpu
