#include "kernels/quantize_groups.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>

#include "kernels/cpu/avx2.h"
#include "kernels/cpu/group_vec_avx2.h"

#ifdef CACHALOT_X86
CACHALOT_BEGIN_TARGET(CACHALOT_AVX2)
namespace cachalot::cpu::avx2 {
#include "kernels/cpu/quantize_groups_body.inc"
}  // namespace cachalot::cpu::avx2
CACHALOT_END_TARGET
#endif
