#include "kernels/fp8.h"

#include <algorithm>
#include <vector>

#include "kernels/cpu/avx512.h"
#include "kernels/cpu/fp8_vec_avx512.h"

#ifdef CACHALOT_X86
CACHALOT_BEGIN_TARGET(CACHALOT_AVX512)
namespace cachalot::cpu::avx512 {
#include "kernels/cpu/fp8_body.inc"
}  // namespace cachalot::cpu::avx512
CACHALOT_END_TARGET
#endif
