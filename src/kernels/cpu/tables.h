// The tables of the levels this build has beyond the reference.
#pragma once

#include "kernels/table.h"

namespace cachalot::cpu {

extern constinit const KernelTable kAvx2Table;
extern constinit const KernelTable kAvx512Table;
extern constinit const KernelTable kAvx512Bf16Table;

}  // namespace cachalot::cpu
