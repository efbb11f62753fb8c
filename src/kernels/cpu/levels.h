// The CPU levels this build has, and which of them this machine can run.
//
// Levels: ref (plain C++, any CPU), avx2 (AVX2 + FMA + F16C), avx512 (F, BW, DQ, VL), avx512bf16
// (avx512 + vdpbf16ps).
// Threads: the answers are computed once and never change.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "kernels/table.h"

namespace cachalot::cpu {

enum class Level : int { kRef, kAvx2, kAvx512, kAvx512Bf16 };

std::string_view name(Level level) noexcept;
const KernelTable& table(Level level) noexcept;

// Levels this machine can run, slowest first. `avx512bf16` counts when CPUID names it, or when
// executing the instruction in a child process works: hypervisors often mask the bit only.
std::span<const Level> supported_levels();
// How avx512bf16 was found: "cpuid", "probe" or "absent".
std::string_view bf16_source();

// The tables of supported_levels(), for tests that run every level.
std::vector<const KernelTable*> tables_on_this_host();

}  // namespace cachalot::cpu
