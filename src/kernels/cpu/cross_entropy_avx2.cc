#include "kernels/cross_entropy.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "kernels/cpu/avx2.h"
#include "kernels/cpu/vec_avx2.h"

#ifdef CACHALOT_X86
CACHALOT_BEGIN_TARGET(CACHALOT_AVX2)
namespace cachalot::cpu::avx2 {
#include "kernels/cpu/cross_entropy_body.inc"
}  // namespace cachalot::cpu::avx2
CACHALOT_END_TARGET
#endif
