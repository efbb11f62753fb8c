#include "kernels/fp8.h"

#include <algorithm>
#include <vector>

#include "kernels/cpu/avx2.h"
#include "kernels/cpu/fp8_vec_avx2.h"

#ifdef CACHALOT_X86
CACHALOT_BEGIN_TARGET(CACHALOT_AVX2)
namespace cachalot::cpu::avx2 {
#include "kernels/cpu/fp8_body.inc"
}  // namespace cachalot::cpu::avx2
CACHALOT_END_TARGET
#endif
