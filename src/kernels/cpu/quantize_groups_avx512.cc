#include "kernels/quantize_groups.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>

#include "kernels/cpu/avx512.h"
#include "kernels/cpu/group_vec_avx512.h"

#ifdef CACHALOT_X86
CACHALOT_BEGIN_TARGET(CACHALOT_AVX512)
namespace cachalot::cpu::avx512 {
#include "kernels/cpu/quantize_groups_body.inc"
}  // namespace cachalot::cpu::avx512
CACHALOT_END_TARGET
#endif
